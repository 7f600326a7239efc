//! `fhir-tail load`: flags over [`load`].

use crate::migrate;
use crate::output::say;
use crate::place::Place;
use crate::settings::Settings;
use load::Inputs;
use std::path::PathBuf;

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
        load::load(inputs, options.keep_going, &place.database).await
    };
    let result = result.await;
    let closed = place.close().await;
    say(format_args!("{}", result?));
    closed
}
