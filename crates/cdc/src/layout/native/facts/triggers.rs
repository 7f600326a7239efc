//! The triggers: whether all of them are there, do what `migrate` made them to do, and always fire; and whether others
//! come between them and what they write.

use super::definitions::{self, Trigger};
use crate::check::Finding;
use crate::layout::native::migrate::{migrated_version, newest_version};
use pg::replication::quoted;
use tokio_postgres::Client;

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    triggers: Vec<Found>,
    /// The functions of the schema: name and body.
    functions: Vec<(String, String)>,
    /// The rules on the tombstones.
    rules: Vec<String>,
    /// The partitions that hold rows.
    partitions: Vec<Partition>,
    /// The version of the layout, if it is one that this program knows: then bodies can be compared.
    version: Option<i32>,
}

/// A trigger on one of the tables, or its copy on a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    /// As SQL writes it.
    table: String,
    /// The table of the layout that it belongs to.
    of: String,
    name: String,
    /// `tgenabled`: `A` fires always.
    enabled: String,
    definition: String,
    /// It is fired for each row before it is written, and can change or swallow it.
    before_row: bool,
    is_copy: bool,
}

/// A partition. A truncation of it alone is not in the log of the whole, and fires the triggers of the
/// partition only: those of statements have no copies.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Partition {
    /// As SQL writes it.
    table: String,
    /// The trigger that refuses a truncation, and whether it always fires.
    refuses: Option<(String, bool)>,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    // Each row trigger has a copy on each partition.
    let triggers = client
        .query(
            "select t.tgrelid::regclass::text, p.relname::text, o.tgname::text, t.tgenabled::text, \
                    pg_get_triggerdef(t.oid), t.tgtype & 3 = 3, t.oid <> o.oid \
               from pg_trigger o \
               join pg_class p on p.oid = o.tgrelid join pg_namespace n on n.oid = p.relnamespace \
               join lateral ( \
                    with recursive copy(oid) as ( \
                        select o.oid union all \
                        select c.oid from copy join pg_trigger c on c.tgparentid = copy.oid) \
                    select t.* from copy join pg_trigger t on t.oid = copy.oid) t on true \
              where n.nspname = 'fhir' and p.relname in ('resource', 'tombstone') and not o.tgisinternal \
              order by 1, 3",
            &[],
        )
        .await?;
    let functions = client
        .query(
            "select p.proname::text, p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
              where n.nspname = 'fhir'",
            &[],
        )
        .await?;
    let rules = client
        .query(
            "select r.rulename::text from pg_rewrite r join pg_class c on c.oid = r.ev_class \
               join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname = 'tombstone' and r.rulename <> '_RETURN' order by 1",
            &[],
        )
        .await?;
    let partitions = client
        .query(
            "with recursive child(oid) as ( \
                select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = 'fhir' and c.relname in ('resource', 'tombstone') \
                union select i.inhrelid from child join pg_inherits i on i.inhparent = child.oid) \
             select c.oid::regclass::text, t.name, t.always from child join pg_class c on c.oid = child.oid \
               left join lateral ( \
                    select t.tgname::text as name, t.tgenabled = 'A' as always from pg_trigger t \
                     where t.tgrelid = c.oid and t.tgfoid = to_regprocedure('fhir.refuse_truncate()') \
                       and t.tgtype & 32 <> 0 and t.tgqual is null \
                     order by t.tgenabled = 'A' desc, t.tgname limit 1) t on true \
              where c.relispartition and c.relkind = 'r' order by 1",
            &[],
        )
        .await?;
    let version = match migrated_version(client).await {
        Ok(version) => version.filter(|version| *version <= newest_version()),
        // Not for this role to see: another fact says so.
        Err(_) => None,
    };
    Ok(Facts {
        triggers: triggers
            .iter()
            .map(|row| {
                Ok(Found {
                    table: row.try_get(0)?,
                    of: row.try_get(1)?,
                    name: row.try_get(2)?,
                    enabled: row.try_get(3)?,
                    definition: row.try_get(4)?,
                    before_row: row.try_get(5)?,
                    is_copy: row.try_get(6)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?,
        functions: functions
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, tokio_postgres::Error>>()?,
        rules: rules.iter().map(|row| row.try_get(0)).collect::<Result<_, tokio_postgres::Error>>()?,
        partitions: partitions
            .iter()
            .map(|row| {
                let name: Option<String> = row.try_get(1)?;
                let always: Option<bool> = row.try_get(2)?;
                Ok(Partition { table: row.try_get(0)?, refuses: name.zip(always) })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?,
        version,
    })
}

/// The statements that make triggers and functions what they were, to be run as one: not what others have made.
pub(crate) async fn repairs(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let facts = ask(client).await?;
    let mut sql = Vec::new();
    replaced(&facts, &mut Vec::new(), &mut sql);
    resting(&facts, &mut Vec::new(), &mut sql);
    Ok((!sql.is_empty()).then(|| sql.join(" ")))
}

/// What is wrong, and the statements that mend it.
fn faults(facts: &Facts) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut sql) = (Vec::new(), Vec::new());
    replaced(facts, &mut wrong, &mut sql);
    resting(facts, &mut wrong, &mut sql);
    in_between(facts, &mut wrong, &mut sql);
    (wrong, sql)
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    const SUBJECT: &str = "triggers";
    let (wrong, sql) = faults(facts);
    vec![if wrong.is_empty() {
        Finding::pass(SUBJECT, "are there and always fire")
    } else {
        Finding::failure(SUBJECT, wrong.join("; ")).mended_by(sql.join(" "))
    }]
}

/// Those of ours that are missing, are others than ours, or do not always fire.
fn resting(facts: &Facts, wrong: &mut Vec<String>, sql: &mut Vec<String>) {
    let mut silent = Vec::new();
    for ours @ Trigger { name, table, sql: create } in definitions::triggers() {
        let found = |found: &&Found| found.of == table && found.name == name;
        let original = facts.triggers.iter().filter(found).find(|found| !found.is_copy);
        let create = create.split_whitespace().collect::<Vec<_>>().join(" ");
        let wake = format!("alter table fhir.{table} enable always trigger {name};");
        match original {
            None => {
                silent.push(format!("{name} of fhir.{table}"));
                sql.extend([create, wake]);
            }
            Some(original) if facts.version.is_some() && !same(&ours, &original.definition) => {
                wrong.push(format!(
                    "{name} of fhir.{table} is another trigger than the one that migrate makes"
                ));
                sql.extend([format!("drop trigger {name} on fhir.{table};"), create, wake]);
            }
            Some(_) => {
                for resting in facts.triggers.iter().filter(found).filter(|found| found.enabled != "A") {
                    silent.push(format!("{name} of {}", resting.table));
                    // A copy goes by the name of the original.
                    sql.push(format!("alter table {} enable always trigger {name};", resting.table));
                }
            }
        }
    }
    for Partition { table, refuses } in &facts.partitions {
        let (create, name) = match refuses {
            Some((_, true)) => continue,
            Some((name, false)) => (None, quoted(name)),
            None => (
                Some(format!(
                    "create trigger refuse_truncate before truncate on {table} \
                     for each statement execute function fhir.refuse_truncate();"
                )),
                "refuse_truncate".to_owned(),
            ),
        };
        silent.push(format!("refuse_truncate of {table}"));
        sql.extend(create);
        sql.push(format!("alter table {table} enable always trigger {name};"));
    }
    if !silent.is_empty() {
        wrong.push(format!(
            "do not always fire, so that changes are not stamped, or deletions are not told: {}",
            silent.join(", ")
        ));
    }
}

/// Whether a definition as the server writes it is ours: the same words, in whatever order and brackets.
fn same(ours: &Trigger, definition: &str) -> bool {
    let words = |text: &str| {
        let text = text.to_lowercase().replace("::text", "").replace("create or replace ", "create ");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.');
        let mut words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    words(ours.sql) == words(definition)
}

/// Functions of ours that do something else now.
fn replaced(facts: &Facts, wrong: &mut Vec<String>, sql: &mut Vec<String>) {
    let Some(version) = facts.version else { return };
    // What streams of patients alone depend on is asked where they are.
    let ours = definitions::functions_of(version).into_iter().filter(|function| function.name != "mentions");
    for function in ours {
        let found: Vec<_> = facts.functions.iter().filter(|(name, _)| name == function.name).collect();
        if found.iter().any(|(_, body)| body.trim() == function.body.trim()) {
            continue;
        }
        wrong.push(format!("the function fhir.{} is not the one that migrate makes", function.name));
        // One that is made anew is open to all.
        let closed = found.is_empty() && function.sql.contains("security definer");
        sql.push(function.sql);
        if closed {
            sql.push(format!("revoke all on function fhir.{} from public;", function.name));
        }
    }
}

/// What others have put in the way of a tombstone: it could be changed, or not be written at all.
fn in_between(facts: &Facts, wrong: &mut Vec<String>, sql: &mut Vec<String>) {
    let ours = definitions::triggers();
    for Found { name, of, before_row, is_copy, .. } in &facts.triggers {
        let is_ours = ours.iter().any(|ours| ours.table == of && ours.name == name);
        if of == "tombstone" && *before_row && !is_ours && !is_copy {
            wrong.push(format!(
                "the trigger {name} of fhir.tombstone is not ours and can keep deletions from being told"
            ));
            sql.push(format!("drop trigger {} on fhir.tombstone;", quoted(name)));
        }
    }
    for rule in &facts.rules {
        wrong.push(format!("the rule {rule} on fhir.tombstone can keep deletions from being told"));
        sql.push(format!("drop rule {} on fhir.tombstone;", quoted(rule)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn well() -> Facts {
        let found = |t: &Trigger| Found {
            table: format!("fhir.{}", t.table),
            of: t.table.into(),
            name: t.name.into(),
            enabled: "A".into(),
            definition: t.sql.into(),
            before_row: false,
            is_copy: false,
        };
        Facts {
            triggers: definitions::triggers().iter().map(found).collect(),
            functions: definitions::functions().iter().map(|f| (f.name.into(), f.body.into())).collect(),
            rules: Vec::new(),
            partitions: Vec::new(),
            version: Some(newest_version()),
        }
    }

    fn judged(facts: &Facts) -> Finding {
        judge(facts).remove(0)
    }

    #[test]
    fn what_migrate_makes_passes() {
        assert_eq!(judged(&well()).verdict, Verdict::Pass);
    }

    #[test]
    fn a_missing_trigger_is_created_and_a_resting_one_enabled() {
        let mut facts = well();
        facts.triggers.retain(|found| found.name != "after_delete");
        let sql = judged(&facts).sql.unwrap();
        let made = "create trigger after_delete after delete on fhir.resource referencing old table as gone";
        assert!(sql.starts_with(made), "{sql}");
        assert!(sql.ends_with("; alter table fhir.resource enable always trigger after_delete;"), "{sql}");
        for enabled in ["O", "D", "R"] {
            let mut facts = well();
            facts.triggers[0].enabled = enabled.into();
            let sql = judged(&facts).sql.unwrap();
            assert!(sql.starts_with("alter table fhir.resource enable always trigger"), "{sql}");
        }
    }

    #[test]
    fn the_copy_of_a_partition_has_to_fire_too() {
        let mut facts = well();
        let copy = Found {
            table: "fhir.part".into(),
            enabled: "O".into(),
            is_copy: true,
            ..facts.triggers[0].clone()
        };
        let sql = format!("alter table fhir.part enable always trigger {};", copy.name);
        facts.triggers.push(copy);
        assert_eq!(judged(&facts).sql.unwrap(), sql);
    }

    #[test]
    fn a_partition_has_to_refuse_a_truncation_itself() {
        let judged = |refuses: Option<(&str, bool)>| {
            let refuses = refuses.map(|(name, always)| (name.to_owned(), always));
            judged(&Facts { partitions: vec![Partition { table: "fhir.part".into(), refuses }], ..well() })
        };
        assert_eq!(judged(Some(("refuse_truncate", true))).verdict, Verdict::Pass);
        assert_eq!(
            judged(Some(("Mine", false))).sql.unwrap(),
            r#"alter table fhir.part enable always trigger "Mine";"#
        );
        let missing = judged(None);
        assert!(missing.message.contains("refuse_truncate of fhir.part"), "{}", missing.message);
        assert!(
            missing.sql.unwrap().starts_with("create trigger refuse_truncate before truncate on fhir.part ")
        );
    }

    #[test]
    fn the_servers_own_words_for_a_definition_are_understood() {
        let ours = Trigger {
            name: "t",
            table: "resource",
            sql: "create trigger t before insert on fhir.resource\n    for each row when \
                  (current_setting('fhir.bulk_load', true) is not distinct from 'on')\n    execute function fhir.f();",
        };
        let theirs = "CREATE TRIGGER t BEFORE INSERT ON fhir.resource FOR EACH ROW WHEN ((NOT \
                      (current_setting('fhir.bulk_load'::text, true) IS DISTINCT FROM 'on'::text))) EXECUTE FUNCTION fhir.f()";
        assert!(same(&ours, theirs));
        assert!(!same(&ours, &theirs.replace("BEFORE", "AFTER")));
        assert!(!same(&ours, &theirs.replace("fhir.f()", "public.f()")));
        assert!(!same(&ours, &theirs.replace("(NOT ", "(")));
    }

    #[test]
    fn functions_and_triggers_that_were_replaced_are_told() {
        let mut facts = well();
        facts.functions.iter_mut().find(|(name, _)| name == "after_delete").unwrap().1 = "begin end".into();
        let finding = judged(&facts);
        assert!(finding.message.contains("fhir.after_delete is not the one"), "{}", finding.message);
        assert!(finding.sql.unwrap().starts_with("create or replace function fhir.after_delete("));
        facts.functions.retain(|(name, _)| name != "after_delete");
        let sql = judged(&facts).sql.unwrap();
        assert!(sql.ends_with(" revoke all on function fhir.after_delete from public;"), "{sql}");
        // A later release may have others.
        facts.version = None;
        assert_eq!(judged(&facts).verdict, Verdict::Pass);
        let mut facts = well();
        facts.triggers[0].definition = "CREATE TRIGGER x AFTER INSERT ON fhir.resource".into();
        assert!(judged(&facts).sql.unwrap().starts_with("drop trigger "));
    }

    #[test]
    fn what_others_put_before_a_tombstone_is_told() {
        let mut facts = well();
        let other = Found {
            name: "mine".into(),
            of: "tombstone".into(),
            before_row: true,
            ..facts.triggers[0].clone()
        };
        facts.triggers.push(other);
        assert_eq!(judged(&facts).sql.unwrap(), r#"drop trigger "mine" on fhir.tombstone;"#);
        let rules = Facts { rules: vec!["hide".into()], ..well() };
        assert_eq!(judged(&rules).sql.unwrap(), r#"drop rule "hide" on fhir.tombstone;"#);
    }
}
