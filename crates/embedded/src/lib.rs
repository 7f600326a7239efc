//! A Postgres under the data directory, for trying fhir-tail without a database.
//!
//! It is searched for on this machine, made once, started as a child and stopped with the program. Read
//! [`Embedded::start`] first.

mod account;
mod binaries;
mod folder;
mod left_over;
mod reach;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use binaries::Search;
pub use reach::Reach;

use anyhow::Context as _;
use pg::Database;
use reach::{ADMINISTRATOR, DATABASE};
use server::{Plan, Server};
use std::path::Path;
use tokio_postgres::{Client, Config, NoTls};

/// A running server with a database for us.
pub struct Embedded {
    server: Server,
    reach: Reach,
}

impl Embedded {
    /// Starts the cluster in a folder, which exists and which the caller has locked. The cluster is made if it is missing.
    ///
    /// # Errors
    ///
    /// If there is no Postgres on this machine, or it cannot run here.
    pub async fn start(home: &Path, search: &Search) -> anyhow::Result<Self> {
        let cluster = home.join("postgres/data");
        let account = account::choose(&cluster)?;
        let account = account.as_ref();
        let postgres = folder::make(home, account)?;
        let binaries = search.find(account, server::cluster_major(&cluster)?)?;
        server::make_cluster(&binaries, account, &cluster).await?;

        let previous = Reach::load(home)?;
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
            log: &home.join("postgres.log"),
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
        reach.save(home)?;
        Ok(Self { server, reach })
    }

    /// How people and programs reach it.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The database as its superuser.
    ///
    /// # Errors
    ///
    /// If the path of its socket cannot be an address.
    pub fn administrator(&self) -> anyhow::Result<Database> {
        self.reach.database(ADMINISTRATOR)
    }

    /// The database as this role.
    ///
    /// # Errors
    ///
    /// If the path of its socket cannot be an address.
    pub fn as_role(&self, role: &str) -> anyhow::Result<Database> {
        self.reach.database(role)
    }

    /// Lets a role that the migrations made log in: through the socket, where no password is asked.
    ///
    /// # Errors
    ///
    /// If the server refuses.
    pub async fn allow_login(&self, role: &str) -> anyhow::Result<()> {
        let client = self.administrator()?.connect("fhir-tail").await?;
        let quoted = role.replace('"', "\"\"");
        client.batch_execute(&format!("alter role \"{quoted}\" login")).await?;
        Ok(())
    }

    /// Resolves when the server has ended by itself, with an error that says so.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.server.ended().await {
            Ok(status) => anyhow::anyhow!("the embedded Postgres ended by itself with {status}"),
            Err(error) => error,
        }
    }

    /// Stops the server. Replication connections must have been closed: it would wait for them.
    ///
    /// # Errors
    ///
    /// If it does not end, however firmly it is told.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await
    }
}

/// How to reach the cluster of this directory if it runs at this moment, under another of our processes.
///
/// # Errors
///
/// If the file that says how cannot be read.
pub async fn running(directory: &Path) -> anyhow::Result<Option<Database>> {
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
