//! Charts as SVG, small enough for a README: bars of the goals that are ratios, and lines of growth on logarithmic axes.

use crate::report::{Growth, Report, figure};
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const COLOURS: [&str; 4] = ["#0b6e99", "#c2571a", "#4b7f34", "#7a4ea3"];

/// Ours against each reference: bars of ratios on a logarithmic axis, from the line of 1, which is the reference. What should be
/// large and what should be small have colours of their own. `None` when nothing was compared.
pub(crate) fn ratios(report: &Report) -> Option<String> {
    let bars: Vec<(String, f64, bool)> = report
        .findings
        .iter()
        .filter_map(|finding| {
            let reference = finding.reference.as_ref()?;
            let ratio = finding.ours.paired(&reference.sample, |ours, theirs| ours / theirs).median();
            let name = format!("{} / {}", finding.what, reference.name);
            (ratio.is_finite() && ratio > 0.0).then(|| (name, ratio, finding.unit.ends_with("/s")))
        })
        .collect();
    if bars.is_empty() {
        return None;
    }
    let logarithms = || bars.iter().map(|(_, ratio, _)| ratio.log10());
    // Around 1 in any case, by a factor of two.
    let (least, most) = (logarithms().fold(-0.3, f64::min), logarithms().fold(0.3, f64::max));
    let (left, step, room) = (20.0, 38.0, WIDTH - 100.0);
    let x = |ratio: f64| left + room * (ratio.log10() - least) / (most - least);
    let one = x(1.0);
    let mut body = String::new();
    for (index, (name, ratio, large)) in bars.iter().enumerate() {
        let y = 20.0 + step * index as f64;
        let (from, to) = (one.min(x(*ratio)), one.max(x(*ratio)));
        let _ = write!(
            body,
            r#"<text x="{left}" y="{y:.0}">{}</text><rect x="{from:.1}" y="{:.0}" width="{:.1}" height="12" fill="{}"/><text x="{:.1}" y="{:.0}">{}×</text>"#,
            escape(name),
            y + 5.0,
            to - from,
            COLOURS[usize::from(!large)],
            to + 5.0,
            y + 16.0,
            figure(*ratio)
        );
    }
    let height = 20.0 + step * bars.len() as f64;
    let _ = write!(
        body,
        r#"<line x1="{one:.1}" x2="{one:.1}" y1="22" y2="{height}" stroke="currentColor" stroke-opacity="0.4"/><text x="{left}" y="{:.0}"><tspan fill="{}">more is better</tspan>, <tspan fill="{}">less is better</tspan></text>"#,
        height + 16.0,
        COLOURS[0],
        COLOURS[1]
    );
    Some(svg(height + 30.0, &body))
}

/// How something grows, both axes logarithmic.
pub(crate) fn growth(growth: &Growth) -> Option<String> {
    let points: Vec<(f64, f64)> = growth.lines.iter().flat_map(|line| line.medians()).collect();
    let points: Vec<(f64, f64)> = points.into_iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (least, most) =
            values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)));
        (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0))
    };
    if points.is_empty() {
        return None;
    }
    let (x_from, x_to) = range(&mut points.iter().map(|(x, _)| *x));
    let (y_from, y_to) = range(&mut points.iter().map(|(_, y)| *y));
    let (left, top, right, bottom) = (90.0, 40.0, WIDTH - 170.0, 300.0);
    let x = |value: f64| left + (value.log10() - x_from) / (x_to - x_from) * (right - left);
    let y = |value: f64| bottom - (value.log10() - y_from) / (y_to - y_from) * (bottom - top);
    let mut body =
        format!(r#"<text x="{left}" y="20">{} ({})</text>"#, escape(&growth.what), escape(growth.unit));
    let steps = |from: f64, to: f64| {
        (0..).map(move |step| from + f64::from(step)).take_while(move |power| *power <= to)
    };
    for power in steps(x_from, x_to) {
        let value = 10_f64.powf(power);
        let _ = write!(
            body,
            r##"<line x1="{0:.1}" x2="{0:.1}" y1="{top}" y2="{bottom}" stroke="#8885"/><text x="{0:.1}" y="{1}" text-anchor="middle">{2}</text>"##,
            x(value),
            bottom + 18.0,
            figure(value)
        );
    }
    for power in steps(y_from, y_to) {
        let value = 10_f64.powf(power);
        let _ = write!(
            body,
            r##"<line x1="{left}" x2="{right}" y1="{0:.1}" y2="{0:.1}" stroke="#8885"/><text x="{1}" y="{2:.1}" text-anchor="end">{3}</text>"##,
            y(value),
            left - 6.0,
            y(value) + 4.0,
            figure(value)
        );
    }
    for (line, colour) in growth.lines.iter().zip(COLOURS.iter().cycle()) {
        let medians: Vec<_> = line.medians().into_iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).collect();
        let path: Vec<String> = medians.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = write!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            path.join(" ")
        );
        for (a, b) in &medians {
            let _ = write!(body, r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, x(*a), y(*b));
        }
        if let Some((a, b)) = medians.last() {
            let _ = write!(
                body,
                r#"<text x="{:.1}" y="{:.1}" fill="{colour}">{}</text>"#,
                x(*a) + 8.0,
                y(*b) + 4.0,
                escape(&line.name)
            );
        }
    }
    let _ = write!(
        body,
        r#"<text x="{:.1}" y="{}" text-anchor="middle">{}</text>"#,
        f64::midpoint(left, right),
        bottom + 38.0,
        escape(growth.over)
    );
    Some(svg(bottom + 50.0, &body))
}

fn svg(height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"currentColor\">\
         <style>svg{{color:#222;background:#fff}}@media(prefers-color-scheme:dark){{svg{{color:#ddd;background:#111}}}}\
         </style>{body}</svg>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
