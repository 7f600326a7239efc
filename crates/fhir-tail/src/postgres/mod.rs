//! A Postgres of our own, under the data directory: for those who only want to see fhir-tail run.
//!
//! Searched for ([`binaries`]), made once, started as a child and stopped with us ([`server`]). Read
//! [`Embedded::start`] first.

mod account;
mod binaries;
mod left_over;
mod reach;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use binaries::Search;
pub(crate) use reach::Reach;

use crate::data_dir::DataDir;
use anyhow::Context as _;
use pg::Database;
use reach::{ADMINISTRATOR, DATABASE};
use server::{Plan, Server};
use std::path::Path;
use tokio_postgres::{Client, Config, NoTls};

/// A running server with a database for us.
pub(crate) struct Embedded {
    server: Server,
    reach: Reach,
}

impl Embedded {
    /// Starts the cluster of this data directory, which is made if it is missing.
    pub(crate) async fn start(data_dir: &DataDir, search: &Search) -> anyhow::Result<Self> {
        let cluster = data_dir.path().join("postgres/data");
        let account = account::choose(&cluster)?;
        let account = account.as_ref();
        let postgres = data_dir.postgres(account)?;
        let binaries = search.find(account, server::cluster_major(&cluster)?)?;
        server::make_cluster(&binaries, account, &cluster).await?;

        let previous = Reach::load(data_dir.path())?;
        let before = previous.as_ref();
        let socket = socket::directory(
            &postgres,
            Path::new("/tmp"),
            before.map(|before| before.socket.as_path()),
            account,
        )?;
        let plan = Plan {
            binaries: &binaries,
            account,
            cluster: &cluster,
            socket: &socket,
            log: &data_dir.path().join("postgres.log"),
            port: before.map(|before| before.port),
        };
        let server = Server::start(&plan).await?;
        tracing::info!(version = binaries.major, port = server.port, "Postgres is running");
        let password = match before {
            Some(before) => before.password.clone(),
            None => reach::new_password()?,
        };
        let reach = Reach::new(socket, server.port, password);
        prepare(&reach).await.context("the embedded Postgres could not be prepared")?;
        reach.save(data_dir.path())?;
        Ok(Self { server, reach })
    }

    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The database as its superuser.
    pub(crate) fn administrator(&self) -> anyhow::Result<Database> {
        self.reach.database(ADMINISTRATOR)
    }

    /// The database as this role.
    pub(crate) fn as_role(&self, role: &str) -> anyhow::Result<Database> {
        self.reach.database(role)
    }

    /// Lets a role that the migrations made log in: through the socket, where no password is asked.
    pub(crate) async fn allow_login(&self, role: &str) -> anyhow::Result<()> {
        let client = self.administrator()?.connect("fhir-tail").await?;
        let quoted = role.replace('"', "\"\"");
        client.batch_execute(&format!("alter role \"{quoted}\" login")).await?;
        Ok(())
    }

    /// Resolves when the server has ended by itself, with an error that says so.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.server.ended().await {
            Ok(status) => anyhow::anyhow!("the embedded Postgres ended by itself with {status}"),
            Err(error) => error,
        }
    }

    /// Stops the server. Replication connections must have been closed: it would wait for them.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await
    }
}

/// How to reach the cluster of this directory if it runs at this moment, under another of our processes.
pub(crate) async fn running(directory: &Path) -> anyhow::Result<Option<Database>> {
    if !left_over::runs(&directory.join("postgres/data")).await {
        return Ok(None);
    }
    match Reach::load(directory)? {
        Some(reach) => Ok(Some(reach.database(ADMINISTRATOR)?)),
        None => Ok(None),
    }
}

/// The password over TCP, and the database.
async fn prepare(reach: &Reach) -> anyhow::Result<()> {
    let client = connect(reach, "postgres").await?;
    // Hexadecimal digits: nothing to quote. Every time, since the file may be newer than the cluster.
    client.batch_execute(&format!("alter role {ADMINISTRATOR} password '{}'", reach.password)).await?;
    let there = client.query_opt("select from pg_database where datname = $1", &[&DATABASE]).await?;
    if there.is_none() {
        client.batch_execute(&format!("create database {DATABASE} template template0")).await?;
    }
    Ok(())
}

/// As the superuser, through the socket. Its task ends with the client.
async fn connect(reach: &Reach, database: &str) -> anyhow::Result<Client> {
    let mut config = Config::new();
    config
        .host_path(&reach.socket)
        .port(reach.port)
        .user(ADMINISTRATOR)
        .dbname(database)
        .application_name("fhir-tail");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the embedded Postgres ended");
        }
    });
    Ok(client)
}
