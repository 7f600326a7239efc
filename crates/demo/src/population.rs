//! The population with which a clinic begins, loaded as `fhir-tail load` loads, with its progress bar.

use crate::sample_data::{today, write};
use anyhow::Context as _;
use pg::Database;
use sample::clinic::Unfit;
use sample::{COMPLETE, Population};
use tokio_postgres::error::SqlState;

/// Whether it is whole, and somebody who is no part of it.
const LOOK: &str = "\
select exists (select from fhir.resource where resource_type = $1 and id = $2),
       (select id from fhir.resource
         where resource_type = 'Patient' and content::text !~ '\"HTEST\"' limit 1)";

/// Loads a population unless one is there; the summary of what was loaded. What an interrupted run left is completed.
///
/// # Errors
///
/// [`Unfit`] if there are patients that are not test data; otherwise if the database fails.
pub async fn populate(database: &Database, patients: u32, seed: u64) -> anyhow::Result<Option<String>> {
    let client = database.connect(pg::Session::Simulate).await?;
    let (resource_type, id) = COMPLETE;
    let row = client.query_one(LOOK, &[&resource_type, &id]).await.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => load::NoTable.into(),
        _ => anyhow::Error::new(error).context("cannot read fhir.resource"),
    })?;
    if let Some(stranger) = row.try_get(1)? {
        return Err(Unfit::NotOurs(stranger).into());
    }
    if row.try_get(0)? {
        return Ok(None);
    }
    drop(client);
    // Through a file: the loader knows then how much there is to load. Only we may read it.
    let file = tokio::task::spawn_blocking(move || {
        let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        write(&Population::new(seed, patients, today()), file.as_file())
            .with_context(|| format!("cannot write {}", file.path().display()))?;
        anyhow::Ok(file)
    })
    .await
    .context("a blocking task failed")??;
    load::load_file(file.path(), database).await.map(Some)
}
