//! How much log the database writes, against what is kept: by the journal for clients that are away, and by the database
//! for us when we are.
//!
//! The log is that of the whole cluster, with its indexes and full pages; the journal has the resources alone. So these are the
//! least times that are to be expected, not the likely ones.

use super::{Finding, Retention, size, span};
use crate::{Settings, slot};
use std::time::Duration;
use tokio_postgres::Client;

/// What was counted for less than this says nothing about a day.
const ENOUGH: Duration = Duration::from_secs(3_600);
/// A service that may not be away for this long cannot be updated in peace.
const OUTAGE: Duration = Duration::from_secs(3_600);

/// What was written, and how much of it may be held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    written: u64,
    /// In this time.
    counted: Duration,
    /// The smaller of `--max-wal-held` and `max_slot_wal_keep_size`.
    held: u64,
}

pub(super) async fn ask(client: &Client, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select least(w.wal_bytes, 9223372036854775807)::int8, \
                    extract(epoch from clock_timestamp() - w.stats_reset)::float8 \
               from pg_stat_wal w",
            &[],
        )
        .await?;
    let counted =
        row.try_get::<_, Option<f64>>(1)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let keep = slot::keep_size(client).await?;
    Ok(Facts {
        written: u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default(),
        counted: counted.unwrap_or_default(),
        held: keep.unwrap_or(u64::MAX).min(settings.max_wal_held),
    })
}

pub(super) fn judge(facts: &Facts, retention: Retention) -> Vec<Finding> {
    const SUBJECT: &str = "log volume";
    if facts.counted < ENOUGH {
        let counted = span(facts.counted);
        return vec![Finding::pass(
            SUBJECT,
            format!("has been counted for {counted} only: too little to judge by"),
        )];
    }
    let hour = amount(facts, Duration::from_secs(3_600));
    let mut findings = Vec::new();
    let lasts = lasts(facts, retention.bytes);
    if lasts < retention.age {
        findings.push(Finding::warning(
            SUBJECT,
            format!(
                "{} an hour may fill the journal ({}) within {}, before {} have passed: whoever is away for longer than that \
                 is reset; raise --retention-bytes to {}",
                size(hour),
                size(retention.bytes),
                span(lasts),
                span(retention.age),
                size(amount(facts, retention.age)),
            ),
        ));
    }
    let away = self::lasts(facts, facts.held);
    if away < OUTAGE {
        findings.push(Finding::warning(
            SUBJECT,
            format!(
                "{} an hour leave the service {} to be away ({} may be held for it): then subscribers are reset; raise \
                 --max-wal-held and max_slot_wal_keep_size if the database's disk allows",
                size(hour),
                span(away),
                size(facts.held),
            ),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::pass(SUBJECT, format!("{} an hour", size(hour))));
    }
    findings
}

/// What is written in this time.
fn amount(facts: &Facts, time: Duration) -> u64 {
    let bytes = u128::from(facts.written) * time.as_millis() / facts.counted.as_millis().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How long it takes to write so many bytes.
fn lasts(facts: &Facts, bytes: u64) -> Duration {
    let millis = u128::from(bytes) * facts.counted.as_millis() / u128::from(facts.written.max(1));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const GIB: u64 = 1 << 30;
    const DAY: Duration = Duration::from_secs(86_400);
    const RETENTION: Retention = Retention { bytes: 10 * GIB, age: Duration::from_secs(7 * 86_400) };

    fn judged(facts: Facts) -> Vec<Finding> {
        judge(&facts, RETENTION)
    }

    #[test]
    fn what_fits_passes_and_so_does_what_nobody_knows() {
        let quiet = Facts { written: GIB, counted: DAY, held: 10 * GIB };
        assert_eq!(judged(quiet.clone())[0].verdict, Verdict::Pass);
        let young = Facts { written: 100 * GIB, counted: Duration::from_secs(600), ..quiet };
        assert_eq!(judged(young)[0].verdict, Verdict::Pass);
    }

    #[test]
    fn a_journal_that_is_too_small_is_told_with_the_size_that_is_not() {
        let findings = judged(Facts { written: 10 * GIB, counted: DAY, held: 10 * GIB });
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Warning);
        let message = &findings[0].message;
        assert!(message.contains("within 24 h") && message.contains("to 70.0 GiB"), "{message}");
    }

    #[test]
    fn a_service_that_may_not_be_away_for_an_hour_is_told() {
        let findings = judged(Facts { written: 10 * GIB, counted: DAY, held: GIB / 8 });
        assert!(findings.iter().any(|finding| finding.message.contains("18 min to be away")), "{findings:?}");
    }

    #[test]
    fn nothing_written_lasts_for_ever() {
        let nothing = Facts { written: 0, counted: DAY, held: GIB };
        assert_eq!(judged(nothing)[0].verdict, Verdict::Pass);
    }
}
