//! What holds the safe time back, by the question that the watermarks ask too.

use super::Finding;
use crate::timestamptz::Timestamptz;
use crate::watermark::{self, Holder, SampleError};
use fhir::Instant;
use std::time::Duration;
use tokio_postgres::Client;

/// A transaction that has been writing for longer than this is worth a word: replays do not get beyond its beginning.
const LONG: Duration = Duration::from_secs(10);

/// Who holds it, by the database's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    clock: Instant,
    /// `None`: this role may not see.
    holder: Option<Option<Holder>>,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let Timestamptz(clock) = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
    match watermark::holder(client).await {
        Ok(holder) => Ok(Facts { clock, holder: Some(holder) }),
        Err(SampleError::Postgres(error)) => Err(error),
        // Not permitted, then: the role's own line says so.
        Err(_) => Ok(Facts { clock, holder: None }),
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    const SUBJECT: &str = "transactions";
    let Some(holder) = &facts.holder else { return Vec::new() };
    let Some(holder) = holder else {
        return vec![Finding::pass(SUBJECT, "none holds replays back")];
    };
    let who = holder.describe(facts.clock);
    vec![match holder {
        Holder::Backend { since, .. } if !is_long(*since, facts.clock) => {
            Finding::pass(SUBJECT, "none has been writing for long")
        }
        Holder::Backend { pid, .. } => {
            Finding::warning(SUBJECT, format!("{who}: until it ends no replay gets beyond its beginning"))
                .mended_by(format!("select pg_terminate_backend({pid});"))
        }
        Holder::Unknown { pid, .. } => {
            Finding::failure(SUBJECT, who).mended_by(format!("select pg_terminate_backend({pid});"))
        }
        Holder::Prepared { gid, .. } => {
            let gid = gid.replace('\'', "''");
            Finding::warning(SUBJECT, format!("{who}; until then no replay gets beyond what it began with"))
                .mended_by(format!("rollback prepared '{gid}'; -- or: commit prepared '{gid}';"))
        }
    }]
}

fn is_long(since: Instant, clock: Instant) -> bool {
    let micros = clock.unix_micros().saturating_sub(since.unix_micros());
    u128::try_from(micros).is_ok_and(|micros| micros > LONG.as_micros())
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const fn at(seconds: i64) -> Instant {
        Instant::from_unix_micros(seconds * 1_000_000)
    }

    fn judged(holder: Holder) -> Finding {
        judge(&Facts { clock: at(100), holder: Some(Some(holder)) }).remove(0)
    }

    #[test]
    fn only_what_lasts_is_told_with_what_ends_it() {
        let backend = |since| Holder::Backend {
            pid: 7,
            application: "import".into(),
            state: "active".into(),
            since: at(since),
        };
        assert_eq!(judged(backend(95)).verdict, Verdict::Pass);
        let long = judged(backend(50));
        assert_eq!(long.verdict, Verdict::Warning);
        assert!(long.message.contains("'import'") && long.message.contains("50 s"), "{long:?}");
        assert_eq!(long.sql.as_deref(), Some("select pg_terminate_backend(7);"));
    }

    #[test]
    fn who_does_not_say_since_when_is_told_at_once() {
        let unknown = Holder::Unknown { pid: 7, application: String::new(), state: String::new() };
        assert_eq!(judged(unknown).verdict, Verdict::Failure);
        let prepared =
            Holder::Prepared { xid: "9".into(), gid: "a'b".into(), owner: "o".into(), since: at(99) };
        let prepared = judged(prepared);
        assert_eq!(prepared.verdict, Verdict::Warning);
        assert!(prepared.sql.unwrap().starts_with("rollback prepared 'a''b';"));
    }

    #[test]
    fn who_may_not_see_says_nothing_here() {
        assert_eq!(judge(&Facts { clock: at(1), holder: None }), []);
        assert_eq!(judge(&Facts { clock: at(1), holder: Some(None) })[0].verdict, Verdict::Pass);
    }
}
