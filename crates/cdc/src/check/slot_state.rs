//! The slot: whose it is, whether it is still good, and how much log is held for it.

use super::{Finding, Verdict, size, span};
use crate::Settings;
use crate::slot::{self, Lag, Slot};
use std::time::Duration;
use tokio_postgres::Client;

/// How the slot stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    pub(super) slot: Option<Slot>,
    /// Somebody reads from it.
    pub(super) active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    status: Option<String>,
    /// Why the server gave it up, where the server says (from 17 on).
    reason: Option<String>,
    /// It stood in the way of a recovery (from 16 on).
    conflicting: bool,
    /// For how long nobody has read from it (from 17 on).
    inactive: Option<Duration>,
    lag: Lag,
    /// `max_slot_wal_keep_size`, if there is a limit.
    keep: Option<u64>,
    /// `idle_replication_slot_timeout` (from 18 on), if there is one.
    timeout: Option<Duration>,
}

pub(crate) async fn ask(client: &Client, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let name = &settings.slot;
    let slot = slot::find(client, name).await?;
    let lag = slot::lag(client, name).await?;
    // By way of JSON, as each version has columns that the one before lacks.
    let row = client
        .query_opt(
            "select active, wal_status, to_jsonb(s) ->> 'invalidation_reason', \
                    coalesce((to_jsonb(s) ->> 'conflicting')::bool, false), \
                    extract(epoch from clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8 \
               from pg_replication_slots s where slot_name = $1::text",
            &[&name.as_str()],
        )
        .await?;
    let timeout = client
        .query_one(
            "select extract(epoch from current_setting('idle_replication_slot_timeout', true)::interval)::float8",
            &[],
        )
        .await?;
    let seconds = |value: Option<f64>| value.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let mut facts = Facts {
        slot,
        active: false,
        status: None,
        reason: None,
        conflicting: false,
        inactive: None,
        lag,
        keep: slot::keep_size(client).await?,
        timeout: seconds(timeout.try_get(0)?).filter(|timeout| !timeout.is_zero()),
    };
    if let Some(row) = row {
        facts.active = row.try_get(0)?;
        facts.status = row.try_get(1)?;
        facts.reason = row.try_get(2)?;
        facts.conflicting = row.try_get(3)?;
        facts.inactive = seconds(row.try_get(4)?);
    }
    Ok(facts)
}

impl Facts {
    /// How much log is held for the slot.
    pub(crate) fn lag(&self) -> Lag {
        self.lag
    }

    /// Beyond which the slot is given up, and by which setting.
    pub(crate) fn limit(&self, max_wal_held: u64) -> (u64, &'static str) {
        match self.keep {
            Some(keep) if keep < max_wal_held => (keep, "max_slot_wal_keep_size"),
            _ => (max_wal_held, "--max-wal-held"),
        }
    }

    /// What the service itself warns of: that nobody reads from the slot at a moment is nothing.
    pub(crate) fn warnings(&self, settings: &Settings) -> Vec<String> {
        if self.slot.as_ref().is_none_or(|slot| slot.other_owner(settings.database.dbname()).is_some()) {
            return Vec::new();
        }
        let reading = Some(health(self, settings.slot.as_str())).filter(|it| it.verdict == Verdict::Failure);
        let held = Some(held(self, settings.max_wal_held)).filter(|it| it.verdict != Verdict::Pass);
        reading.into_iter().chain(held).map(|finding| finding.message).collect()
    }
}

pub(super) fn judge(facts: &Facts, settings: &Settings) -> Vec<Finding> {
    const SUBJECT: &str = "slot";
    let name = settings.slot.as_str();
    let Some(slot) = &facts.slot else {
        return vec![Finding::pass(SUBJECT, format!("there is no slot {name} yet: the service makes it"))];
    };
    if let Some(owner) = slot.other_owner(settings.database.dbname()) {
        return vec![Finding::failure(
            SUBJECT,
            format!(
                "{name} belongs to {owner}: choose another name for ours with --slot, or drop that one if nobody needs it"
            ),
        )];
    }
    if slot.lost || facts.conflicting || facts.reason.is_some() {
        let why = match &facts.reason {
            Some(reason) => format!(" ({reason})"),
            None => String::new(),
        };
        return vec![
            Finding::failure(
                SUBJECT,
                format!("the server has thrown away the log that {name} needs{why}: the service makes it anew, and subscribers are reset"),
            )
            .mended_by(format!("select pg_drop_replication_slot('{name}');")),
        ];
    }
    vec![health(facts, name), held(facts, settings.max_wal_held)]
}

fn health(facts: &Facts, name: &str) -> Finding {
    const SUBJECT: &str = "slot";
    if facts.active {
        let lag = size(facts.lag.unacknowledged);
        return Finding::pass(SUBJECT, format!("{name} is read from, {lag} behind"));
    }
    let since = facts.inactive.map(|time| format!(" for {}", span(time))).unwrap_or_default();
    let idle = format!(
        "nobody has read from {name}{since}: start the service, or drop the slot if it is not to run any more"
    );
    match (facts.inactive, facts.timeout) {
        (Some(inactive), Some(timeout)) if inactive > timeout / 2 => Finding::failure(
            SUBJECT,
            format!("{idle}; the server gives it up after {} (idle_replication_slot_timeout)", span(timeout)),
        ),
        _ => Finding::warning(SUBJECT, idle),
    }
}

/// Warns while there is still time: half of the limit is left.
fn held(facts: &Facts, max_wal_held: u64) -> Finding {
    const SUBJECT: &str = "log held";
    let (limit, setting) = facts.limit(max_wal_held);
    let held = facts.lag.held;
    let sentence = format!("{} are held for the slot, of {} at most ({setting})", size(held), size(limit));
    if facts.status.as_deref() == Some("unreserved") || held > limit {
        Finding::failure(
            SUBJECT,
            format!("{sentence}: the slot is about to be given up, and subscribers to be reset"),
        )
    } else if held > limit / 2 {
        Finding::warning(
            SUBJECT,
            format!("{sentence}: beyond it the slot is given up, and subscribers are reset"),
        )
    } else {
        Finding::pass(SUBJECT, sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use feed::Lsn;

    const GIB: u64 = 1 << 30;

    fn settings() -> Settings {
        Settings { max_wal_held: 10 * GIB, ..crate::layout::native::settings() }
    }

    fn well() -> Facts {
        let slot = Slot {
            plugin: Some("pgoutput".into()),
            database: Some("d".into()),
            confirmed: Lsn::ZERO,
            lost: false,
            reader: None,
        };
        Facts {
            slot: Some(slot),
            active: true,
            status: Some("reserved".into()),
            reason: None,
            conflicting: false,
            inactive: None,
            lag: Lag { unacknowledged: 0, held: GIB },
            keep: None,
            timeout: None,
        }
    }

    fn verdicts(facts: &Facts) -> Vec<Verdict> {
        judge(facts, &settings()).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn no_slot_yet_and_one_that_is_read_from_pass() {
        assert_eq!(verdicts(&Facts { slot: None, active: false, ..well() }), [Verdict::Pass]);
        assert_eq!(verdicts(&well()), [Verdict::Pass, Verdict::Pass]);
    }

    #[test]
    fn a_slot_of_another_is_not_dropped_by_our_advice() {
        let mut facts = well();
        facts.slot.as_mut().unwrap().database = Some("other".into());
        let finding = judge(&facts, &settings()).remove(0);
        assert_eq!((finding.verdict, finding.sql), (Verdict::Failure, None));
        assert!(finding.message.contains("the database other"), "{}", finding.message);
    }

    #[test]
    fn a_slot_that_was_given_up_is_a_failure_with_its_sql() {
        let mut lost = well();
        lost.slot.as_mut().unwrap().lost = true;
        let reason = Facts { reason: Some("idle_timeout".into()), ..well() };
        for facts in [lost, reason, Facts { conflicting: true, ..well() }] {
            let finding = judge(&facts, &settings()).remove(0);
            assert_eq!(finding.sql.as_deref(), Some("select pg_drop_replication_slot('s');"));
        }
    }

    #[test]
    fn a_slot_that_rests_is_told_and_more_firmly_before_it_is_given_up() {
        let rests = Facts { active: false, ..well() };
        assert_eq!(verdicts(&rests), [Verdict::Warning, Verdict::Pass]);
        let timeout = Some(Duration::from_secs(3600));
        let soon = Facts { inactive: Some(Duration::from_secs(2000)), timeout, ..rests.clone() };
        assert_eq!(verdicts(&soon), [Verdict::Failure, Verdict::Pass]);
        let later = Facts { inactive: Some(Duration::from_secs(60)), timeout, ..rests };
        assert_eq!(verdicts(&later), [Verdict::Warning, Verdict::Pass]);
    }

    #[test]
    fn the_service_warns_of_what_ends_badly_and_not_of_a_pause() {
        let rests = Facts { active: false, ..well() };
        assert!(well().warnings(&settings()).is_empty() && rests.warnings(&settings()).is_empty());
        let full = Facts { lag: Lag { unacknowledged: 0, held: 6 * GIB }, ..well() };
        assert_eq!(full.warnings(&settings()).len(), 1);
        let timeout = Some(Duration::from_secs(3600));
        let soon = Facts { inactive: Some(Duration::from_secs(2000)), timeout, ..rests };
        assert_eq!(soon.warnings(&settings()).len(), 1);
        assert!(Facts { slot: None, ..full }.warnings(&settings()).is_empty());
    }

    #[test]
    fn the_smaller_limit_counts_and_is_named() {
        let judged = |held, keep| held_in(Facts { lag: Lag { unacknowledged: 0, held }, keep, ..well() });
        fn held_in(facts: Facts) -> Finding {
            held(&facts, 10 * GIB)
        }
        assert_eq!(judged(4 * GIB, None).verdict, Verdict::Pass);
        assert_eq!(judged(6 * GIB, None).verdict, Verdict::Warning);
        assert_eq!(judged(11 * GIB, None).verdict, Verdict::Failure);
        let kept = judged(4 * GIB, Some(5 * GIB));
        assert!(
            kept.verdict == Verdict::Warning && kept.message.contains("max_slot_wal_keep_size"),
            "{kept:?}"
        );
        let unreserved = Facts { status: Some("unreserved".into()), ..well() };
        assert_eq!(held_in(unreserved).verdict, Verdict::Failure);
    }
}
