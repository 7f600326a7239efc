//! How much log the database writes, against what is kept: by the journal for clients that are away, and by the database
//! for us when we are.
//!
//! The log is that of the whole cluster, with its indexes and full pages; the journal has the resources alone. So these are the
//! least times that are to be expected, not the likely ones.

use super::{Finding, Retention, size, span};
use crate::{Settings, slot};
use feed::Rate;
use std::time::Duration;
use tokio_postgres::Client;

/// What was counted for less than this says nothing about a day.
const ENOUGH: Duration = HOUR;
const HOUR: Duration = Duration::from_secs(3_600);
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
    /// `max_slot_wal_keep_size`, if there is a limit.
    keep: Option<u64>,
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
        keep,
    })
}

pub(super) fn judge(facts: &Facts, retention: Retention) -> Vec<Finding> {
    let mut findings = volume(facts, retention);
    findings.push(unlimited(facts));
    findings
}

/// While the service is down nobody gives the slot up.
fn unlimited(facts: &Facts) -> Finding {
    const SUBJECT: &str = super::UNLIMITED_WAL;
    let Some(keep) = facts.keep else {
        // A little more, so that the service gives the slot up first while it runs.
        let megabytes = (facts.held / 5).saturating_mul(6) >> 20;
        let left = match facts.rate() {
            Some(rate) => format!(
                "; at today's rate ({} an hour) {} are reached {} after it stops",
                size(rate.amount(HOUR)),
                size(facts.held),
                span(rate.lasts(facts.held))
            ),
            None => String::new(),
        };
        return Finding::warning(
            SUBJECT,
            format!(
                "is -1: while the service is down its slot keeps the log without a limit, until the database's disk is full{left}"
            ),
        )
        .mended_by(format!(
            "alter system set max_slot_wal_keep_size = '{}MB'; select pg_reload_conf();",
            megabytes.max(1)
        ));
    };
    Finding::pass(SUBJECT, format!("is {}, also while the service is down", size(keep)))
}

fn volume(facts: &Facts, retention: Retention) -> Vec<Finding> {
    const SUBJECT: &str = "log volume";
    let Some(rate) = facts.rate() else {
        let counted = span(facts.counted);
        return vec![Finding::pass(
            SUBJECT,
            format!("has been counted for {counted} only: too little to judge by"),
        )];
    };
    let hour = rate.amount(HOUR);
    let mut findings = Vec::new();
    let lasts = rate.lasts(retention.bytes);
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
                size(rate.amount(retention.age)),
            ),
        ));
    }
    let away = rate.lasts(facts.held);
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
        findings.push(Finding::pass(
            SUBJECT,
            format!(
                "{} an hour: a client may be away for {}, and the service for {}",
                size(hour),
                span(lasts.min(retention.age)),
                span(away)
            ),
        ));
    }
    findings
}

impl Facts {
    /// `None`: nobody knows yet.
    fn rate(&self) -> Option<Rate> {
        (self.counted >= ENOUGH).then(|| Rate::new(self.written, self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const GIB: u64 = 1 << 30;
    const DAY: Duration = Duration::from_secs(86_400);
    const LIMIT: Option<u64> = Some(20 * GIB);
    const RETENTION: Retention = Retention { bytes: 10 * GIB, age: Duration::from_secs(7 * 86_400) };

    fn judged(facts: Facts) -> Vec<Finding> {
        volume(&facts, RETENTION)
    }

    #[test]
    fn a_log_without_a_limit_is_told_with_the_time_that_is_left() {
        let limited = Facts { written: 24 * GIB, counted: DAY, held: 10 * GIB, keep: LIMIT };
        assert_eq!(unlimited(&limited).verdict, Verdict::Pass);
        let without = unlimited(&Facts { keep: None, ..limited });
        assert_eq!(without.verdict, Verdict::Warning);
        assert!(without.message.contains("1.0 GiB an hour) 10.0 GiB are reached 10 h after"), "{without:?}");
        let sql = "alter system set max_slot_wal_keep_size = '12288MB'; select pg_reload_conf();";
        assert_eq!(without.sql.as_deref(), Some(sql));
        let young = unlimited(&Facts { counted: Duration::ZERO, keep: None, ..limited });
        assert!(young.message.ends_with("disk is full"), "{young:?}");
    }

    #[test]
    fn what_fits_passes_and_so_does_what_nobody_knows() {
        let quiet = Facts { written: GIB, counted: DAY, held: 10 * GIB, keep: LIMIT };
        assert_eq!(judged(quiet.clone())[0].verdict, Verdict::Pass);
        let young = Facts { written: 100 * GIB, counted: Duration::from_secs(600), ..quiet };
        assert_eq!(judged(young)[0].verdict, Verdict::Pass);
    }

    #[test]
    fn a_journal_that_is_too_small_is_told_with_the_size_that_is_not() {
        let findings = judged(Facts { written: 10 * GIB, counted: DAY, held: 10 * GIB, keep: LIMIT });
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Warning);
        let message = &findings[0].message;
        assert!(message.contains("within 24 h") && message.contains("to 70.0 GiB"), "{message}");
    }

    #[test]
    fn a_service_that_may_not_be_away_for_an_hour_is_told() {
        let findings = judged(Facts { written: 10 * GIB, counted: DAY, held: GIB / 8, keep: LIMIT });
        assert!(findings.iter().any(|finding| finding.message.contains("18 min to be away")), "{findings:?}");
    }

    #[test]
    fn nothing_written_lasts_for_ever() {
        let nothing = Facts { written: 0, counted: DAY, held: GIB, keep: LIMIT };
        assert_eq!(judged(nothing)[0].verdict, Verdict::Pass);
    }
}
