//! `fhir-tail check`: whether the database is ready for the service, line by line.
//!
//! What is asked and how it is judged is in [`cdc::check`]; here is only how it is shown.

use crate::cli::Accept;
use crate::demo::embedded;
use crate::output::say;
use crate::settings::{InvalidSettings, Origin, Problem, Settings};
use cdc::check::{Finding, UNLIMITED_WAL, Verdict, check};
use pg::Database;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

/// Checks and shows. `false`: something fails.
pub(crate) async fn run(
    settings: &Settings,
    json: bool,
    strict: bool,
    accepted: &[Accept],
) -> anyhow::Result<bool> {
    let database = match &settings.database {
        Some(database) => database.clone(),
        // The embedded Postgres is not started for a check.
        None => embedded::running(&settings.data_dir).await?.ok_or_else(|| {
            let message =
                "no database was named, and 'fhir-tail serve' is not running one of its own: say which";
            InvalidSettings(vec![Problem {
                origin: Origin::Flag("database-url"),
                message: message.to_owned(),
            }])
        })?,
    };
    let mut findings = check(&settings.followed(database.clone()), settings.retention()).await;
    weigh(&mut findings, strict, accepted);
    let text = if json { as_json(&database, &findings)? } else { as_lines(&database, &findings, coloured()) };
    say(format_args!("{text}"));
    Ok(is_well(&findings))
}

/// Warnings as the operator wants them to count.
fn weigh(findings: &mut [Finding], strict: bool, accepted: &[Accept]) {
    for finding in findings.iter_mut().filter(|finding| finding.verdict == Verdict::Warning) {
        let accept = accepted.iter().any(|accept| match accept {
            Accept::UnlimitedWal => finding.subject == UNLIMITED_WAL,
        });
        if accept {
            finding.verdict = Verdict::Pass;
            finding.sql = None;
        } else if strict {
            finding.verdict = Verdict::Failure;
        }
    }
}

fn is_well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Failure)
}

/// Colours are for people who look at them, and did not ask for none (<https://no-color.org>).
fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn as_lines(database: &Database, findings: &[Finding], coloured: bool) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or_default();
    let paint = |colour: &str, text: &str| {
        if coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    };
    // Writing to a String cannot fail.
    let mut out = format!("{database}\n");
    for Finding { subject, verdict, message, sql } in findings {
        let mark = match verdict {
            Verdict::Pass => paint("32", "✓"),
            Verdict::Warning => paint("33", "!"),
            Verdict::Failure => paint("31", "✗"),
        };
        let _ = writeln!(out, "{mark} {subject:width$}  {message}");
        if let Some(sql) = sql {
            let _ = writeln!(out, "  {:width$}  {}", "", paint("1", sql));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let plural = |count, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let _ = write!(
        out,
        "{}, {}, {} passed",
        plural(count(Verdict::Failure), "failure"),
        plural(count(Verdict::Warning), "warning"),
        count(Verdict::Pass)
    );
    out
}

#[derive(Serialize)]
struct Answer<'a> {
    database: String,
    ok: bool,
    checks: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    subject: &'static str,
    verdict: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<&'a str>,
}

fn as_json(database: &Database, findings: &[Finding]) -> serde_json::Result<String> {
    let checks = findings.iter().map(|finding| Line {
        subject: finding.subject,
        verdict: match finding.verdict {
            Verdict::Pass => "pass",
            Verdict::Warning => "warning",
            Verdict::Failure => "failure",
        },
        message: &finding.message,
        sql: finding.sql.as_deref(),
    });
    let answer = Answer { database: database.to_string(), ok: is_well(findings), checks: checks.collect() };
    serde_json::to_string_pretty(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let finding = |subject, verdict, sql: Option<&str>| Finding {
            subject,
            verdict,
            message: "as it is".into(),
            sql: sql.map(str::to_owned),
        };
        vec![
            finding("version", Verdict::Pass, None),
            finding("pg_read_all_stats", Verdict::Failure, Some("grant a to b;")),
            finding("clock", Verdict::Warning, None),
        ]
    }

    fn database() -> Database {
        Database::parse_with("postgres://u:secret@h/d", &|_| None).unwrap()
    }

    #[test]
    fn lines_are_aligned_and_coloured_only_when_asked() {
        let plain = as_lines(&database(), &findings(), false);
        let expected = "postgres://u@h:5432/d\n\
                        ✓ version            as it is\n\
                        ✗ pg_read_all_stats  as it is\n\
                        \x20                    grant a to b;\n\
                        ! clock              as it is\n\
                        1 failure, 1 warning, 1 passed";
        assert_eq!(plain, expected);
        let coloured = as_lines(&database(), &findings(), true);
        assert!(coloured.contains("\x1b[31m✗\x1b[0m"), "{coloured}");
    }

    #[test]
    fn json_has_the_same_and_never_the_password() {
        let text = as_json(&database(), &findings()).unwrap();
        assert!(!text.contains("secret"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ok"], false);
        assert_eq!(value["checks"][1]["verdict"], "failure");
        assert_eq!(value["checks"][1]["sql"], "grant a to b;");
        assert!(value["checks"][0].get("sql").is_none());
    }

    #[test]
    fn warnings_are_well() {
        let mut findings = findings();
        assert!(!is_well(&findings));
        findings.remove(1);
        assert!(is_well(&findings));
    }

    #[test]
    fn strict_fails_on_warnings_unless_they_are_accepted() {
        let mut unlimited = findings().remove(2);
        unlimited.subject = UNLIMITED_WAL;
        let weighed = |strict, accepted: &[Accept]| {
            let mut findings = vec![unlimited.clone(), findings().remove(2)];
            weigh(&mut findings, strict, accepted);
            findings.iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(weighed(false, &[]), [Verdict::Warning, Verdict::Warning]);
        assert_eq!(weighed(true, &[]), [Verdict::Failure, Verdict::Failure]);
        assert_eq!(weighed(true, &[Accept::UnlimitedWal]), [Verdict::Pass, Verdict::Failure]);
    }
}
