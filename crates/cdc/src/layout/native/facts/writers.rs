//! Who else may do something to the tables: the functions that work with their owner's rights, and what was granted
//! beyond what a writer needs.

use crate::check::Finding;
use crate::lossy::query_with_names;
use pg::replication::quoted;
use tokio_postgres::Client;

/// The trigger functions that work with their owner's rights, and whether they need a search path of their own.
const FUNCTIONS: [(&str, bool); 5] = [
    ("stamp_insert", false),
    ("stamp_bulk_insert", false),
    ("stamp_update", true),
    ("after_delete", true),
    ("after_insert", true),
];

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// The owner of the tombstones, which the functions write.
    owner: String,
    functions: Vec<Function>,
    /// What others than the owner may do.
    grants: Vec<Grant>,
}

/// A function, as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Function {
    name: String,
    owner: String,
    /// It works with its owner's rights.
    definer: bool,
    /// It has a search path of its own.
    search_path: bool,
    /// Everybody may make a trigger of it.
    open: bool,
}

/// A right that lets a role do more than write resources.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Grant {
    right: String,
    /// As SQL names it after `on`.
    object: String,
    /// `None`: everybody.
    role: Option<String>,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let owner = client
        .query_one(
            "select pg_get_userbyid(c.relowner)::text from pg_class c \
              where c.oid = to_regclass('fhir.tombstone')",
            &[],
        )
        .await?
        .try_get(0)?;
    let names = FUNCTIONS.map(|(name, _)| name);
    let functions = client
        .query(
            "select p.proname::text, pg_get_userbyid(p.proowner)::text, p.prosecdef, \
                    coalesce(array_to_string(p.proconfig, ' ') like '%search_path=%', false), \
                    has_function_privilege('public', p.oid, 'execute') \
               from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
              where n.nspname = 'fhir' and p.proname::text = any($1) and p.pronargs = 0 order by 1",
            &[&names.as_slice()],
        )
        .await?;
    let grants = query_with_names(
        client,
        "select a.privilege_type, o.object, {name} \
               from (select 'fhir.' || c.relname, c.relname::text, c.relowner, c.relacl from pg_class c \
                       join pg_namespace n on n.oid = c.relnamespace \
                      where n.nspname = 'fhir' and c.relname in ('resource', 'tombstone') \
                     union all \
                     select 'sequence fhir.version', 'version', c.relowner, c.relacl from pg_class c \
                      where c.oid = to_regclass('fhir.version') \
                     union all \
                     select 'schema fhir', 'schema', n.nspowner, n.nspacl from pg_namespace n \
                      where n.nspname = 'fhir') o (object, name, owner, acl), \
                    lateral aclexplode(o.acl) a left join pg_roles r on r.oid = a.grantee \
              where a.grantee <> o.owner and not coalesce(r.rolsuper, false) \
                and (o.name = 'resource' and a.privilege_type = 'TRIGGER' \
                  or o.name = 'tombstone' and a.privilege_type in ('INSERT', 'UPDATE', 'TRIGGER') \
                  or o.name = 'version' and a.privilege_type = 'UPDATE' \
                  or o.name = 'schema' and a.privilege_type = 'CREATE') \
              order by 2, 1, 3",
        "r.rolname::text",
    )
    .await?;
    Ok(Facts {
        owner,
        functions: functions
            .iter()
            .map(|row| {
                Ok(Function {
                    name: row.try_get(0)?,
                    owner: row.try_get(1)?,
                    definer: row.try_get(2)?,
                    search_path: row.try_get(3)?,
                    open: row.try_get(4)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?,
        grants: grants
            .iter()
            .map(|row| Ok(Grant { right: row.try_get(0)?, object: row.try_get(1)?, role: row.try_get(2)? }))
            .collect::<Result<_, tokio_postgres::Error>>()?,
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    vec![functions(facts), grants(facts)]
}

fn functions(facts: &Facts) -> Finding {
    const SUBJECT: &str = "functions";
    let mut wrong = Vec::new();
    let mut sql = Vec::new();
    for Function { name, owner, definer, search_path, open } in &facts.functions {
        if *open {
            wrong.push(format!("everybody can make a trigger of fhir.{name}"));
            sql.push(format!("revoke execute on function fhir.{name}() from public;"));
        }
        if !definer {
            wrong.push(format!(
                "fhir.{name} works with the rights of whoever writes, who cannot do what it does"
            ));
            sql.push(format!("alter function fhir.{name}() security definer;"));
        }
        if *owner != facts.owner {
            wrong.push(format!("fhir.{name} belongs to {owner}, and the tables to {}", facts.owner));
            sql.push(format!("alter function fhir.{name}() owner to {};", quoted(&facts.owner)));
        }
        if !search_path && FUNCTIONS.iter().any(|(named, needs)| named == name && *needs) {
            wrong.push(format!("fhir.{name} uses whatever functions the search_path of its caller leads to"));
            sql.push(format!("alter function fhir.{name}() set search_path = pg_catalog, pg_temp;"));
        }
    }
    if wrong.is_empty() {
        return Finding::pass(SUBJECT, "belong to the tables' owner, who alone can make triggers of them");
    }
    Finding::failure(SUBJECT, wrong.join("; ")).mended_by(sql.join(" "))
}

fn grants(facts: &Facts) -> Finding {
    const SUBJECT: &str = "writers";
    if facts.grants.is_empty() {
        return Finding::pass(SUBJECT, "have no right by which they could change stamps or deletions");
    }
    let (mut found, mut sql) = (Vec::new(), Vec::new());
    for Grant { right, object, role } in &facts.grants {
        found.push(format!("{} has {right} on {object}", role.as_deref().unwrap_or("everybody")));
        let role = role.as_deref().map_or_else(|| "public".to_owned(), quoted);
        sql.push(format!("revoke {} on {object} from {role};", right.to_lowercase()));
    }
    Finding::warning(
        SUBJECT,
        format!("more than a writer needs, and enough to change stamps or deletions: {}", found.join(", ")),
    )
    .mended_by(sql.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn well() -> Facts {
        let function = |(name, search_path): (&str, bool)| Function {
            name: name.into(),
            owner: "owner".into(),
            definer: true,
            search_path,
            open: false,
        };
        Facts { owner: "owner".into(), functions: FUNCTIONS.map(function).to_vec(), grants: Vec::new() }
    }

    /// The SQL for a fault of one function.
    fn mended(fault: fn(&mut Function)) -> String {
        let mut facts = well();
        fault(&mut facts.functions[3]);
        let finding = judge(&facts).remove(0);
        assert_eq!(finding.verdict, Verdict::Failure);
        finding.sql.unwrap()
    }

    #[test]
    fn what_migrate_makes_passes() {
        assert!(judge(&well()).iter().all(|finding| finding.verdict == Verdict::Pass));
    }

    #[test]
    fn each_fault_of_a_function_is_mended_by_its_statement() {
        assert_eq!(mended(|f| f.open = true), "revoke execute on function fhir.after_delete() from public;");
        assert_eq!(mended(|f| f.definer = false), "alter function fhir.after_delete() security definer;");
        assert_eq!(
            mended(|f| f.owner = "x".into()),
            r#"alter function fhir.after_delete() owner to "owner";"#
        );
        assert_eq!(
            mended(|f| f.search_path = false),
            "alter function fhir.after_delete() set search_path = pg_catalog, pg_temp;"
        );
    }

    #[test]
    fn rights_beyond_a_writers_are_told_with_their_revokes() {
        let grant = |right: &str, object: &str, role: Option<&str>| Grant {
            right: right.into(),
            object: object.into(),
            role: role.map(Into::into),
        };
        let grants =
            vec![grant("TRIGGER", "fhir.resource", Some("app")), grant("CREATE", "schema fhir", None)];
        let finding = judge(&Facts { grants, ..well() }).remove(1);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(
            finding
                .message
                .ends_with("app has TRIGGER on fhir.resource, everybody has CREATE on schema fhir")
        );
        assert_eq!(
            finding.sql.unwrap(),
            r#"revoke trigger on fhir.resource from "app"; revoke create on schema fhir from public;"#
        );
    }
}
