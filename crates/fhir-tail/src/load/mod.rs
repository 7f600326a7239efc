//! `fhir-tail load`: NDJSON and Bundles into the native layout.
//!
//! ```text
//! file, gzip, stdin → Documents (one JSON value each) → Reader (puts and deletes) → Batches → Writer → fhir.resource
//! ```
//!
//! Reading is a blocking task of its own, so that it goes on while the database writes. Nothing is ever
//! held whole but one resource: a Bundle of a gigabyte passes through an unnamed temporary file. No
//! message shows content: places in the input, and what is wrong there.

mod batch;
mod bundle;
mod document;
mod input;
mod lane;
mod narrative;
mod progress;
mod reader;
mod references;
mod report;
mod resource;
mod writer;

#[cfg(test)]
mod tests;

use crate::migrate;
use crate::output::say;
use crate::place::Place;
use crate::settings::Settings;
use anyhow::{Context as _, bail};
use input::Inputs;
pub(crate) use lane::NoTable;
use pg::{Database, Session};
use report::Report;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many batches may wait for the database.
const WAITING: usize = 4;

/// How many batches are written at once. One more than has been seen to be of use to Postgres: one waits for its
/// commit.
const CONNECTIONS: usize = 3;

/// What to load.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LoadOptions {
    /// Files of NDJSON or Bundles, plain or gzipped; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Keep what is good when something is bad; each bad resource is reported all the same
    #[arg(long)]
    pub(crate) keep_going: bool,
}

/// More than the options say.
pub(crate) const LOAD_HELP: &str = "\
What a file may hold: resources, one after the other, one a line (NDJSON) or spread over lines; and \
Bundles of type transaction, batch, collection or searchset, whose entries are loaded. A Bundle of type \
document or message is a resource itself.

A resource with an id that exists already is updated. In a Bundle, an entry without an id takes that of \
its PUT, else X of its fullUrl urn:uuid:X or urn:oid:X, and links to that URL follow: references, elements of \
type uri, url, oid and uuid, and <a href> and <img src> in narratives; texts, codes and canonicals stay. A \
DELETE entry deletes. Refused are a request or a fullUrl that names another resource than the entry has, one \
fullUrl twice, and in a transaction one resource twice. \
Conditions (ifNoneExist, references such as Practitioner?identifier=…) are not evaluated: they are \
kept as they are written.

A thousand resources make one transaction; a transaction Bundle is never split. What is larger than \
64 MiB passes through a file without a name in the folder for temporary files (TMPDIR).

Examples:
  fhir-tail load patients.ndjson observations.ndjson.gz
  curl -s https://example.org/bundle.json | fhir-tail load -";

/// Loads, and says what was loaded. Otherwise an error that says how much was.
pub(crate) async fn run(settings: &Settings, options: LoadOptions) -> anyhow::Result<()> {
    // Before a Postgres is started: a wrong name is known at once.
    let inputs = Inputs::of(&options.files)?;
    let place = Place::of(settings).await?;
    let result = async {
        if place.is_ours_alone() {
            migrate::apply(&place.database).await?;
        }
        load_into(inputs, options.keep_going, &place.database).await
    };
    let result = result.await;
    let closed = place.close().await;
    say(format_args!("{}", result?));
    closed
}

/// Loads one file into a database that has the tables; the summary.
pub(crate) async fn load_file(path: &Path, database: &Database) -> anyhow::Result<String> {
    load_into(Inputs::of(&[path.to_owned()])?, false, database).await
}

/// Loads into a database that has the tables; the summary.
async fn load_into(inputs: Inputs, keep_going: bool, database: &Database) -> anyhow::Result<String> {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        clients.push(database.connect(Session::Load).await?);
    }
    let report = Arc::new(Report::new(progress::bar(inputs.total_bytes())));
    let result = load(inputs, keep_going, clients, &report).await;
    let (summary, bad) = (report.finish(), report.bad());
    result.with_context(|| format!("not everything was loaded ({summary})"))?;
    match bad {
        0 => Ok(summary),
        1.. if keep_going => bail!("what is bad ({bad}) was left out, all else was loaded ({summary})"),
        1.. => bail!(
            "stopped at what is bad ({summary}): nothing of its batch was kept and nothing after it was read. \
             Mend it and load again (what is there is updated), or leave it out with --keep-going"
        ),
    }
}

async fn load(
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
