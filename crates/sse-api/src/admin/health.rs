//! Health for probes. Live: the server answers requests. Ready: a new stream can begin.

use crate::clock::now;
use crate::source::SourceSnapshot;
use feed::Status;
use serde_json::{Value, json};

/// Whether a new stream can begin, and the details for operators.
pub(crate) fn readiness(feed: &Status, source: &SourceSnapshot, stopping: bool) -> (bool, Value) {
    let waits = waits_for(feed, source);
    let ready = source.connected && feed.journal_ok && waits.is_none() && !stopping;
    let failing: Vec<_> = source.facts.iter().filter_map(|fact| fact.fails.as_ref()).collect();
    let details = json!({
        "ready": ready,
        "stopping": stopping,
        "database": {
            "connected": source.connected,
            "stale": feed.stale,
            "detail": source.detail,
            "slot_lag_bytes": source.slot_lag_bytes,
            "wal_held_bytes": source.wal_held_bytes,
            "wal_limit_bytes": source.wal_limit_bytes,
        },
        "failing_facts": failing,
        // At the current rate of change.
        "may_be_away_hours": {
            "client": source.client_may_be_away.map(hours),
            "service": source.service_may_be_away.map(hours),
        },
        "warnings": source.warnings,
        "journal": {
            "ok": feed.journal_ok,
            "bytes": feed.journal_bytes,
            "durable_lsn": feed.durable_lsn.to_string(),
        },
        // They wait for memory that clients hold, for a turn at the tables, or for the journal.
        "waiting": {
            "replays": feed.replays_waiting,
            "journal_readers": feed.journal_readers_waiting,
        },
        "safe_time": {
            "instant": feed.safe_time.map(|safe_time| safe_time.to_fhir()),
            "age_seconds": safe_time_age_seconds(feed),
            // Replays begin once the safe time has passed this.
            "journal_begins": feed.journal_begins.to_fhir(),
            "holding_back": source.holding_back,
            // Why no replay can begin now.
            "waits_for": waits,
        },
    });
    (ready, details)
}

const fn hours(seconds: u64) -> u64 {
    seconds / 3_600
}

/// Why a replay cannot begin now; `None` if it can.
fn waits_for(feed: &Status, source: &SourceSnapshot) -> Option<String> {
    if source.obstacle.is_some() {
        return source.obstacle.clone();
    }
    if !feed.journal_ok {
        return Some("the journal cannot be written".to_owned());
    }
    if feed.safe_time.is_some_and(|safe_time| safe_time >= feed.journal_begins) {
        return None;
    }
    let who = source.holding_back.as_deref().unwrap_or("it will, without action");
    Some(format!("the safe time has not passed the beginning of the journal: {who}"))
}

/// How far the safe time is behind our clock, in seconds; `None` before the first safe time. It does
/// not advance while nothing changes, so the newest time that was confirmed visible counts as well.
pub(crate) fn safe_time_age_seconds(feed: &Status) -> Option<f64> {
    let now = now();
    // A microsecond more or less is lost in a float of this size: never mind.
    #[allow(clippy::cast_precision_loss)]
    feed.visible_until
        .max(feed.safe_time)
        .map(|until| now.unix_micros().saturating_sub(until.unix_micros()) as f64 / 1e6)
}

/// Whether a new stream can begin, for metrics.
pub(crate) fn is_ready(feed: &Status, source: &SourceSnapshot, stopping: bool) -> bool {
    readiness(feed, source, stopping).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted_feed::status;
    use crate::source::Fact;
    use fhir::Instant;

    #[test]
    fn ready_requires_a_connection_a_writable_journal_and_no_shutdown() {
        let feed = Status { journal_ok: true, ..status() };
        let source = SourceSnapshot { connected: true, ..SourceSnapshot::default() };
        assert!(readiness(&feed, &source, false).0);
        assert!(!readiness(&feed, &source, true).0);
        assert!(!readiness(&feed, &SourceSnapshot::default(), false).0);
        let full = Status { journal_ok: false, ..feed };
        let (ready, details) = readiness(&full, &source, false);
        assert!(!ready);
        assert_eq!(details["journal"]["ok"], false);
        assert_eq!(details["safe_time"]["waits_for"], "the journal cannot be written");
        assert_eq!(details["database"]["connected"], true);
        assert_eq!(details["database"]["slot_lag_bytes"], Value::Null);
    }

    #[test]
    fn not_ready_until_the_safe_time_passes_the_journals_beginning() {
        let begins = Instant::from_unix_micros(10);
        let feed = |safe_time| Status { journal_ok: true, journal_begins: begins, safe_time, ..status() };
        let holding_back = Some("process 7 writes".to_owned());
        let source = SourceSnapshot { connected: true, holding_back, ..SourceSnapshot::default() };
        for safe_time in [None, Some(Instant::from_unix_micros(9))] {
            let (ready, details) = readiness(&feed(safe_time), &source, false);
            assert!(!ready);
            let waits = details["safe_time"]["waits_for"].as_str().unwrap();
            assert!(waits.contains("process 7 writes"), "{waits}");
        }
        let passed = feed(Some(begins));
        assert!(readiness(&passed, &source, false).0, "an open transaction no longer matters");
        let obstacle = SourceSnapshot { obstacle: Some("too many connections".into()), ..source };
        let (ready, details) = readiness(&passed, &obstacle, false);
        assert!(!ready);
        assert_eq!(details["safe_time"]["waits_for"], "too many connections");
    }

    #[test]
    fn failing_facts_are_listed() {
        let fact = |name, fails: Option<&str>| Fact { name, fails: fails.map(str::to_owned) };
        let facts = vec![fact("select", None), fact("triggers", Some("triggers: rest"))];
        let (_, details) =
            readiness(&status(), &SourceSnapshot { facts, ..SourceSnapshot::default() }, false);
        assert_eq!(details["failing_facts"], json!(["triggers: rest"]));
    }
}
