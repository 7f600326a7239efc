//! The tables: whether they are those that `migrate` makes, who else writes to them, and how they are stamped.

use crate::Settings;
use crate::check::Finding;
use crate::layout::native::migrate::{self, SERVED_FROM, newest_version};
use crate::layout::native::stamps;
use crate::publication;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    tables: Vec<Table>,
    version: Version,
    /// The subscriptions that write to them.
    subscriptions: Vec<String>,
    /// How many rows are stamped ahead of the clock; `None` if this role may not see.
    ahead: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Version {
    None,
    /// Not for this role to see.
    Hidden,
    Known(i32),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    name: String,
    /// `pg_class.relreplident`.
    identity: String,
    key: bool,
}

impl Facts {
    pub(super) fn are_there(&self) -> bool {
        ["resource", "tombstone"].iter().all(|name| self.tables.iter().any(|table| table.name == *name))
    }
}

pub(super) async fn ask(client: &Client, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let tables = client
        .query(
            "select c.relname::text, c.relreplident::text, \
                    exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname in ('resource', 'tombstone') order by 1",
            &[],
        )
        .await?;
    let tables = tables
        .iter()
        .map(|row| Ok(Table { name: row.try_get(0)?, identity: row.try_get(1)?, key: row.try_get(2)? }))
        .collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
    let subscriptions = publication::subscriptions(client, settings.layout.tables()).await?;
    let version = match migrate::migrated_version(client).await {
        Ok(Some(version)) => Version::Known(version),
        Ok(None) => Version::None,
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Version::Hidden,
        Err(error) => return Err(error),
    };
    let mut facts = Facts { tables, version, subscriptions, ahead: None };
    if facts.are_there() {
        facts.ahead = match stamps::ahead(client).await {
            Ok(rows) => Some(rows),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => None,
            Err(error) => return Err(error),
        };
    }
    Ok(facts)
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![version(facts)];
    if facts.are_there() {
        findings.push(identity(facts));
        findings.push(subscriptions(facts));
        findings.extend(facts.ahead.map(stamped_ahead));
    }
    findings
}

fn version(facts: &Facts) -> Finding {
    const SUBJECT: &str = "tables";
    let known = newest_version();
    match facts.version {
        Version::Hidden if facts.are_there() => Finding::pass(SUBJECT, "are there"),
        Version::Known(found) if facts.are_there() && found == known => {
            Finding::pass(SUBJECT, format!("are there, at version {found}"))
        }
        // While a newer release is brought in its tables come first, and this one goes on serving.
        Version::Known(found) if found > known => Finding::warning(
            SUBJECT,
            format!(
                "are at version {found}, and this fhir-tail knows versions up to {known}: use the newer fhir-tail"
            ),
        ),
        Version::Known(found) if facts.are_there() && (SERVED_FROM..known).contains(&found) => {
            Finding::warning(SUBJECT, format!("are at version {found} of {known}: run 'fhir-tail migrate'"))
        }
        Version::Known(found) if found < known => {
            Finding::failure(SUBJECT, format!("are at version {found} of {known}: run 'fhir-tail migrate'"))
        }
        Version::Known(_) => Finding::failure(
            SUBJECT,
            "fhir.resource or fhir.tombstone is gone, and the migrations believe they are there: restore them from a backup",
        ),
        Version::None | Version::Hidden => {
            Finding::failure(SUBJECT, "there is no fhir.resource in this database: run 'fhir-tail migrate'")
        }
    }
}

fn identity(facts: &Facts) -> Finding {
    const SUBJECT: &str = "replica identity";
    let of = |wanted: &dyn Fn(&Table) -> bool| -> Vec<&str> {
        facts.tables.iter().filter(|table| wanted(table)).map(|table| table.name.as_str()).collect()
    };
    let reset = |names: &[&str]| -> String {
        let each = names.iter().map(|name| format!("alter table fhir.{name} replica identity default;"));
        each.collect::<Vec<_>>().join(" ")
    };
    let none = of(&|table| table.identity == "n");
    let keyless = of(&|table| !table.key);
    // The old rows of resources say whose they were; those of tombstones say nothing that is asked for.
    let full = of(&|table| table.identity == "f" && table.name == "tombstone");
    if !none.is_empty() {
        let tables = none.join(" and ");
        Finding::failure(
            SUBJECT,
            format!("{tables} of fhir has none: every update and delete would be refused"),
        )
        .mended_by(reset(&none))
    } else if !keyless.is_empty() {
        let keys = keyless.iter().map(|name| {
            format!("alter table fhir.{name} add constraint {name}_pkey primary key (resource_type, id);")
        });
        let sql = keys.collect::<Vec<_>>().join(" ");
        let tables = keyless.join(" and ");
        Finding::failure(SUBJECT, format!("{tables} of fhir has lost its primary key")).mended_by(sql)
    } else if !full.is_empty() {
        let tables = full.join(" and ");
        Finding::warning(
            SUBJECT,
            format!("{tables} of fhir has a full one: the log has each old row too, which is not needed"),
        )
        .mended_by(reset(&full))
    } else {
        Finding::pass(SUBJECT, "is there")
    }
}

/// What another database writes here fires row triggers only: no tombstones, and stamps of the wrong clock.
fn subscriptions(facts: &Facts) -> Finding {
    const SUBJECT: &str = "subscriptions";
    match facts.subscriptions.first() {
        None => Finding::pass(SUBJECT, "none writes to the tables"),
        Some(name) => {
            Finding::failure(SUBJECT, publication::subscribed(name)).mended_by(publication::refresh_sql(name))
        }
    }
}

fn stamped_ahead(rows: i64) -> Finding {
    const SUBJECT: &str = "stamps";
    if rows == 0 {
        return Finding::pass(SUBJECT, "none is ahead of the clock");
    }
    Finding::failure(
        SUBJECT,
        format!(
            "{rows} rows are stamped more than a minute ahead of the clock, which had jumped: {}",
            stamps::REMEDY
        ),
    )
    .mended_by("select fhir.restamp();")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn well() -> Facts {
        let table =
            |name: &str, identity: &str| Table { name: name.into(), identity: identity.into(), key: true };
        Facts {
            tables: vec![table("resource", "f"), table("tombstone", "d")],
            version: Version::Known(newest_version()),
            subscriptions: Vec::new(),
            ahead: Some(0),
        }
    }

    /// The only one that does not pass.
    fn bad(facts: &Facts) -> Finding {
        Finding::only_bad(judge(facts))
    }

    #[test]
    fn what_migrate_makes_passes() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
    }

    #[test]
    fn no_tables_or_others_than_ours_are_one_failure() {
        let none = Facts { tables: Vec::new(), version: Version::None, ahead: None, ..well() };
        assert!(bad(&none).message.contains("fhir-tail migrate"));
        assert!(
            bad(&Facts { version: Version::Known(newest_version() + 1), ..well() }).message.contains("newer")
        );
        for (version, verdict) in [(SERVED_FROM - 1, Verdict::Failure), (SERVED_FROM, Verdict::Warning)] {
            let old = bad(&Facts { version: Version::Known(version), ..well() });
            assert!(old.verdict == verdict && old.message.contains("migrate"), "{old:?}");
        }
    }

    #[test]
    fn an_identity_that_does_not_do_is_told() {
        for (which, identity, key, verdict) in [
            (0, "n", true, Verdict::Failure),
            (0, "d", false, Verdict::Failure),
            (0, "f", false, Verdict::Failure),
            (1, "d", false, Verdict::Failure),
            (1, "f", true, Verdict::Warning),
        ] {
            let mut facts = well();
            facts.tables[which].identity = identity.into();
            facts.tables[which].key = key;
            let table = format!("alter table fhir.{} ", facts.tables[which].name);
            let finding = bad(&facts);
            assert_eq!(finding.verdict, verdict, "{identity}");
            assert!(finding.sql.unwrap().starts_with(&table));
        }
        // As before streams of patients.
        let mut facts = well();
        facts.tables[0].identity = "d".into();
        assert!(judge(&facts).iter().all(|finding| finding.verdict == Verdict::Pass));
    }

    #[test]
    fn writers_past_the_triggers_and_stamps_ahead_are_failures() {
        assert_eq!(bad(&Facts { subscriptions: vec!["s".into()], ..well() }).subject, "subscriptions");
        let sql = bad(&Facts { ahead: Some(3), ..well() }).sql.unwrap();
        assert_eq!(sql, "select fhir.restamp();");
    }
}
