//! Room for our slot and our walsender.

use super::Finding;
use tokio_postgres::Client;

/// How many there are, of how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Used {
    used: i64,
    of: i64,
}

/// Slots and walsenders of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    slots: Used,
    senders: Used,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select (select count(*) from pg_replication_slots), \
                    current_setting('max_replication_slots')::int8, \
                    (select count(*) from pg_stat_replication), current_setting('max_wal_senders')::int8",
            &[],
        )
        .await?;
    Ok(Facts {
        slots: Used { used: row.try_get(0)?, of: row.try_get(1)? },
        senders: Used { used: row.try_get(2)?, of: row.try_get(3)? },
    })
}

/// `there`: our slot is one of them. `active`: so is our walsender.
pub(super) fn judge(facts: &Facts, there: bool, active: bool) -> Vec<Finding> {
    vec![
        judge_one("slots", "max_replication_slots", "replication slots", facts.slots, there),
        judge_one("walsenders", "max_wal_senders", "walsenders", facts.senders, active),
    ]
}

fn judge_one(
    subject: &'static str,
    setting: &str,
    what: &str,
    Used { used, of }: Used,
    ours: bool,
) -> Finding {
    if ours {
        Finding::pass(subject, format!("{used} of {of} {what} are used, one of them by us"))
    } else if used < of {
        Finding::pass(subject, format!("{used} of {of} {what} are used"))
    } else {
        // Room for ours, and for the standby of tomorrow.
        let more = of.saturating_add(4);
        Finding::failure(
            subject,
            format!(
                "all {of} {what} are used: free one that nobody needs, or allow more and restart the server"
            ),
        )
        .mended_by(format!("alter system set {setting} = {more};"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn there_is_room_if_one_is_free_or_ours() {
        let facts = |used| Facts { slots: Used { used, of: 10 }, senders: Used { used, of: 10 } };
        let verdicts = |facts: &Facts, there, active| -> Vec<Verdict> {
            judge(facts, there, active).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(&facts(9), false, false), [Verdict::Pass, Verdict::Pass]);
        assert_eq!(verdicts(&facts(10), false, false), [Verdict::Failure, Verdict::Failure]);
        assert_eq!(verdicts(&facts(10), true, false), [Verdict::Pass, Verdict::Failure]);
        assert_eq!(verdicts(&facts(10), true, true), [Verdict::Pass, Verdict::Pass]);
        let sql = judge(&facts(10), false, false)[0].sql.clone();
        assert_eq!(sql.as_deref(), Some("alter system set max_replication_slots = 14;"));
    }
}
