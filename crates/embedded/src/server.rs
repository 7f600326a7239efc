//! The server process: made ready, started, watched and stopped.

use crate::account;
use crate::account::Account;
use crate::binaries::Binaries;
use crate::left_over::{self, probe};
use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How often a server that starts is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long a server may say nothing at all. One that recovers says so, and is waited for.
const SILENT_AT_MOST: Duration = Duration::from_secs(60);
/// How long each way of stopping may take.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// How often another port is tried.
const ATTEMPTS: usize = 5;

/// What a server is started with.
pub(super) struct Plan<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) account: Option<&'a Account>,
    /// Its data directory.
    pub(super) cluster: &'a Path,
    pub(super) socket: &'a Path,
    pub(super) log: &'a Path,
    /// The port to try first.
    pub(super) port: Option<u16>,
}

/// A running server. Dropped without [`stop`](Self::stop), it is told to stop and not waited for.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

/// Makes the cluster if there is none. In a directory beside it that is then renamed: a cluster is
/// whole or not there, whenever we are killed.
pub(super) async fn make_cluster(
    binaries: &Binaries,
    account: Option<&Account>,
    cluster: &Path,
) -> anyhow::Result<()> {
    if cluster.exists() {
        return Ok(());
    }
    let unfinished = cluster.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)
            .with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    tracing::info!(version = binaries.major, "making a Postgres cluster");
    let mut command = account::command(&binaries.directory.join("initdb"), account);
    command
        .args(["--encoding=UTF8", "--locale=C", "--username=postgres"])
        // The socket's directory admits one user alone; TCP on this machine admits everyone.
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg("--pgdata")
        .arg(&unfinished)
        .current_dir(cluster.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::null());
    let output = Command::from(command).output().await.context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    std::fs::rename(&unfinished, cluster).with_context(|| format!("cannot name {}", cluster.display()))
}

/// The version that made the cluster.
pub(super) fn cluster_major(cluster: &Path) -> anyhow::Result<Option<u32>> {
    if !cluster.exists() {
        return Ok(None);
    }
    let file = cluster.join("PG_VERSION");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let major = text.trim().parse().with_context(|| format!("{} holds no version", file.display()))?;
    Ok(Some(major))
}

impl Server {
    /// Starts a server on the cluster and waits until it takes connections.
    pub(super) async fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let mut port = plan.port;
        for _ in 0..ATTEMPTS {
            left_over::stop(plan.cluster, plan.binaries, plan.account).await?;
            // The same as last time, so that what people noted down goes on working.
            let this = match port.take().filter(|port| is_free(*port)) {
                Some(port) => port,
                None => free_port()?,
            };
            let mut server = Self { child: plan.spawn(this)?, port: this };
            let Some(status) = server.accepts(plan.socket).await? else { return Ok(server) };
            // Between our look and its start somebody may have taken the port, or an earlier server of this
            // cluster may only have shown up. Any other failure would come again.
            if is_free(this) && !left_over::runs(plan.cluster).await {
                bail!("Postgres ended with {status} while starting; it said:\n{}", tail(plan.log));
            }
        }
        bail!("Postgres does not start after {ATTEMPTS} attempts; it said:\n{}", tail(plan.log))
    }

    /// Waits until it takes connections; or gives the status with which it ended.
    async fn accepts(&mut self, socket: &Path) -> anyhow::Result<Option<ExitStatus>> {
        let mut heard = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            match timeout(SILENT_AT_MOST, probe(socket, self.port)).await {
                Ok(Ok(())) => return Ok(None),
                // "The database system is starting up" is an answer.
                Ok(Err(error)) if error.as_db_error().is_some() => heard = Instant::now(),
                Ok(Err(_)) | Err(_) => {}
            }
            if heard.elapsed() > SILENT_AT_MOST {
                bail!("Postgres was started and does not answer at its socket in {}", socket.display());
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Resolves when the server has ended by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Stops the server: sessions are ended, the cluster is left clean.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGKILL] {
            self.signal(signal);
            if let Ok(status) = timeout(STOP_WITHIN, self.child.wait()).await {
                status?;
                return Ok(());
            }
            tracing::warn!(signal = signal.as_str(), "Postgres does not stop");
        }
        bail!("Postgres cannot be stopped")
    }

    fn signal(&self, signal: Signal) {
        // `id` is there until the child was waited for: the number is not anybody else's.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended in this moment, which is what was wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

impl Plan<'_> {
    fn spawn(&self, port: u16) -> anyhow::Result<Child> {
        let log = open_log(self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = account::command(&self.binaries.directory.join("postgres"), self.account);
        command.arg("-D").arg(self.cluster);
        for setting in [
            format!("port={port}"),
            format!("unix_socket_directories={}", quoted(self.socket)),
            "unix_socket_permissions=0700".to_owned(),
            "listen_addresses=127.0.0.1".to_owned(),
            "wal_level=logical".to_owned(),
            "max_wal_senders=10".to_owned(),
            "max_replication_slots=10".to_owned(),
            // Its messages go to its standard error, which is our file; and no value of a row into it.
            "log_destination=stderr".to_owned(),
            "logging_collector=off".to_owned(),
            "log_error_verbosity=terse".to_owned(),
            "log_min_error_statement=panic".to_owned(),
            "log_statement=none".to_owned(),
            "log_parameter_max_length_on_error=0".to_owned(),
        ] {
            command.args(["-c", &setting]);
        }
        command.current_dir(self.cluster).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Command::from(command).spawn().context("cannot run postgres")
    }
}

/// The setting is a list, where commas separate and quotes hold together.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('"', "\"\""))
}

/// A new file for each start; the one before is kept.
fn open_log(path: &Path) -> std::io::Result<std::fs::File> {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    if path.exists() {
        std::fs::rename(path, PathBuf::from(before))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The end of what the server said: enough to see why it did not start.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(8);
    lines.iter().skip(from).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that nobody has at this moment.
fn free_port() -> anyhow::Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
