//! What kind of relations the names of the layout stand for: tables whose every row is in the log, with the columns that
//! pages and the log are read for.

use super::access::TABLES;
use crate::check::Finding;
use crate::layout::native::rows::COLUMNS;
use tokio_postgres::Client;

/// The types that each of [`COLUMNS`] may have: those that a page can be read of.
const TYPES: [&[&str]; COLUMNS.len()] = [
    &["text", "character varying"],
    &["text", "character varying"],
    &["bigint"],
    &["timestamp with time zone"],
    &["json", "jsonb", "text"],
];

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// What goes by the name of a table.
    relations: Vec<Relation>,
    columns: Vec<Column>,
    /// The partitions and the heirs of both tables.
    children: Vec<Child>,
    sequence: Option<Sequence>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Relation {
    name: String,
    /// `pg_class.relkind`: `r` is a table, `p` a partitioned one.
    kind: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Column {
    table: String,
    name: String,
    type_name: String,
    generated: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Child {
    /// As SQL writes it.
    name: String,
    parent: String,
    /// Else it inherits.
    is_partition: bool,
    kind: String,
    /// Its changes are in the log.
    logged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sequence {
    cache: i64,
    cycles: bool,
}

pub(super) async fn ask(client: &Client) -> Result<Facts, tokio_postgres::Error> {
    let relations = client
        .query(
            "select c.relname::text, c.relkind::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname::text = any($1) order by 1",
            &[&TABLES.as_slice()],
        )
        .await?;
    let columns = client
        .query(
            "select c.relname::text, a.attname::text, format_type(a.atttypid, null), a.attgenerated <> '' \
               from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace \
              where n.nspname = 'fhir' and c.relname in ('resource', 'tombstone') \
                and a.attnum > 0 and not a.attisdropped order by 1, a.attnum",
            &[],
        )
        .await?;
    let children = client
        .query(
            "with recursive child(oid, parent) as ( \
                select i.inhrelid, i.inhparent from pg_inherits i join pg_class c on c.oid = i.inhparent \
                  join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = 'fhir' and c.relname in ('resource', 'tombstone') \
                union all select i.inhrelid, i.inhparent from child join pg_inherits i on i.inhparent = child.oid) \
             select c.oid::regclass::text, child.parent::regclass::text, c.relispartition, c.relkind::text, \
                    c.relpersistence = 'p' \
               from child join pg_class c on c.oid = child.oid order by 1",
            &[],
        )
        .await?;
    let sequence = client
        .query_opt(
            "select s.seqcache, s.seqcycle from pg_sequence s join pg_class c on c.oid = s.seqrelid \
               join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'fhir' and c.relname = 'version'",
            &[],
        )
        .await?;
    Ok(Facts {
        relations: relations
            .iter()
            .map(|row| Ok(Relation { name: row.try_get(0)?, kind: row.try_get(1)? }))
            .collect::<Result<_, tokio_postgres::Error>>()?,
        columns: columns
            .iter()
            .map(|row| {
                Ok(Column {
                    table: row.try_get(0)?,
                    name: row.try_get(1)?,
                    type_name: row.try_get(2)?,
                    generated: row.try_get(3)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?,
        children: children
            .iter()
            .map(|row| {
                Ok(Child {
                    name: row.try_get(0)?,
                    parent: row.try_get(1)?,
                    is_partition: row.try_get(2)?,
                    kind: row.try_get(3)?,
                    logged: row.try_get(4)?,
                })
            })
            .collect::<Result<_, tokio_postgres::Error>>()?,
        sequence: match sequence {
            Some(row) => Some(Sequence { cache: row.try_get(0)?, cycles: row.try_get(1)? }),
            None => None,
        },
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    vec![columns(facts), partitions(facts), versions(facts.sequence)]
}

fn columns(facts: &Facts) -> Finding {
    const SUBJECT: &str = "columns";
    let mut wrong: Vec<String> = facts
        .relations
        .iter()
        .filter(|relation| !["r", "p"].contains(&relation.kind.as_str()))
        .map(|relation| {
            format!(
                "fhir.{} is a {}, not a table: its rows are not in the log",
                relation.name,
                kind(&relation.kind)
            )
        })
        .collect();
    for table in ["resource", "tombstone"] {
        for (name, types) in COLUMNS.iter().zip(TYPES) {
            match facts.columns.iter().find(|column| column.table == table && column.name == *name) {
                None => wrong.push(format!("fhir.{table} has no column {name}: give it back its name")),
                Some(column) if column.generated => {
                    wrong.push(format!(
                        "column {name} of fhir.{table} is generated, so that the log leaves it out"
                    ));
                }
                Some(column) if !types.contains(&column.type_name.as_str()) => wrong.push(format!(
                    "column {name} of fhir.{table} has the type {}, and {} is needed",
                    column.type_name, types[0]
                )),
                Some(_) => {}
            }
        }
    }
    if wrong.is_empty() {
        Finding::pass(SUBJECT, "are those of the layout")
    } else {
        Finding::failure(SUBJECT, wrong.join("; "))
    }
}

fn kind(kind: &str) -> &'static str {
    match kind {
        "v" => "view",
        "m" => "materialized view",
        "f" => "foreign table",
        _ => "relation of another kind",
    }
}

/// What a replay reads by the name of a table and the log does not bring by it.
fn partitions(facts: &Facts) -> Finding {
    const SUBJECT: &str = "partitions";
    let mut wrong = Vec::new();
    let mut sql = Vec::new();
    for Child { name, parent, is_partition, kind, logged } in &facts.children {
        if !is_partition {
            wrong.push(format!(
                "{name} inherits from {parent}, so that its rows are in replays and not in the log"
            ));
            sql.push(format!("alter table {name} no inherit {parent};"));
        } else if kind == "f" {
            wrong.push(format!("the partition {name} is a foreign table, whose changes are not in the log"));
            sql.push(format!("alter table {parent} detach partition {name};"));
        } else if !logged {
            wrong.push(format!("the partition {name} is unlogged, so that its changes are not in the log"));
            sql.push(format!("alter table {name} set logged;"));
        }
    }
    if wrong.is_empty() {
        let count = facts.children.len();
        return Finding::pass(
            SUBJECT,
            if count == 0 { "there are none".to_owned() } else { format!("{count}, all of them in the log") },
        );
    }
    Finding::failure(SUBJECT, wrong.join("; ")).mended_by(sql.join(" "))
}

/// Versions rise because each is drawn while its row is locked.
fn versions(sequence: Option<Sequence>) -> Finding {
    const SUBJECT: &str = "versions";
    match sequence {
        Some(Sequence { cache: 1, cycles: false }) => Finding::pass(SUBJECT, "are drawn one by one"),
        Some(_) => Finding::failure(
            SUBJECT,
            "the sequence fhir.version may give a later version a lower number: it has a cache, or cycles",
        )
        .mended_by("alter sequence fhir.version cache 1 no cycle;"),
        None => Finding::failure(SUBJECT, "the sequence fhir.version is missing: restore it from a backup"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn well() -> Facts {
        let columns = ["resource", "tombstone"].iter().flat_map(|table| {
            COLUMNS.iter().zip(TYPES).map(|(name, types)| Column {
                table: (*table).into(),
                name: (*name).into(),
                type_name: types[0].into(),
                generated: false,
            })
        });
        let relation = |name: &str| Relation { name: name.into(), kind: "r".into() };
        Facts {
            relations: TABLES.iter().map(|name| relation(name)).collect(),
            columns: columns.collect(),
            children: Vec::new(),
            sequence: Some(Sequence { cache: 1, cycles: false }),
        }
    }

    fn child(is_partition: bool, kind: &str, logged: bool) -> Child {
        let (name, parent) = ("fhir.part".into(), "fhir.resource".into());
        Child { name, parent, is_partition, kind: kind.into(), logged }
    }

    fn bad(facts: &Facts) -> Finding {
        Finding::only_bad(judge(facts))
    }

    #[test]
    fn tables_with_partitions_in_the_log_pass() {
        for children in [Vec::new(), vec![child(true, "r", true), child(true, "p", true)]] {
            assert!(judge(&Facts { children, ..well() }).iter().all(|f| f.verdict == Verdict::Pass));
        }
    }

    #[test]
    fn relations_without_log_and_other_columns_fail() {
        let mut view = well();
        view.relations[0].kind = "v".into();
        assert!(bad(&view).message.contains("is a view"));
        let mut renamed = well();
        renamed.columns[0].name = "kind".into();
        assert!(bad(&renamed).message.contains("fhir.resource has no column resource_type"));
        let mut generated = well();
        generated.columns[4].generated = true;
        assert!(bad(&generated).message.contains("content of fhir.resource is generated"));
        let mut narrow = well();
        narrow.columns[7].type_name = "integer".into();
        assert!(bad(&narrow).message.contains("has the type integer, and bigint is needed"));
    }

    #[test]
    fn rows_that_the_log_does_not_bring_fail_with_their_sql() {
        for (child, sql) in [
            (child(false, "r", true), "alter table fhir.part no inherit fhir.resource;"),
            (child(true, "f", true), "alter table fhir.resource detach partition fhir.part;"),
            (child(true, "r", false), "alter table fhir.part set logged;"),
        ] {
            assert_eq!(bad(&Facts { children: vec![child], ..well() }).sql.unwrap(), sql);
        }
        for sequence in [Sequence { cache: 20, cycles: false }, Sequence { cache: 1, cycles: true }] {
            assert!(bad(&Facts { sequence: Some(sequence), ..well() }).sql.is_some());
        }
    }
}
