//! What the role that the service logs in as may read: everything, and every row of it.

use crate::TableName;
use crate::check::Finding;
use crate::layout::native::migrate::SERVICE_ROLE;
use pg::replication::quoted;
use tokio_postgres::Client;

/// What the service reads.
pub(crate) const TABLES: [&str; 5] = ["resource", "tombstone", "purged", "restamped", "migration"];

/// Whose rights are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    /// Those of the role that asks.
    WhoAsks,
    /// The same; but a superuser asks for the role that the migrations make, which the service is to be run as.
    ServiceRole,
}

/// A role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Role {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) superuser: bool,
    reads_stats: bool,
    /// It sees all rows, whatever policies a table has.
    bypasses_policies: bool,
    /// `usage` on the schema; `None`: there is no schema.
    schema: Option<bool>,
    /// Whether it may close a time; `None`: there is no function for that.
    closes_time: Option<bool>,
}

impl Role {
    pub(crate) async fn judged(client: &Client, judged: Judged) -> Result<Self, tokio_postgres::Error> {
        let other = judged == Judged::ServiceRole;
        let row = client
            .query_one(
                "select r.oid, r.rolname::text, r.rolsuper, pg_has_role(r.oid, 'pg_read_all_stats', 'usage'), r.rolbypassrls, \
                        (select has_schema_privilege(r.oid, n.oid, 'usage') from pg_namespace n where n.nspname = 'fhir'), \
                        (select has_function_privilege(r.oid, p.oid, 'execute') \
                           from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
                          where n.nspname = 'fhir' and p.proname = 'close_time' limit 1) \
                   from pg_roles r, pg_roles me \
                  where me.rolname = current_user \
                    and (r.oid = me.oid or $2::bool and me.rolsuper and r.rolname = $1::text) \
                  order by r.oid = me.oid limit 1",
                &[&SERVICE_ROLE, &other],
            )
            .await?;
        Ok(Self {
            oid: row.try_get(0)?,
            name: row.try_get(1)?,
            superuser: row.try_get(2)?,
            reads_stats: row.try_get(3)?,
            bypasses_policies: row.try_get(4)?,
            schema: row.try_get(5)?,
            closes_time: row.try_get(6)?,
        })
    }
}

/// What it may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    role: Role,
    /// The tables that are there.
    tables: Vec<Table>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    name: TableName,
    select: bool,
    /// Row level security applies to this role.
    policies: bool,
}

pub(super) async fn ask(client: &Client, judged: Judged) -> Result<Facts, tokio_postgres::Error> {
    let role = Role::judged(client, judged).await?;
    // Columns one by one: grants may be made on columns alone.
    let tables = client
        .query(
            "select c.relname::text, \
                    coalesce((select bool_and(has_column_privilege($1::oid, c.oid, a.attnum, 'select')) \
                       from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
                        and (c.relname not in ('resource', 'tombstone') or a.attname::text = any($3))), true), \
                    c.relrowsecurity and (c.relforcerowsecurity or not pg_has_role($1::oid, c.relowner, 'usage')) \
               from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname::text = any($2) order by c.relname",
            &[&role.oid, &TABLES.as_slice(), &crate::layout::native::rows::COLUMNS.as_slice()],
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
    Ok(Facts { role, tables })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![stats(&facts.role)];
    if facts.role.schema.is_some() {
        findings.push(select(facts));
        findings.push(policies(facts));
        findings.extend(facts.role.closes_time.map(|may| closed_time(&facts.role, may)));
    }
    findings
}

fn stats(role: &Role) -> Finding {
    const SUBJECT: &str = "pg_read_all_stats";
    let name = &role.name;
    if role.reads_stats {
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
    let (name, role) = (&facts.role.name, quoted(&facts.role.name));
    let mut sql = Vec::new();
    if facts.role.schema == Some(false) {
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

fn closed_time(role: &Role, may_close: bool) -> Finding {
    const SUBJECT: &str = "closed time";
    let name = &role.name;
    if may_close {
        Finding::pass(SUBJECT, format!("{name} may close a time"))
    } else {
        Finding::failure(SUBJECT, format!("{name} may not close a time: no replay begins"))
            .mended_by(format!("grant execute on function fhir.close_time(timestamptz) to {};", quoted(name)))
    }
}

fn policies(facts: &Facts) -> Finding {
    const SUBJECT: &str = "row security";
    let Role { name, superuser, bypasses_policies, .. } = &facts.role;
    let hidden = list(facts.tables.iter().filter(|table| table.policies));
    if *superuser || *bypasses_policies || hidden.is_empty() {
        Finding::pass(SUBJECT, format!("{name} sees every row"))
    } else {
        Finding::failure(
            SUBJECT,
            format!("policies may hide rows of {hidden} from {name}, and replays would leave them out"),
        )
        .mended_by(format!("alter role {} bypassrls;", quoted(name)))
    }
}

fn list<'a>(tables: impl Iterator<Item = &'a Table>) -> String {
    tables.map(|table| table.name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn well() -> Facts {
        let table = |name| Table { name: TableName::new("fhir", name), select: true, policies: false };
        let role = Role {
            oid: 1,
            name: "service".into(),
            superuser: false,
            reads_stats: true,
            bypasses_policies: false,
            schema: Some(true),
            closes_time: Some(true),
        };
        Facts { role, tables: TABLES.map(table).to_vec() }
    }

    /// The only one that does not pass.
    fn bad(facts: &Facts) -> Finding {
        Finding::only_bad(judge(facts))
    }

    #[test]
    fn missing_rights_are_named_with_their_grants() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
        let mut blind = well();
        blind.role.reads_stats = false;
        assert_eq!(bad(&blind).sql.unwrap(), r#"grant pg_read_all_stats to "service";"#);
        let mut idle = well();
        idle.role.closes_time = Some(false);
        let sql = bad(&idle).sql.unwrap();
        assert_eq!(sql, r#"grant execute on function fhir.close_time(timestamptz) to "service";"#);
        let mut shut_out = well();
        shut_out.role.schema = Some(false);
        shut_out.tables[0].select = false;
        let sql = bad(&shut_out).sql.unwrap();
        assert!(
            sql.contains("usage on schema fhir") && sql.contains(r#"select on "fhir"."resource" to"#),
            "{sql}"
        );
    }

    #[test]
    fn policies_fail_unless_the_role_bypasses_them() {
        let mut facts = well();
        facts.tables[0].policies = true;
        assert_eq!(bad(&facts).sql.unwrap(), r#"alter role "service" bypassrls;"#);
        facts.role.bypasses_policies = true;
        assert!(judge(&facts).iter().all(|finding| finding.verdict == Verdict::Pass));
    }
}
