//! The publication: whether all of the tables gets through it.

use super::Finding;
use crate::publication;
use crate::replication::quoted;
use crate::{Settings, TableName};
use tokio_postgres::Client;

/// What the publication lets through; `None`: there is none.
pub(super) type Facts = Option<Published>;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Published {
    inserts: bool,
    updates: bool,
    /// In its own words: `insert, update`.
    publishes: Vec<&'static str>,
    tables: Vec<Table>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Table {
    name: TableName,
    published: bool,
    /// It has a row filter or a list of columns.
    narrowed: bool,
}

pub(super) async fn ask(client: &Client, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    let name = settings.publication.as_str();
    let row = client
        .query_opt(
            "select oid, pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication where pubname = $1::text",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let oid: u32 = row.try_get(0)?;
    let mut tables = Vec::new();
    for table in &settings.tables {
        let relation = publication::oid(client, table).await?.unwrap_or_default();
        // By way of JSON, as 14 has neither filters nor lists.
        let narrowed = client
            .query_opt(
                "select 1 from pg_publication_rel r where prpubid = $1 and prrelid = $2 \
                    and (to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null)",
                &[&oid, &relation],
            )
            .await?;
        let published = publication::has(client, name, table).await?;
        tables.push(Table { name: table.clone(), published, narrowed: narrowed.is_some() });
    }
    let mut publishes = Vec::new();
    for (column, operation) in [(1, "insert"), (2, "update"), (3, "delete"), (4, "truncate")] {
        if row.try_get(column)? {
            publishes.push(operation);
        }
    }
    Ok(Some(Published { inserts: row.try_get(1)?, updates: row.try_get(2)?, publishes, tables }))
}

pub(super) fn judge(facts: &Facts, settings: &Settings) -> Vec<Finding> {
    const SUBJECT: &str = "publication";
    let name = &settings.publication;
    let Some(facts) = facts else {
        return vec![
            Finding::failure(
                SUBJECT,
                format!("there is no publication {name}, and the service may not be allowed to make it"),
            )
            .mended_by(publication::create_sql(name, &settings.tables)),
        ];
    };
    let mut wrong = Vec::new();
    let mut sql = Vec::new();
    let list = |tables: &[&Table]| tables.iter().map(|t| t.name.to_string()).collect::<Vec<_>>().join(", ");
    let missing: Vec<&Table> = facts.tables.iter().filter(|table| !table.published).collect();
    if !missing.is_empty() {
        wrong.push(format!("leaves out {}", list(&missing)));
        sql.extend(missing.iter().map(|table| publication::add_sql(name, &table.name)));
    }
    let narrowed: Vec<&Table> = facts.tables.iter().filter(|table| table.narrowed).collect();
    if !narrowed.is_empty() {
        wrong.push(format!("passes on only a part of {}", list(&narrowed)));
        for table in narrowed {
            sql.push(format!("alter publication {} drop table {};", quoted(name), table.name));
            sql.push(publication::add_sql(name, &table.name));
        }
    }
    // Deletions come as inserts into the tombstones.
    if !facts.inserts || !facts.updates {
        wrong.push("leaves out inserts or updates".to_owned());
        let mut all = vec!["insert", "update"];
        all.extend(facts.publishes.iter().filter(|operation| !["insert", "update"].contains(operation)));
        sql.push(format!("alter publication {} set (publish = '{}');", quoted(name), all.join(", ")));
    }
    vec![if wrong.is_empty() {
        Finding::pass(SUBJECT, format!("{name} has the tables, whole"))
    } else {
        Finding::failure(SUBJECT, format!("{name} {}: changes would be lost", wrong.join(", and ")))
            .mended_by(sql.join(" "))
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::Database;

    fn settings() -> Settings {
        Settings {
            database: Database::parse_with("postgres://u@h/d", &|_| None).unwrap(),
            slot: "s".parse().unwrap(),
            publication: "p".into(),
            tables: ["a", "b"].map(|name| TableName::new("x", name)).to_vec(),
            max_wal_held: 1,
        }
    }

    fn well() -> Published {
        let tables = settings().tables.into_iter();
        Published {
            inserts: true,
            updates: true,
            publishes: vec!["insert", "update", "delete", "truncate"],
            tables: tables.map(|name| Table { name, published: true, narrowed: false }).collect(),
        }
    }

    fn judged(facts: Facts) -> Finding {
        judge(&facts, &settings()).remove(0)
    }

    #[test]
    fn all_of_both_tables_passes_with_or_without_deletes() {
        assert_eq!(judged(Some(well())).verdict, Verdict::Pass);
        let fewer = Published { publishes: vec!["insert", "update"], ..well() };
        assert_eq!(judged(Some(fewer)).verdict, Verdict::Pass);
    }

    #[test]
    fn what_does_not_get_through_is_named_with_its_sql() {
        let sql = judged(None).sql.unwrap();
        assert_eq!(sql, r#"create publication "p" for table "x"."a", "x"."b";"#);
        let mut facts = well();
        facts.tables[0].published = false;
        facts.tables[1].narrowed = true;
        facts.updates = false;
        facts.publishes = vec!["insert", "truncate"];
        let finding = judged(Some(facts));
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(
            finding.sql.unwrap(),
            r#"alter publication "p" add table "x"."a"; alter publication "p" drop table "x"."b"; alter publication "p" add table "x"."b"; alter publication "p" set (publish = 'insert, update, truncate');"#
        );
    }
}
