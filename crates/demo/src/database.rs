//! The clinic's reading and writing, in plain SQL.

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use sample::Clinic;
use sample::clinic::{NEEDED, Records, Step, Write};
use std::pin::pin;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};

/// Some of a type in the order in which they were written. `content` is searched as text: taken as JSON, one that
/// somebody else wrote could fail the query.
const READ: &str = "\
select id, content::text
  from fhir.resource
 where resource_type = $1 and ($2::text is null or content::text ~ $2)
 order by last_updated, version_id";

/// Higher after each run that wrote something.
const RUN: &str = "select coalesce(max(version_id), 0) from fhir.resource";

const PUT: &str = "\
insert into fhir.resource (resource_type, id, content) values ($1, $2, ($3::text)::json)
on conflict (resource_type, id) do update set content = excluded.content";

const DELETE: &str = "delete from fhir.resource where resource_type = $1 and id = $2";

/// The clinic as the database knows it.
pub(crate) async fn read(client: &Client, seed: u64) -> anyhow::Result<Clinic> {
    let run: i64 = client.query_one(RUN, &[]).await?.try_get(0)?;
    let mut records = Records::default();
    for needed in NEEDED {
        let codes = (!needed.codes.is_empty()).then(|| format!("\"({})\"", needed.codes.join("|")));
        let parameters: [&(dyn ToSql + Sync); 2] = [&needed.resource_type, &codes];
        let rows = client.query_raw(READ, parameters).await?;
        let mut rows = pin!(rows);
        while let Some(row) = rows.try_next().await? {
            records.add(needed.resource_type, row.try_get(0)?, row.try_get(1)?)?;
        }
    }
    Ok(records.clinic(seed, u64::try_from(run).context("a version below zero")?)?)
}

/// Writes steps.
pub(crate) struct Writer {
    client: Client,
    put: Statement,
    delete: Statement,
}

impl Writer {
    pub(crate) async fn prepare(client: Client) -> Result<Self, Error> {
        let (put, delete) = (client.prepare(PUT).await?, client.prepare(DELETE).await?);
        Ok(Self { client, put, delete })
    }

    /// One step, all or nothing.
    pub(crate) async fn write(&mut self, step: &Step) -> Result<(), Error> {
        let transaction = self.client.transaction().await?;
        for write in &step.writes {
            match write {
                Write::Put(resource) => {
                    let (of, id, content) = (resource.resource_type, &resource.id, &resource.content);
                    transaction.execute(&self.put, &[&of, id, content]).await?;
                }
                Write::Delete { resource_type, id } => {
                    transaction.execute(&self.delete, &[resource_type, id]).await?;
                }
            }
        }
        transaction.commit().await
    }
}
