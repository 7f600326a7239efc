//! NDJSON and Bundles into the native layout: what `fhir-tail load` does.
//!
//! ```text
//! file, gzip, stdin → Documents (one JSON value each) → Reader (puts and deletes) → Batches → Writer → fhir.resource
//! ```
//!
//! Reading is a separate blocking task, so that it continues while the database writes. No more than one
//! resource is held whole: a Bundle of a gigabyte passes through an unnamed temporary file. No
//! message shows content: places in the input, and what is wrong there.

mod batch;
mod bundle;
mod connection;
mod document;
mod input;
mod narrative;
mod progress;
mod reader;
mod references;
mod report;
mod resource;
mod writer;

#[cfg(test)]
mod tests;

use anyhow::{Context as _, bail};
pub use connection::NoTable;
pub use input::Inputs;
use pg::{Database, Session};
use report::Report;
use std::path::Path;
use std::sync::Arc;

/// How many batches may wait for the database.
const WAITING: usize = 4;

/// How many batches are written at once. One more than Postgres was seen to make use of: one waits for its commit.
const CONNECTIONS: usize = 3;

/// Loads one file into a database that has the tables, and returns a summary.
///
/// # Errors
///
/// As [`load`].
pub async fn load_file(path: &Path, database: &Database) -> anyhow::Result<String> {
    load(Inputs::of(&[path.to_owned()])?, false, database).await
}

/// Loads into a database that has the tables, and returns a summary. Progress and bad resources are shown on standard
/// error. `keep_going`: bad resources are left out; otherwise the load stops at the first of them.
///
/// # Errors
///
/// If there were bad resources, or the database failed: the text says how much was loaded. [`NoTable`] is the cause if
/// the database is not migrated.
pub async fn load(inputs: Inputs, keep_going: bool, database: &Database) -> anyhow::Result<String> {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(database.connect(Session::Load).await?);
    }
    let report = Arc::new(Report::new(progress::bar(inputs.total_bytes())));
    let result = write(inputs, keep_going, clients, &report).await;
    let (summary, bad) = (report.finish(), report.bad());
    result.with_context(|| format!("not everything was loaded ({summary})"))?;
    match bad {
        0 => Ok(summary),
        1.. if keep_going => bail!("what is bad ({bad}) was left out, all else was loaded ({summary})"),
        1.. => bail!(
            "stopped at what is bad ({summary}): nothing of its batch was kept and nothing after it was read. \
             Fix it and load again (existing resources are updated), or leave it out with --keep-going"
        ),
    }
}

async fn write(
    inputs: Inputs,
    keep_going: bool,
    clients: Vec<tokio_postgres::Client>,
    report: &Arc<Report>,
) -> anyhow::Result<()> {
    let (sender, receiver) = tokio::sync::mpsc::channel(WAITING);
    let reading = tokio::task::spawn_blocking({
        let report = Arc::clone(report);
        move || reader::read_all(inputs, keep_going, &report, batch::Batches::new(sender))
    });
    // The reader may wait for standard input: when the database has had enough it is not waited for.
    match writer::write_all(clients, receiver, keep_going, report).await? {
        writer::End::Stopped => Ok(()),
        writer::End::Complete => reading.await.context("the reader failed")?,
    }
}
