//! Whether a database is ready to be followed: for `fhir-tail check`.
//!
//! Each module below is one subject. It asks the database (statements that change nothing, in a session that may not
//! write) and gives plain facts; a pure function judges them and gives [`Finding`]s. The facts on which a complete replay
//! depends are in `crate::facts`, where the service looks at them too. What it does at its start and what is asked here
//! share their statements: those of `publication`, `slot` and `watermarks`.

mod blockers;
mod clock;
mod releases;
mod role;
mod server;
mod slot_capacity;
pub(crate) mod slot_state;
mod standbys;
mod wal_budget;

use crate::facts;
use crate::{Settings, describe_error};
use pg::Session;
use pg::database::Connected;
use std::fmt;
use std::time::Duration;

/// What came of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All is well.
    Pass,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work, or will lose something.
    Failure,
}

/// One line of the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub subject: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// One sentence for people. Names no data.
    pub message: String,
    /// The statements that mend it, where statements can.
    pub sql: Option<String>,
}

/// In one line, with what mends it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)?;
        match &self.sql {
            Some(sql) => write!(f, ": run {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl Finding {
    /// The only one that does not pass.
    pub(crate) fn only_bad(findings: Vec<Self>) -> Self {
        let mut bad: Vec<_> =
            findings.into_iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.remove(0)
    }
}

impl Finding {
    pub(crate) fn new(subject: &'static str, verdict: Verdict, message: impl Into<String>) -> Self {
        Self { subject, verdict, message: message.into(), sql: None }
    }

    pub(crate) fn pass(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Pass, message)
    }

    pub(crate) fn warning(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Warning, message)
    }

    pub(crate) fn failure(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Failure, message)
    }

    pub(crate) fn mended_by(mut self, sql: impl Into<String>) -> Self {
        self.sql = Some(sql.into());
        self
    }
}

/// The subject of the finding that nothing bounds the log that is held while the service is down.
pub const UNLIMITED_WAL: &str = "max_slot_wal_keep_size";

/// What the journal keeps, to be compared with what the database writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// At most so many bytes, ...
    pub bytes: u64,
    /// ... and for so long.
    pub age: Duration,
}

/// Looks at everything that the service needs of this database. Changes nothing.
pub async fn check(settings: &Settings, retention: Retention) -> Vec<Finding> {
    let connected = match settings.database.connect_watched(Session::Check).await {
        Ok(connected) => connected,
        Err(error) => return vec![Finding::failure("connection", describe_error(&error))],
    };
    let mut report = Vec::new();
    match look(&connected, settings, retention, &mut report).await {
        Ok(()) => report,
        Err(error) => {
            let message = format!("the connection is of no use: {}", describe_error(&error));
            report.push(Finding::failure("connection", message));
            report
        }
    }
}

async fn look(
    connected: &Connected,
    settings: &Settings,
    retention: Retention,
    report: &mut Vec<Finding>,
) -> Result<(), tokio_postgres::Error> {
    let client = &connected.client;
    let server = server::ask(client).await?;
    report.extend(server::judge(&server));
    // What follows can only be asked of a primary of a version that has all these columns.
    if !server.can_be_asked() {
        return Ok(());
    }
    let slot = slot_state::ask(client, settings).await;
    let role = role::ask(connected, settings).await;
    let (there, active) = slot.as_ref().map_or((false, false), |facts| (facts.slot.is_some(), facts.active));
    add(
        report,
        "room",
        slot_capacity::ask(client).await.as_ref().map(|facts| slot_capacity::judge(facts, there, active)),
    );
    add(report, "standbys", standbys::ask(client).await.as_ref().map(standbys::judge));
    add(report, "role", role.as_ref().map(role::judge));
    for (subject, answer) in settings.layout.check(client, settings).await {
        match answer {
            Ok(findings) => report.extend(findings),
            Err(error) => add(report, subject, Err(&error)),
        }
    }
    add(report, "slot", slot.as_ref().map(|facts| slot_state::judge(facts, settings)));
    let wal_budget = wal_budget::ask(client, settings).await;
    add(report, "log volume", wal_budget.as_ref().map(|facts| wal_budget::judge(facts, retention)));
    add(report, "transactions", blockers::ask(client).await.as_ref().map(blockers::judge));
    add(report, "clock", clock::ask(client).await.as_ref().map(clock::judge));
    Ok(())
}

/// Adds the findings of a subject, or that it could not be asked.
fn add(
    report: &mut Vec<Finding>,
    subject: &'static str,
    answer: Result<Vec<Finding>, &tokio_postgres::Error>,
) {
    match answer {
        Ok(findings) => report.extend(findings),
        Err(error) => {
            report.push(Finding::failure(subject, facts::could_not_be_asked(error)));
        }
    }
}

/// So many bytes, for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut whole = bytes;
    let mut unit = 0;
    // The first digit of what is cut off.
    let mut tenth = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenth = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{tenth} {}", UNITS[unit])
    }
}

/// A span of time, for people: no more than they would say.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_as_people_say_them() {
        let gib = 1 << 30;
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (gib * 3 / 2, "1.5 GiB"),
            (100 * gib, "100 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u64::MAX).ends_with("TiB"));
        for (seconds, text) in
            [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (604_800, "7 days")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
