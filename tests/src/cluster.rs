//! A Postgres cluster of a test's own.

use crate::postgres::{copy_cluster, create_owned};
use crate::process::Process;
use crate::run::WAL_SEGMENT;
use crate::{Clock, Context, Postgres, until};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls};

/// What every test wants; without fsync, as only processes are killed here, never the machine.
const SETTINGS: &[&str] = &[
    "wal_level = logical",
    "fsync = off",
    "listen_addresses = ''",
    "shared_buffers = 32MB",
    "max_wal_size = 4GB",
    "max_connections = 60",
    "max_prepared_transactions = 10",
    "logging_collector = off",
    "log_min_messages = warning",
    "autovacuum_naptime = 5s",
];

/// A cluster, which is stopped when this is dropped. It listens on a Unix socket in its own folder: two tests
/// cannot take each other's port.
pub struct Cluster {
    postgres: Postgres,
    data: PathBuf,
    socket: PathBuf,
    port: u16,
    log: PathBuf,
    clock: Option<Clock>,
    process: Option<Process>,
}

impl Cluster {
    /// Copies the template and starts it, with more settings (lines of `postgresql.conf`).
    pub async fn start(context: &Context, settings: &[&str]) -> Result<Self> {
        Self::start_with_clock(context, settings, None).await
    }

    /// As [`start`](Self::start), with a clock of its own.
    pub async fn start_with_clock(
        context: &Context,
        settings: &[&str],
        clock: Option<Clock>,
    ) -> Result<Self> {
        Self::copy_of(context.template(), context, settings, clock).await
    }

    /// As [`start`](Self::start), but no copy of what the others are copies of: it has an identifier of its own.
    pub async fn initialised(context: &Context, settings: &[&str]) -> Result<Self> {
        let template = context.directory().join("template");
        create_owned(&template)?;
        context.postgres().initialise(&template.join("data"), WAL_SEGMENT)?;
        Self::copy_of(&template.join("data"), context, settings, None).await
    }

    async fn copy_of(
        template: &Path,
        context: &Context,
        settings: &[&str],
        clock: Option<Clock>,
    ) -> Result<Self> {
        let home = context.directory().join("postgres");
        create_owned(&home)?;
        let data = home.join("data");
        copy_cluster(template, &data)?;
        let lines = SETTINGS.iter().chain(settings).fold(String::new(), |lines, line| lines + line + "\n");
        let socket = format!("unix_socket_directories = '{}'\n", home.display());
        let conf = data.join("postgresql.conf");
        let before = std::fs::read_to_string(&conf)?;
        std::fs::write(&conf, before + &lines + &socket)?;
        let port =
            settings.iter().find_map(|line| line.strip_prefix("port = ")).map_or(Ok(5432), str::parse)?;
        let log = context.directory().join("postgres.log");
        let postgres = context.postgres().clone();
        let mut cluster = Self { postgres, data, socket: home, port, log, clock, process: None };
        cluster.start_again().await?;
        Ok(cluster)
    }

    /// Starts it after it was stopped, and waits until it takes connections.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the cluster is running");
        let mut command = self.postgres.command("postgres");
        command.arg("-D").arg(&self.data);
        command.envs(self.clock.iter().flat_map(Clock::environment));
        let mut process = Process::start("postgres", Signal::SIGQUIT, &mut command, None, &self.log)?;
        let config = self.config("postgres");
        until("postgres to take connections", Duration::from_secs(60), || {
            let alive = process.must_run();
            let config = config.clone();
            async move {
                alive?;
                Ok(connect(&config).await.ok())
            }
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    /// A copy of its data as it stands, in a folder next to it; it is stopped for that.
    pub async fn copy(&mut self, name: &str) -> Result<()> {
        self.stop_fast().await?;
        copy_cluster(&self.data, &self.socket.join(name))?;
        self.start_again().await
    }

    /// As [`copy`](Self::copy), but as a snapshot of a running machine has it: nobody is asked to stop.
    pub async fn snapshot(&mut self, name: &str) -> Result<()> {
        self.stop_immediate().await?;
        copy_cluster(&self.data, &self.socket.join(name))?;
        self.start_again().await
    }

    /// As `pg_basebackup` makes it of the running cluster: without its replication slots.
    pub fn base_backup(&self, name: &str) -> Result<()> {
        let mut backup = self.postgres.command("pg_basebackup");
        backup.args([
            "--username=postgres",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
            "--host",
        ]);
        let output = backup.arg(&self.socket).arg("--pgdata").arg(self.socket.join(name)).output()?;
        ensure!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A copy takes the place of its data. It is stopped, and not started again.
    pub async fn become_copy(&mut self, name: &str) -> Result<()> {
        self.stop_fast().await?;
        std::fs::remove_dir_all(&self.data)?;
        std::fs::rename(self.socket.join(name), &self.data).with_context(|| format!("no copy {name}"))
    }

    /// A copy takes the place of its data as a standby that is promoted at once.
    pub async fn fail_over_to(&mut self, name: &str) -> Result<()> {
        self.become_copy(name).await?;
        self.promote().await
    }

    /// It crashes, and a copy that is promoted takes its place. Its data is kept under another name.
    pub async fn crash_and_fail_over_to(&mut self, name: &str, kept: &str) -> Result<()> {
        self.stop_immediate().await?;
        std::fs::rename(&self.data, self.socket.join(kept))?;
        std::fs::rename(self.socket.join(name), &self.data).with_context(|| format!("no copy {name}"))?;
        self.promote().await
    }

    /// Data that was kept at a fail-over is rewound to the history since, as `pg_rewind` does it, takes its place again,
    /// and is promoted.
    pub async fn fail_back_to(&mut self, kept: &str) -> Result<()> {
        self.stop_fast().await?;
        let kept = self.socket.join(kept);
        let mut rewind = self.postgres.command("pg_rewind");
        rewind.arg("--no-sync").arg("--target-pgdata").arg(&kept).arg("--source-pgdata").arg(&self.data);
        let output = rewind.output()?;
        ensure!(output.status.success(), "pg_rewind: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(&self.data)?;
        std::fs::rename(kept, &self.data)?;
        self.promote().await
    }

    /// Starts it as a standby and promotes it at once.
    async fn promote(&mut self) -> Result<()> {
        std::fs::write(self.data.join("standby.signal"), "")?;
        self.start_again().await?;
        let sql = self.connect().await?;
        let promoted: bool = sql.query_one("select pg_promote()", &[]).await?.try_get(0)?;
        ensure!(promoted, "the standby was not promoted");
        Ok(())
    }

    /// A synchronous standby by the name `standby`, as far as commits wait for it: it receives the log and says what it has on disk.
    /// It is away when this is dropped.
    pub fn receiver(&self, log: &str) -> Result<Process> {
        let received = self.socket.join(log);
        create_owned(&received)?;
        let mut receiver = self.postgres.command("pg_receivewal");
        receiver.args(["--synchronous", "--no-loop", "--no-password", "--directory"]).arg(&received);
        let conninfo = format!(
            "host={} port={} user=postgres application_name=standby",
            self.socket.display(),
            self.port
        );
        receiver.arg("--dbname").arg(conninfo);
        Process::start("pg_receivewal", Signal::SIGKILL, &mut receiver, None, &self.log)
    }

    /// Stops it as `pg_ctl stop -m fast` does: sessions are ended, and walsenders may send what there is.
    pub async fn stop_fast(&mut self) -> Result<()> {
        self.stop(Signal::SIGINT).await
    }

    /// Stops it as `pg_ctl stop -m immediate` does: a crash, but for its children.
    pub async fn stop_immediate(&mut self) -> Result<()> {
        self.stop(Signal::SIGQUIT).await
    }

    async fn stop(&mut self, signal: Signal) -> Result<()> {
        let mut process = self.process.take().context("the cluster is not running")?;
        process.signal(signal)?;
        process.exited(Duration::from_secs(60)).await?;
        Ok(())
    }

    /// How to connect, for `tokio_postgres`.
    pub fn config(&self, user: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket).port(self.port).user(user).dbname("fhir").application_name("test");
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    /// How to connect, for the command line.
    pub fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@/fhir?host={}&port={}", self.socket.display(), self.port)
    }

    /// The same over TCP, where the settings have `port` and `listen_addresses`.
    pub fn tcp_url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/fhir", self.port)
    }

    /// A connection as the superuser, in UTC.
    pub async fn connect(&self) -> Result<Client> {
        connect(&self.config("postgres")).await
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The folder of its data.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

/// Connects, and leaves the connection to a task that ends with it.
pub(crate) async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await?;
    // Its end shows in the client's next answer.
    tokio::spawn(async move { connection.await.ok() });
    client.batch_execute("set timezone = 'UTC'").await?;
    Ok(client)
}
