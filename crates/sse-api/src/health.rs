//! What probes are told. Alive: the loop that answers runs. Ready: a new stream would begin.

use crate::metrics::w_age_seconds;
use crate::source::SourceSnapshot;
use feed::Status;
use serde_json::{Value, json};

/// Whether a new stream would begin, and the details, for people.
pub(crate) fn readiness(feed: &Status, source: &SourceSnapshot, stopping: bool) -> (bool, Value) {
    let ready = source.connected && feed.journal_ok && !stopping;
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
        "warnings": source.warnings,
        "journal": {
            "ok": feed.journal_ok,
            "bytes": feed.journal_bytes,
            "durable_lsn": feed.durable_lsn.to_string(),
        },
        "w": {
            "instant": feed.w.map(|w| w.to_fhir()),
            "age_seconds": w_age_seconds(feed),
            // Replays begin once W has passed this.
            "journal_begins": feed.journal_begins.to_fhir(),
            "holding_back": source.holding_back,
        },
    });
    (ready, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::status;

    #[test]
    fn ready_is_connected_and_writing_and_not_stopping() {
        let feed = Status { journal_ok: true, ..status() };
        let source = SourceSnapshot { connected: true, ..SourceSnapshot::default() };
        assert!(readiness(&feed, &source, false).0);
        assert!(!readiness(&feed, &source, true).0);
        assert!(!readiness(&feed, &SourceSnapshot::default(), false).0);
        let full = Status { journal_ok: false, ..feed };
        let (ready, details) = readiness(&full, &source, false);
        assert!(!ready);
        assert_eq!(details["journal"]["ok"], false);
        assert_eq!(details["database"]["connected"], true);
        assert_eq!(details["database"]["slot_lag_bytes"], Value::Null);
    }
}
