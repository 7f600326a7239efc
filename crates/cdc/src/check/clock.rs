//! The database's clock against ours.
//!
//! No change is lost by a difference: stamps and the safe time come from the database's clock alone. But
//! clients compute an instant for `_since` by theirs, and whoever measures delays sees the difference in them.

use super::{Finding, span};
use crate::timestamptz::Timestamptz;
use std::time::{Duration, SystemTime};
use tokio_postgres::Client;

/// More than this is worth a word.
const DIFFERENCE: Duration = Duration::from_secs(2);

/// Microseconds since 1970, theirs between two of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    before: i64,
    theirs: i64,
    after: i64,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let before = now();
    let row = client.query_one("select clock_timestamp()", &[]).await?;
    let after = now();
    let Timestamptz(theirs) = row.try_get(0)?;
    Ok(Facts { before, theirs: theirs.unix_micros(), after })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    // The least difference that explains what was read.
    let (difference, which) = if facts.theirs < facts.before {
        (facts.before.saturating_sub(facts.theirs), "behind")
    } else {
        (facts.theirs.saturating_sub(facts.after), "ahead of")
    };
    let difference = Duration::from_micros(u64::try_from(difference).unwrap_or(0));
    vec![if difference > DIFFERENCE {
        Finding::warning(
            "clock",
            format!(
                "the database's clock is {} {which} this machine's: let both follow a time server (NTP)",
                span(difference)
            ),
        )
    } else {
        Finding::pass("clock", "the database's clock agrees with this machine's")
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_slow_answer_is_no_difference() {
        let second = 1_000_000;
        let verdict = |before, theirs, after| judge(&Facts { before, theirs, after })[0].clone();
        assert_eq!(verdict(0, 9 * second, 10 * second).verdict, Verdict::Pass);
        assert_eq!(verdict(0, 12 * second, 10 * second).verdict, Verdict::Pass);
        let ahead = verdict(0, 70 * second, 10 * second);
        assert!(ahead.verdict == Verdict::Warning && ahead.message.contains("60 s ahead of"), "{ahead:?}");
        let behind = verdict(10 * second, 0, 20 * second);
        assert!(behind.verdict == Verdict::Warning && behind.message.contains("10 s behind"), "{behind:?}");
    }
}
