//! The rows of the table, each in a module that says what it means.

mod fanout;
mod filters;
mod group;
mod growth;
mod intake;
mod isolation;
mod latency;
mod memory;
mod patients;
mod replay;
mod resume;
mod start;

use crate::command::Arguments;
use crate::lab::Lab;
use crate::report::{Finding, Growth, Report};
use crate::{chart, clock, output};
use anyhow::{Context as _, Result, ensure};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// What a row gave.
#[derive(Debug, Default)]
struct Measured {
    findings: Vec<Finding>,
    growth: Vec<Growth>,
}

impl From<Vec<Finding>> for Measured {
    fn from(findings: Vec<Finding>) -> Self {
        Self { findings, growth: Vec::new() }
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Measured>> + 'a>>;

/// A row.
struct Row {
    name: &'static str,
    about: &'static str,
    measure: fn(&Lab) -> Answer<'_>,
}

macro_rules! row {
    ($name:literal, $about:literal, $measure:path) => {
        Row { name: $name, about: $about, measure: |lab| Box::pin($measure(lab)) }
    };
}

const ROWS: &[Row] = &[
    row!("intake-one", "slot to journal on disk, one transaction", intake::one),
    row!("intake-many", "slot to journal on disk, as many transactions", intake::many),
    row!("latency-one", "COMMIT to client, one subscriber, 1,000 commits a second", latency::one),
    row!("latency-crowd", "COMMIT to client, 1,000 subscribers, 100 commits a second", latency::crowd),
    row!("fanout", "COMMIT to last byte, 1,000 subscribers of one filter", fanout::measure),
    row!("isolation", "one subscriber among 10,000 of other types", isolation::measure),
    row!("filters", "1,000 subscribers with 1,000 filters", filters::measure),
    row!("patients", "10,000 streams of one patient: changes of others, and of theirs", patients::routing),
    row!("patient", "one patient among 1 million resources", patients::one_among_many),
    row!("group", "a Group of 100,000 with 1,000 subscribers, and one who joins", group::measure),
    row!("replay", "the whole state to one client", replay::measure),
    row!("resume", "the journal to one client", resume::measure),
    row!(
        "memory",
        "resident memory: idle, for each subscriber, and while a large transaction passes",
        memory::measure
    ),
    row!("start", "start to ready with a journal of 10 GB", start::measure),
    row!(
        "growth-subscribers",
        "fan-out, latency and memory with 1 to 10,000 subscribers",
        growth::subscribers
    ),
    row!("growth-replay", "replay of 10 thousand to 1 million resources", growth::replay),
];

/// Measures the rows that were asked for, prints the table, and writes it, the JSON and the charts.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        ROWS.iter().for_each(|row| output::show(&format!("{:20} {}", row.name, row.about)));
        return Ok(());
    }
    let chosen = chosen(&arguments.rows)?;
    let lab = Lab::open(arguments)?;
    let mut report = Report { circumstances: circumstances(arguments, &lab), ..Report::default() };
    for row in chosen {
        output::say(&format!("{}: {} …", row.name, row.about));
        let began = clock::now();
        match (row.measure)(&lab).await {
            Ok(measured) => {
                report.findings.extend(measured.findings);
                report.growth.extend(measured.growth);
            }
            Err(error) => {
                output::say(&format!("{} FAILED: {error:#}\n{}", row.name, lab.logs()));
                report.failed.push((row.name.to_owned(), format!("{error:#}")));
            }
        }
        output::say(&format!("{}: {:.0} s", row.name, clock::seconds(clock::now() - began)));
        // After each, so that what was measured is kept when a later one hangs.
        write(&arguments.out, &report)?;
        lab.remove_sites()?;
    }
    output::show(&report.table());
    output::say(&format!("written to {}", arguments.out.display()));
    ensure!(report.failed.is_empty(), "{} rows could not be measured", report.failed.len());
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        let row = ROWS.iter().find(|row| row.name == name);
        row.with_context(|| format!("there is no row '{name}': --list names those there are"))
    };
    names.iter().map(find).collect()
}

fn write(folder: &Path, report: &Report) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let put = |name: &str, text: String| {
        std::fs::write(folder.join(name), text)
            .with_context(|| format!("cannot write {name} in {}", folder.display()))
    };
    put("table.md", report.table())?;
    put("report.json", serde_json::to_string_pretty(report)?)?;
    if let Some(svg) = chart::ratios(report) {
        put("ratios.svg", svg)?;
    }
    for growth in &report.growth {
        let name: String =
            growth.what.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect();
        if let Some(svg) = chart::growth(growth) {
            put(&format!("growth-{}.svg", name.to_lowercase()), svg)?;
        }
    }
    Ok(())
}

fn circumstances(arguments: &Arguments, lab: &Lab) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    let mut lines = vec![
        format!(
            "{cores} cores of {}, {} of memory",
            line(&read("/proc/cpuinfo"), "model name"),
            line(&read("/proc/meminfo"), "MemTotal")
        ),
        format!("Linux {}, PostgreSQL {}", read("/proc/sys/kernel/osrelease").trim(), lab.postgres()),
        format!(
            "{} runs, scale {}, load of the machine before the first {load}",
            arguments.runs, arguments.scale
        ),
    ];
    if arguments.scale != 1.0 || load.parse::<f64>().is_ok_and(|load| load > 0.5) {
        lines.push(
            "**These figures mean little**: the scale is not 1, or the machine had other work.".to_owned(),
        );
    }
    lines
}

/// A line of the table; what it lacks is put in with struct update.
fn finding(row: &'static str, what: impl Into<String>, unit: &'static str, ours: Vec<f64>) -> Finding {
    Finding {
        row,
        what: what.into(),
        unit,
        ours: crate::statistics::Sample(ours),
        reference: None,
        goal: None,
    }
}

/// A reference's runs.
fn reference(name: &'static str, runs: Vec<f64>) -> Option<crate::report::Reference> {
    (!runs.is_empty()).then_some(crate::report::Reference { name, sample: crate::statistics::Sample(runs) })
}
