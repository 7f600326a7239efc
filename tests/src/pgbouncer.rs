//! Debian's pgbouncer in front of a cluster.

use crate::postgres::create_owned;
use crate::process::Process;
use crate::{Cluster, Context, SOON, until};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use std::path::PathBuf;
use std::process::Command;

const PORT: u16 = 6432;

/// A pooler that listens on a socket in the test's folder.
pub struct Pgbouncer {
    folder: PathBuf,
    _process: Process,
}

impl Pgbouncer {
    /// Why it cannot be used here, if it cannot.
    pub fn missing() -> Option<String> {
        program().is_none().then(|| "pgbouncer is not installed".to_owned())
    }

    /// Starts it: `settings` are lines of its section `[pgbouncer]`.
    pub async fn start(context: &Context, name: &str, cluster: &Cluster, settings: &[&str]) -> Result<Self> {
        let folder = context.directory().join(name);
        create_owned(&folder)?;
        let socket = cluster.socket();
        let servers = socket.parent().context("a socket without a folder")?;
        let users = folder.join("users");
        std::fs::write(&users, "\"postgres\" \"\"\n\"fhir_tail\" \"\"\n")?;
        let configuration = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\nunix_socket_dir = {}\n\
             auth_type = trust\nauth_file = {}\n{}\n",
            servers.display(),
            folder.display(),
            users.display(),
            settings.join("\n"),
        );
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(program().context("no pgbouncer")?);
        if geteuid().is_root() {
            let user = ["postgres", "nobody"]
                .into_iter()
                .find(|name| User::from_name(name).is_ok_and(|user| user.is_some()));
            command.args(["-u", user.context("no user to run as")?]);
        }
        command.arg(&configuration);
        let log = context.directory().join(format!("{name}.log"));
        let mut process = Process::start("pgbouncer", Signal::SIGINT, &mut command, None, &log)?;
        let listens = folder.join(format!(".s.PGSQL.{PORT}"));
        until("pgbouncer to listen", SOON, || {
            let alive = process.must_run();
            let listening = std::os::unix::net::UnixStream::connect(&listens).is_ok();
            async move {
                alive?;
                Ok(listening.then_some(()))
            }
        })
        .await?;
        Ok(Self { folder, _process: process })
    }

    /// How to connect through it.
    pub fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@/fhir?host={}&port={PORT}", self.folder.display())
    }
}

/// Debian puts it where only root looks for programs.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|file| file.is_file())
}
