//! `fhir-tail demo`: the service on a Postgres of its own, with sample data and a clinic at work. It is
//! [`serve`](crate::serve) with a little more; what is here is only that.

mod fresh;

use crate::output::say;
use crate::settings::ServeOptions;
use crate::simulate::{self, ClinicOptions};
use pg::Database;
use std::net::SocketAddr;
use std::path::Path;

pub(crate) use fresh::begin_anew;

/// What the demonstration shows.
#[derive(clap::Args)]
pub(crate) struct DemoCommand {
    /// Throw the data of the last demo away and begin anew
    #[arg(long)]
    pub(crate) fresh: bool,

    #[command(flatten)]
    pub(crate) clinic: ClinicOptions,

    #[command(flatten)]
    pub(crate) options: ServeOptions,
}

/// What a demonstration adds to the service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demonstration {
    pub(crate) fresh: bool,
    pub(crate) clinic: ClinicOptions,
}

/// More than the options say.
pub(crate) const DEMO_HELP: &str = "\
It always runs a Postgres of its own, in the folder demo of the data directory, and goes on with the data of \
the last time.

Examples:
  fhir-tail demo
  fhir-tail demo --fresh --patients 2000 --rate 50
  fhir-tail demo --listen 127.0.0.1:8081";

/// Loads the sample population, unless the last demo did.
pub(crate) async fn populate(database: &Database, clinic: ClinicOptions) -> anyhow::Result<()> {
    let loaded = simulate::populate(database, clinic.patients, clinic.seed).await?;
    match loaded {
        Some(summary) => say(format_args!("{summary}")),
        None => say(format_args!("going on with the data of the last demo; --fresh begins anew")),
    }
    Ok(())
}

/// Says where to look.
pub(crate) fn announce(addresses: &[SocketAddr], psql: &str, data_dir: &Path) {
    say(format_args!("The clinic is open. Watch it:\n"));
    for address in addresses {
        say(format_args!("  page:  http://{address}/"));
        say(format_args!(
            "  curl:  curl -N -H 'Prefer: respond-eventsource' 'http://{address}/fhir/$export?_type=DetectedIssue'"
        ));
    }
    say(format_args!("  psql:  psql '{psql}'"));
    say(format_args!("\nCtrl-C ends it. The data stays in {}.", data_dir.display()));
}
