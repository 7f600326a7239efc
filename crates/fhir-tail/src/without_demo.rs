//! In place of `demo` in a build without that feature: no embedded Postgres, no sample data, no clinic. Its commands are
//! there, and say so.

use crate::data_dir::DataDir;
use crate::settings::{ServeOptions, Settings};
use anyhow::bail;
use embedded::Search;
use pg::Database;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use tokio_util::sync::CancellationToken;

pub(crate) const DEMO_HELP: &str = NOT_BUILT_IN;
pub(crate) const SAMPLE_HELP: &str = NOT_BUILT_IN;
pub(crate) const SIMULATE_HELP: &str = NOT_BUILT_IN;

const NOT_BUILT_IN: &str = "This build of fhir-tail does not have this command (feature demo).";

/// The arguments of a command that is not built in.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct NotBuiltIn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    arguments: Vec<OsString>,
}

pub(crate) use NotBuiltIn as DemoCommand;
pub(crate) use NotBuiltIn as ClinicOptions;
pub(crate) use NotBuiltIn as SampleOptions;

impl NotBuiltIn {
    pub(crate) fn split(self) -> anyhow::Result<(ServeOptions, Demonstration)> {
        bail!("'demo' is not part of this build (feature demo): use 'serve' with a --database-url")
    }
}

pub(crate) fn sample(_: &SampleOptions) -> anyhow::Result<()> {
    bail!("'sample' is not part of this build (feature demo)")
}

pub(crate) async fn simulate(_: &Settings, _: ClinicOptions) -> anyhow::Result<()> {
    bail!("'simulate' is not part of this build (feature demo)")
}

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Demonstration {}

impl Demonstration {
    pub(crate) async fn prepare(&self, _: &DataDir, _: &Search) -> anyhow::Result<()> {
        match *self {}
    }

    pub(crate) async fn populate(&self, _: &Database) -> anyhow::Result<()> {
        match *self {}
    }

    pub(crate) async fn work(self, _: Database, _: CancellationToken) -> anyhow::Result<()> {
        match self {}
    }

    pub(crate) fn announce(&self, _: &[SocketAddr], _: &str, _: &Path) {
        match *self {}
    }
}

/// The embedded Postgres, which there is none of.
pub(crate) mod embedded {
    use anyhow::bail;
    use pg::Database;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    pub(crate) enum Embedded {}

    pub(crate) struct Search;

    impl Search {
        pub(crate) fn of_this_machine(_: Option<PathBuf>, _: Option<&OsString>) -> Self {
            Self
        }
    }

    impl Embedded {
        pub(crate) async fn start(_: &Path, _: &Search) -> anyhow::Result<Self> {
            bail!(
                "no database was named, and this build has no embedded Postgres (feature demo): give --database-url"
            )
        }

        pub(crate) fn reach(&self) -> &Reach {
            match *self {}
        }

        pub(crate) fn administrator(&self) -> anyhow::Result<Database> {
            match *self {}
        }

        pub(crate) fn as_role(&self, _: &str) -> anyhow::Result<Database> {
            match *self {}
        }

        pub(crate) async fn allow_login(&self, _: &str) -> anyhow::Result<()> {
            match *self {}
        }

        pub(crate) async fn ended(&mut self) -> anyhow::Error {
            match *self {}
        }

        pub(crate) async fn stop(self) -> anyhow::Result<()> {
            match self {}
        }
    }

    pub(crate) enum Reach {}

    impl Reach {
        pub(crate) fn psql_url(&self) -> String {
            match *self {}
        }
    }

    pub(crate) async fn running(_: &Path) -> anyhow::Result<Option<Database>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    #[tokio::test]
    async fn commands_that_are_not_built_in_say_so() {
        let parsed = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().command;
        let Command::Demo(demo) = parsed("fhir-tail demo --fresh --rate 50") else { panic!() };
        let Command::Sample(sampled) = parsed("fhir-tail sample --patients 3") else { panic!() };
        for refusal in [demo.split().err().unwrap(), sample(&sampled).unwrap_err()] {
            assert!(refusal.to_string().contains("not part of this build"), "{refusal}");
        }
        let refusal = embedded::Embedded::start(Path::new("x"), &Search).await.err().unwrap();
        assert!(refusal.to_string().contains("--database-url"), "{refusal}");
    }
}
