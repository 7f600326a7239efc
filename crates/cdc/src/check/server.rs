//! The server: its version, whether it is the primary, whether its log can be decoded.

use super::{Finding, releases};
use crate::lossy::query_with_names;
use pg::SQL_ASCII;
use tokio_postgres::Client;

/// The major versions that we know.
const MAJORS: std::ops::RangeInclusive<i32> = 14..=18;

/// What the server said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// `server_version_num`: 150018 is 15.18.
    version: i32,
    standby: bool,
    /// Of the database.
    encoding: String,
    wal_level: String,
    /// The setting has been changed and waits for a restart.
    wal_level_changed: bool,
    /// Whether sessions say since when they are in a transaction, where nothing else is set for them.
    activities: bool,
    /// What resets each setting that turns it off for some.
    activities_off_for: Vec<String>,
}

impl Facts {
    /// Whether the rest can be asked.
    pub(super) fn can_be_asked(&self) -> bool {
        !self.standby && self.version / 10_000 >= *MAJORS.start()
    }
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int4, pg_is_in_recovery(), \
                    l.setting, l.pending_restart, a.setting = 'on' or a.source in ('database', 'user', 'database user'), \
                    current_setting('server_encoding') \
               from pg_settings l, pg_settings a where l.name = 'wal_level' and a.name = 'track_activities'",
            &[],
        )
        .await?;
    let off_for = query_with_names(
        client,
        "select format('alter %s reset track_activities;', \
                    case when s.setrole = 0 then format('database %I', current_database()) \
                         when s.setdatabase = 0 then format('role %I', {name}) \
                         else format('role %I in database %I', {name}, current_database()) end) \
               from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole \
              where s.setdatabase in (0, (select oid from pg_database where datname = current_database())) \
                and 'track_activities=off' = any(s.setconfig) order by 1",
        "r.rolname",
    )
    .await?;
    Ok(Facts {
        version: row.try_get(0)?,
        standby: row.try_get(1)?,
        wal_level: row.try_get(2)?,
        wal_level_changed: row.try_get(3)?,
        activities: row.try_get(4)?,
        encoding: row.try_get(5)?,
        activities_off_for: off_for.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(facts.version)];
    if facts.standby {
        findings.push(Finding::failure(
            "primary",
            "this server is a standby: name the primary in the database URL",
        ));
    }
    if !facts.can_be_asked() {
        return findings;
    }
    findings.push(encoding(&facts.encoding));
    findings.push(wal_level(facts));
    findings.push(activities(facts));
    findings
}

fn version(version: i32) -> Finding {
    const SUBJECT: &str = "version";
    let (major, minor) = (version / 10_000, version % 10_000);
    let name = format!("PostgreSQL {major}.{minor}");
    let (first, last) = (MAJORS.start(), MAJORS.end());
    if major < *first {
        return Finding::failure(SUBJECT, format!("{name} is too old: {first} to {last} are supported"));
    }
    if major > *last {
        return Finding::warning(SUBJECT, format!("{name} was never tried: {first} to {last} are supported"));
    }
    match releases::bugs(major, minor) {
        None => Finding::pass(SUBJECT, name),
        Some(bugs) => Finding::warning(SUBJECT, format!("{name} {bugs}")),
    }
}

/// What is streamed is UTF-8.
fn encoding(encoding: &str) -> Finding {
    const SUBJECT: &str = "encoding";
    match encoding {
        "UTF8" => Finding::pass(SUBJECT, "is UTF8"),
        SQL_ASCII => Finding::warning(
            SUBJECT,
            "is SQL_ASCII, which says nothing of what bytes mean: rows that are not UTF-8 cannot be streamed, and are \
             left out or stop it as --on-bad-row says",
        ),
        other => Finding::pass(
            SUBJECT,
            format!(
                "is {other}, which is converted: rows with bytes that it does not define cannot be streamed, and are left \
                 out or stop it as --on-bad-row says"
            ),
        ),
    }
}

fn wal_level(facts: &Facts) -> Finding {
    const SUBJECT: &str = "wal_level";
    if facts.wal_level == "logical" {
        Finding::pass(SUBJECT, "is logical")
    } else if facts.wal_level_changed {
        Finding::failure(
            SUBJECT,
            format!(
                "is {} until the server is restarted, which its changed setting waits for",
                facts.wal_level
            ),
        )
    } else {
        Finding::failure(
            SUBJECT,
            format!(
                "is {}, which leaves out what decoding needs: change it, and restart the server",
                facts.wal_level
            ),
        )
        .mended_by("alter system set wal_level = logical;")
    }
}

/// Who is in a transaction and does not say since when holds every replay back.
fn activities(facts: &Facts) -> Finding {
    const SUBJECT: &str = "track_activities";
    if !facts.activities {
        Finding::failure(
            SUBJECT,
            "is off: without it nobody knows since when a transaction is open, and no time is safe",
        )
        .mended_by("alter system set track_activities = on; select pg_reload_conf();")
    } else if facts.activities_off_for.is_empty() {
        Finding::pass(SUBJECT, "is on")
    } else {
        Finding::failure(
            SUBJECT,
            "is off for some sessions: while such a one writes, no replay gets beyond what it began with",
        )
        .mended_by(facts.activities_off_for.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn well() -> Facts {
        Facts {
            version: 150_018,
            standby: false,
            encoding: "UTF8".into(),
            wal_level: "logical".into(),
            wal_level_changed: false,
            activities: true,
            activities_off_for: Vec::new(),
        }
    }

    fn verdicts(facts: &Facts) -> Vec<(&'static str, Verdict)> {
        judge(facts).into_iter().map(|finding| (finding.subject, finding.verdict)).collect()
    }

    #[test]
    fn versions_that_we_know_pass_unless_they_have_bugs() {
        for (number, verdict) in [
            (130_020, Verdict::Failure),
            (140_023, Verdict::Pass),
            (150_018, Verdict::Pass),
            (150_001, Verdict::Warning),
            (180_000, Verdict::Pass),
            (190_000, Verdict::Warning),
        ] {
            assert_eq!(version(number).verdict, verdict, "{number}");
        }
    }

    #[test]
    fn what_is_too_old_or_a_standby_is_asked_no_further() {
        let old = Facts { version: 130_020, ..well() };
        assert!(!old.can_be_asked());
        assert_eq!(verdicts(&old), [("version", Verdict::Failure)]);
        let standby = Facts { standby: true, ..well() };
        assert!(!standby.can_be_asked());
        assert_eq!(verdicts(&standby), [("version", Verdict::Pass), ("primary", Verdict::Failure)]);
        // Newer ones are.
        assert!(Facts { version: 190_000, ..well() }.can_be_asked());
    }

    #[test]
    fn an_encoding_that_means_nothing_is_worth_a_look() {
        for (name, verdict) in
            [("UTF8", Verdict::Pass), ("LATIN1", Verdict::Pass), ("SQL_ASCII", Verdict::Warning)]
        {
            assert_eq!(encoding(name).verdict, verdict, "{name}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_decoded_is_a_failure_with_its_sql_until_it_was_changed() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
        let low = Facts { wal_level: "replica".into(), ..well() };
        assert_eq!(wal_level(&low).sql.as_deref(), Some("alter system set wal_level = logical;"));
        let waits = wal_level(&Facts { wal_level_changed: true, ..low });
        assert_eq!((waits.verdict, waits.sql), (Verdict::Failure, None));
    }

    #[test]
    fn sessions_that_do_not_say_since_when_are_a_failure() {
        assert_eq!(activities(&Facts { activities: false, ..well() }).verdict, Verdict::Failure);
        let sql = "alter role a reset track_activities;";
        let some = activities(&Facts { activities_off_for: vec![sql.into()], ..well() });
        assert_eq!((some.verdict, some.sql.as_deref()), (Verdict::Failure, Some(sql)));
    }
}
