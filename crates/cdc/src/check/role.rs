//! The role that the service logs in as: what it may do, tried where that is possible.
//!
//! A superuser who asks is told of the role that the migrations make, which is what the service should be run as.

use super::Finding;
use crate::database::Connected;
use crate::replication::{self, quoted};
use crate::{SERVICE_ROLE, Settings, TableName, describe_error};

/// What the service reads.
const TABLES: [&str; 5] = ["resource", "tombstone", "purged", "restamped", "migration"];

/// The role that is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    name: String,
    /// It is the one who asks.
    asks: bool,
    superuser: bool,
    can_login: bool,
    replication: bool,
    reads_stats: bool,
    /// It sees all rows, whatever policies a table has.
    bypasses_policies: bool,
    /// `usage` on the schema; `None`: there is no schema.
    schema: Option<bool>,
    /// The tables that are there.
    tables: Vec<Table>,
    /// What came of a replication connection, made as the one who asks: why there is none.
    connection: Result<(), String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    name: TableName,
    select: bool,
    /// Row level security applies to this role.
    policies: bool,
}

pub(super) async fn ask(connected: &Connected, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let client = &connected.client;
    let row = client
        .query_one(
            "select r.oid, r.rolname::text, r.rolname = current_user, r.rolsuper, r.rolcanlogin, \
                    r.rolreplication, pg_has_role(r.oid, 'pg_read_all_stats', 'usage'), r.rolbypassrls, \
                    (select has_schema_privilege(r.oid, n.oid, 'usage') from pg_namespace n where n.nspname = 'fhir') \
               from pg_roles r, pg_roles me \
              where me.rolname = current_user \
                and (r.oid = me.oid or me.rolsuper and r.rolname = $1::text) \
              order by r.oid = me.oid limit 1",
            &[&SERVICE_ROLE],
        )
        .await?;
    let oid: u32 = row.try_get(0)?;
    let asks: bool = row.try_get(2)?;
    let tables = client
        .query(
            "select c.relname::text, has_table_privilege($1::oid, c.oid, 'select'), \
                    c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role($1::oid, c.relowner, 'usage')) \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname::text = any($2) order by c.relname",
            &[&oid, &TABLES.as_slice()],
        )
        .await?;
    let tables = tables
        .iter()
        .map(|row| {
            Ok(Table {
                name: TableName::new("fhir", row.try_get(0)?),
                select: row.try_get(1)?,
                policies: row.try_get(2)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()?;
    // Closed again as soon as it was there.
    let connection = match replication::connect(&settings.database, &connected.endpoint).await {
        Ok(_) => Ok(()),
        Err(error) => Err(describe_error(&error)),
    };
    Ok(Facts {
        name: row.try_get(1)?,
        asks,
        superuser: row.try_get(3)?,
        can_login: row.try_get(4)?,
        replication: row.try_get(5)?,
        reads_stats: row.try_get(6)?,
        bypasses_policies: row.try_get(7)?,
        schema: row.try_get(8)?,
        tables,
        connection,
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![login(facts), replication(facts), stats(facts)];
    if facts.schema.is_some() {
        findings.push(select(facts));
        findings.push(policies(facts));
    }
    findings
}

fn login(facts: &Facts) -> Finding {
    const SUBJECT: &str = "role";
    let (name, role) = (&facts.name, quoted(&facts.name));
    if facts.superuser {
        Finding::warning(
            SUBJECT,
            format!(
                "{name} is a superuser: run the service as {SERVICE_ROLE}, which migrate makes with what is needed"
            ),
        )
    } else if facts.can_login {
        Finding::pass(
            SUBJECT,
            if facts.asks { name.clone() } else { format!("{name} is there for the service") },
        )
    } else {
        Finding::warning(
            SUBJECT,
            format!("{name} may not log in yet: let it, and give it a password if it needs one (psql: \\password {name})"),
        )
        .mended_by(format!("alter role {role} login;"))
    }
}

fn replication(facts: &Facts) -> Finding {
    const SUBJECT: &str = "replication";
    let name = &facts.name;
    let allowed = facts.replication || facts.superuser;
    match &facts.connection {
        // Managed services have other ways to allow it: what works is right.
        Ok(()) if facts.asks => Finding::pass(SUBJECT, "a replication connection was made"),
        Ok(()) if allowed => Finding::pass(SUBJECT, format!("{name} may read the log")),
        Err(why) if allowed || !facts.asks => {
            Finding::failure(SUBJECT, format!("no replication connection can be made: {why}"))
        }
        Ok(()) | Err(_) => Finding::failure(SUBJECT, format!("{name} may not read the log"))
            .mended_by(format!("alter role {} replication;", quoted(name))),
    }
}

fn stats(facts: &Facts) -> Finding {
    const SUBJECT: &str = "pg_read_all_stats";
    let name = &facts.name;
    if facts.reads_stats {
        Finding::pass(SUBJECT, format!("{name} sees since when others are in a transaction"))
    } else {
        Finding::failure(
            SUBJECT,
            format!(
                "{name} does not see since when others are in a transaction: no time is known to be safe"
            ),
        )
        .mended_by(format!("grant pg_read_all_stats to {};", quoted(name)))
    }
}

fn select(facts: &Facts) -> Finding {
    const SUBJECT: &str = "select";
    let (name, role) = (&facts.name, quoted(&facts.name));
    let mut sql = Vec::new();
    if facts.schema == Some(false) {
        sql.push(format!("grant usage on schema fhir to {role};"));
    }
    let unread = list(facts.tables.iter().filter(|table| !table.select));
    if !unread.is_empty() {
        sql.push(format!("grant select on {unread} to {role};"));
    }
    if sql.is_empty() {
        Finding::pass(SUBJECT, format!("{name} may read the tables"))
    } else {
        Finding::failure(SUBJECT, format!("{name} may not read all tables: no replay begins"))
            .mended_by(sql.join(" "))
    }
}

fn policies(facts: &Facts) -> Finding {
    const SUBJECT: &str = "row security";
    let name = &facts.name;
    let hidden = list(facts.tables.iter().filter(|table| table.policies));
    if facts.superuser || facts.bypasses_policies || hidden.is_empty() {
        Finding::pass(SUBJECT, format!("{name} sees every row"))
    } else {
        Finding::failure(
            SUBJECT,
            format!("policies may hide rows of {hidden} from {name}: replays would leave them out"),
        )
        .mended_by(format!("alter role {} bypassrls;", quoted(name)))
    }
}

fn list<'a>(tables: impl Iterator<Item = &'a Table>) -> String {
    tables.map(|table| table.name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn well() -> Facts {
        let table = |name| Table { name: TableName::new("fhir", name), select: true, policies: false };
        Facts {
            name: "service".into(),
            asks: true,
            superuser: false,
            can_login: true,
            replication: true,
            reads_stats: true,
            bypasses_policies: false,
            schema: Some(true),
            tables: TABLES.map(table).to_vec(),
            connection: Ok(()),
        }
    }

    /// The only one that does not pass.
    fn bad(facts: &Facts) -> Finding {
        let mut bad: Vec<Finding> =
            judge(facts).into_iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
        assert_eq!(bad.len(), 1, "{bad:?}");
        bad.remove(0)
    }

    #[test]
    fn a_role_with_what_it_needs_passes() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
        // However a managed service lets it replicate.
        let managed = Facts { replication: false, ..well() };
        assert!(judge(&managed).iter().all(|finding| finding.verdict == Verdict::Pass));
    }

    #[test]
    fn what_is_missing_is_named_with_its_grant() {
        let other = Facts { asks: false, ..well() };
        assert_eq!(
            bad(&Facts { can_login: false, ..other.clone() }).sql.unwrap(),
            r#"alter role "service" login;"#
        );
        assert_eq!(
            bad(&Facts { replication: false, ..other }).sql.unwrap(),
            r#"alter role "service" replication;"#
        );
        let sql = bad(&Facts { reads_stats: false, ..well() }).sql.unwrap();
        assert_eq!(sql, r#"grant pg_read_all_stats to "service";"#);
        let mut blind = Facts { schema: Some(false), ..well() };
        blind.tables[0].select = false;
        let sql = bad(&blind).sql.unwrap();
        assert!(
            sql.contains("usage on schema fhir") && sql.contains(r#"select on "fhir"."resource" to"#),
            "{sql}"
        );
    }

    #[test]
    fn a_connection_that_fails_is_told_in_the_servers_words() {
        let refused = Facts { connection: Err("no pg_hba.conf entry".into()), ..well() };
        let finding = bad(&refused);
        assert!(finding.message.contains("no pg_hba.conf entry") && finding.sql.is_none(), "{finding:?}");
        // An administrator who asks is not let in either.
        assert!(bad(&Facts { asks: false, ..refused.clone() }).message.contains("no pg_hba.conf entry"));
        let lacking = bad(&Facts { replication: false, ..refused });
        assert_eq!(lacking.sql.unwrap(), r#"alter role "service" replication;"#);
    }

    #[test]
    fn policies_are_a_failure_for_who_does_not_stand_above_them() {
        let mut facts = well();
        facts.tables[0].policies = true;
        assert_eq!(bad(&facts).sql.unwrap(), r#"alter role "service" bypassrls;"#);
        facts.bypasses_policies = true;
        assert!(judge(&facts).iter().all(|finding| finding.verdict == Verdict::Pass));
    }
}
