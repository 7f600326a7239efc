//! A server that our last run left behind: when we are killed, it goes on.
//!
//! It is stopped and started anew rather than adopted: then there is one way in which a server is
//! started, watched and stopped, and its settings are those of this run.

use crate::account;
use crate::account::Account;
use crate::binaries::Binaries;
use crate::reach::ADMINISTRATOR;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio_postgres::{Config, NoTls};

/// What a server wrote about itself into `postmaster.pid`.
#[derive(PartialEq, Eq, Debug)]
struct PidFile {
    pid: u32,
    port: Option<u16>,
    socket: Option<PathBuf>,
}

impl PidFile {
    /// The lines are written one after the other while the server starts: later ones may be missing.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().collect();
        let line = |index: usize| lines.get(index).map(|line| line.trim()).filter(|line| !line.is_empty());
        Some(Self {
            pid: line(0)?.parse().ok()?,
            port: line(3).and_then(|port| port.parse().ok()),
            socket: line(4).map(PathBuf::from),
        })
    }
}

/// Stops the server that runs on this cluster, if one does.
pub(super) async fn stop(
    cluster: &Path,
    binaries: &Binaries,
    account: Option<&Account>,
) -> anyhow::Result<()> {
    if !runs(cluster).await {
        return Ok(());
    }
    tracing::info!("a Postgres of an earlier run is still there: stopping it");
    // By pg_ctl and as its own user: a process id read from a file is not ours to trust as root.
    for mode in ["fast", "immediate"] {
        let mut command = account::command(&binaries.directory.join("pg_ctl"), account);
        command
            .args(["stop", "--silent", "--wait", "--timeout=30", "--mode", mode, "--pgdata"])
            .arg(cluster)
            .current_dir(cluster)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = tokio::process::Command::from(command).status().await.context("cannot run pg_ctl")?;
        if status.success() || !runs(cluster).await {
            return Ok(());
        }
    }
    bail!(
        "the Postgres that an earlier run left on {} does not stop: stop it and try again",
        cluster.display()
    )
}

/// Whether a server runs on this cluster. Its file alone proves nothing: after a crash of the machine its
/// process id may be anybody's.
pub(super) async fn runs(cluster: &Path) -> bool {
    let Some(file) =
        std::fs::read_to_string(cluster.join("postmaster.pid")).ok().and_then(|text| PidFile::parse(&text))
    else {
        return false;
    };
    works_in(file.pid, cluster) || answers(&file).await
}

/// Whether that process has the cluster as its working directory, as every server has. Only Linux tells.
fn works_in(pid: u32, cluster: &Path) -> bool {
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd"));
    directory.is_ok_and(|directory| cluster.canonicalize().is_ok_and(|cluster| cluster == directory))
}

/// Whether a server answers at the socket, be it with a refusal: the socket's directory is private, so
/// nobody else would.
async fn answers(file: &PidFile) -> bool {
    let (Some(port), Some(socket)) = (file.port, &file.socket) else { return false };
    match probe(socket, port).await {
        Ok(()) => true,
        Err(error) => error.as_db_error().is_some(),
    }
}

/// Connects, and hangs up.
pub(super) async fn probe(socket: &Path, port: u16) -> Result<(), tokio_postgres::Error> {
    let mut config = Config::new();
    config.host_path(socket).port(port).user(ADMINISTRATOR).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    drop(client);
    connection.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_as_far_as_it_is_written() {
        let whole = "42\n/data\n1700000000\n5433\n/tmp/s\n127.0.0.1\n  5433001  32768\nready   \n";
        let socket = Some(PathBuf::from("/tmp/s"));
        assert_eq!(PidFile::parse(whole), Some(PidFile { pid: 42, port: Some(5433), socket }));
        let half = "42\n/data\n1700000000\n5433\n\n";
        assert_eq!(PidFile::parse(half), Some(PidFile { pid: 42, port: Some(5433), socket: None }));
        assert_eq!(PidFile::parse("42\n"), Some(PidFile { pid: 42, port: None, socket: None }));
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("x\n"), None);
    }

    #[tokio::test]
    async fn a_stale_file_with_somebody_elses_process_is_no_server() {
        let cluster = tempfile::tempdir().unwrap();
        assert!(!runs(cluster.path()).await);
        let socket = cluster.path().display();
        let text = format!("{}\n{socket}\n1700000000\n5433\n{socket}\n", std::process::id());
        std::fs::write(cluster.path().join("postmaster.pid"), text).unwrap();
        assert!(!runs(cluster.path()).await);
    }
}
