//! The log of a test's database, decoded by the server's own plugin and read without a replication connection.

use pg::pgoutput::{Column, Message, Relation, Row};
use std::collections::HashMap;
use tokio_postgres::Client;

/// Makes the slot: what is committed from now on is read by [`read`].
pub(crate) async fn begin(client: &Client, slot: &str) {
    let sql = "select pg_create_logical_replication_slot($1::text, 'pgoutput')";
    client.query_one(sql, &[&slot]).await.unwrap();
}

/// The messages since [`begin`], and the slot is gone.
pub(crate) async fn read(client: &Client, slot: &str) -> Vec<Vec<u8>> {
    let sql = "select data from pg_logical_slot_get_binary_changes($1::text, null, null,
               'proto_version', '1', 'publication_names', 'fhir_tail')";
    let rows = client.query(sql, &[&slot]).await.unwrap();
    client.query_one("select pg_drop_replication_slot($1::text)", &[&slot]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// What was written, in the order of the log.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) table: String,
    pub(crate) id: String,
    pub(crate) version: i64,
    pub(crate) stamp: String,
}

/// Inserts and updates of both tables.
pub(crate) fn writes(messages: &[Vec<u8>]) -> Vec<Write> {
    let mut relations: HashMap<u32, Relation> = HashMap::new();
    let mut writes = Vec::new();
    for message in messages {
        match Message::decode(message).unwrap() {
            Message::Relation(relation) => {
                relations.insert(relation.id, relation);
            }
            Message::Row(row) => writes.extend(write(&relations[&row.relation_id], &row)),
            _ => {}
        }
    }
    writes
}

fn write(relation: &Relation, row: &Row<'_>) -> Option<Write> {
    let new = row.new?;
    let text = |name: &str| {
        let index = relation.columns.iter().position(|column| column.name == name).unwrap();
        match new.get(index).unwrap() {
            Column::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{name} is {other:?}"),
        }
    };
    // A change with an unreadable content could not be routed.
    text("content");
    Some(Write {
        table: relation.name.clone(),
        id: text("id"),
        version: text("version_id").parse().unwrap(),
        stamp: text("last_updated"),
    })
}
