//! The publication: whether all of the tables gets through it.

use crate::Settings;
use crate::check::Finding;
use crate::publication::{self, Lack, Published};
use tokio_postgres::Client;

/// What the publication lets through; `None`: there is none.
pub(super) type Facts = Option<Published>;

pub(super) async fn ask(client: &Client, settings: &Settings) -> Result<Facts, tokio_postgres::Error> {
    publication::published(client, &settings.publication, settings.layout.tables()).await
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
            .mended_by(publication::create_sql(name, settings.layout.tables())),
        ];
    };
    vec![match facts.lacks(name) {
        None => Finding::pass(SUBJECT, format!("{name} has the tables, whole")),
        Some(Lack { what, sql }) => {
            Finding::failure(SUBJECT, format!("{name} {what}: changes would be lost")).mended_by(sql)
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TableName;
    use crate::check::Verdict;
    use crate::layout::native::settings;
    use crate::publication::PublishedTable;

    fn well() -> Published {
        let tables = settings().layout.tables().to_vec().into_iter();
        Published {
            inserts: true,
            updates: true,
            publishes: vec!["insert", "update", "delete", "truncate"],
            by_root: false,
            tables: tables.map(table).collect(),
        }
    }

    fn table(name: TableName) -> PublishedTable {
        PublishedTable { name, published: true, member: true, partitioned: false, narrowed: false }
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
        assert_eq!(sql, r#"create publication "p" for table "fhir"."resource", "fhir"."tombstone";"#);
        let mut facts = well();
        facts.tables[0].published = false;
        facts.tables[1].narrowed = true;
        facts.updates = false;
        facts.publishes = vec!["insert", "truncate"];
        let finding = judged(Some(facts));
        assert_eq!(finding.verdict, Verdict::Failure);
        assert_eq!(
            finding.sql.unwrap(),
            r#"alter publication "p" add table "fhir"."resource"; alter publication "p" drop table "fhir"."tombstone"; alter publication "p" add table "fhir"."tombstone"; alter publication "p" set (publish = 'insert, update, truncate');"#
        );
    }

    #[test]
    fn a_partitioned_table_is_published_by_its_own_name() {
        let mut facts = well();
        facts.tables[0].partitioned = true;
        facts.tables[0].published = false;
        let by_root = r#"alter publication "p" set (publish_via_partition_root = true);"#;
        assert_eq!(judged(Some(facts.clone())).sql.unwrap(), by_root);
        facts.tables[0].member = false;
        let sql = judged(Some(facts.clone())).sql.unwrap();
        assert_eq!(sql, format!(r#"{by_root} alter publication "p" add table "fhir"."resource";"#));
        facts.tables[0].published = true;
        facts.by_root = true;
        assert_eq!(judged(Some(facts)).verdict, Verdict::Pass);
    }
}
