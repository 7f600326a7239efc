//! The database of a command that is not the service: `migrate`, `load`, `simulate`.

use crate::data_dir::DataDir;
use crate::demo::embedded::{self, Embedded, Search};
use crate::settings::Settings;
use pg::Database;

/// A database, and what is needed for as long as it is used.
pub(crate) struct Place {
    pub(crate) database: Database,
    /// Started for this command alone: the server, and the lock on its directory.
    started: Option<(Embedded, DataDir)>,
}

impl Place {
    /// The database that was named; else the embedded one that `serve` runs at this moment; else the
    /// embedded one, started for as long as the command takes.
    pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Self> {
        if let Some(database) = &settings.database {
            return Ok(Self { database: database.clone(), started: None });
        }
        if let Some(database) = embedded::running(&settings.data_dir).await? {
            return Ok(Self { database, started: None });
        }
        let data_dir = DataDir::open(&settings.data_dir)?;
        let embedded = Embedded::start(data_dir.path(), &search(settings)).await?;
        let database = embedded.administrator()?;
        Ok(Self { database, started: Some((embedded, data_dir)) })
    }

    /// Whether it is the embedded one, started for this command: then the command creates the tables.
    pub(crate) fn is_ours_alone(&self) -> bool {
        self.started.is_some()
    }

    /// Stops what was started.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.started {
            Some((embedded, _lock)) => embedded.stop().await,
            None => Ok(()),
        }
    }
}

/// Where to look for a Postgres.
pub(crate) fn search(settings: &Settings) -> Search {
    Search::of_this_machine(settings.postgres_bin.clone(), std::env::var_os("PATH").as_ref())
}
