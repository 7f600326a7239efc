//! `fhir-tail demo`: [`serve`](crate::serve) on the embedded Postgres, with sample data and a clinic at work; `simulate`
//! and `sample`, which have one of these each. A build without the feature `demo` has `without_demo.rs` instead.

mod fresh;
mod sample;
mod simulate;

use crate::data_dir::DataDir;
use crate::output::say;
use crate::settings::ServeOptions;
use ::embedded::Search;
use pg::Database;
use std::net::SocketAddr;
use std::path::Path;
use tokio_util::sync::CancellationToken;

pub(crate) use self::sample::{SAMPLE_HELP, SampleOptions, run as sample};
pub(crate) use self::simulate::{ClinicOptions, SIMULATE_HELP, run as simulate};
pub(crate) use ::embedded;

/// What the demonstration shows.
#[derive(clap::Args)]
pub(crate) struct DemoCommand {
    /// Delete the data of the last demo and start over
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
    fresh: bool,
    clinic: ClinicOptions,
}

impl DemoCommand {
    /// The service's own options, and the rest.
    pub(crate) fn split(self) -> anyhow::Result<(ServeOptions, Demonstration)> {
        Ok((self.options, Demonstration { fresh: self.fresh, clinic: self.clinic }))
    }
}

impl Demonstration {
    /// Before Postgres is started: removes what the last demo left, if that was asked for.
    pub(crate) async fn prepare(&self, data_dir: &DataDir, search: &Search) -> anyhow::Result<()> {
        if self.fresh { fresh::remove_data(data_dir, search).await } else { Ok(()) }
    }

    /// Loads the sample population, unless the last demo did.
    pub(crate) async fn populate(&self, database: &Database) -> anyhow::Result<()> {
        match demo::populate(database, self.clinic.patients, self.clinic.seed).await? {
            Some(summary) => say(format_args!("{summary}")),
            None => say(format_args!("using the data of the last demo; --fresh starts over")),
        }
        Ok(())
    }

    /// Runs the clinic until `stop`.
    pub(crate) async fn work(self, database: Database, stop: CancellationToken) -> anyhow::Result<()> {
        demo::work(database, self.clinic.into(), stop).await
    }

    /// Says where to look.
    pub(crate) fn announce(&self, addresses: &[SocketAddr], psql: &str, data_dir: &Path) {
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
}

/// More than the options say.
pub(crate) const DEMO_HELP: &str = "\
It always runs the embedded Postgres, in the folder demo of the data directory, and continues with the data of \
the last demo.

Examples:
  fhir-tail demo
  fhir-tail demo --fresh --patients 2000 --rate 50
  fhir-tail demo --listen 127.0.0.1:8081";
