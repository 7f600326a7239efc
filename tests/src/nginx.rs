//! Debian's nginx in front of the service: it answers 502 while the service is away.

use crate::process::Process;
use crate::{Context, Proxy, SOON, Target, until};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// nginx on a free port: it listens on a socket in the test's folder, and a [`Proxy`] joins that to a port.
pub struct Nginx {
    proxy: Proxy,
    _process: Process,
}

impl Nginx {
    /// Why it cannot be used here, if it cannot.
    pub fn missing() -> Option<String> {
        program().is_none().then(|| "nginx is not installed".to_owned())
    }

    /// Starts it in front of an address.
    pub async fn start(context: &Context, behind: SocketAddr) -> Result<Self> {
        Self::start_with(context, behind, "", "").await
    }

    /// As [`start`](Self::start), with more lines in its configuration: in `http`, and in `location`.
    pub async fn start_with(
        context: &Context,
        behind: SocketAddr,
        http: &str,
        location: &str,
    ) -> Result<Self> {
        let folder = context.directory().join("nginx");
        std::fs::create_dir(&folder)?;
        let socket = folder.join("socket");
        let configuration = folder.join("nginx.conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
            .concat();
        let text = format!(
            "daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{http}server {{\nlisten unix:{socket};\nlocation / {{\n\
             proxy_pass http://{behind};\nproxy_http_version 1.1;\nproxy_set_header Host $http_host;\n\
             proxy_read_timeout 1h;\n{location}}}\n}}\n}}\n",
            folder = folder.display(),
            socket = socket.display(),
        );
        std::fs::write(&configuration, text)?;
        let mut command = Command::new(program().context("no nginx")?);
        command.arg("-p").arg(&folder).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let log = context.directory().join("nginx.log");
        let mut process = Process::start("nginx", Signal::SIGTERM, &mut command, None, &log)?;
        until("nginx to listen", SOON, || {
            let alive = process.must_run();
            // The socket is there a moment before anybody listens at it.
            let listening = std::os::unix::net::UnixStream::connect(&socket).is_ok();
            async move {
                alive?;
                Ok(listening.then_some(()))
            }
        })
        .await?;
        Ok(Self { proxy: Proxy::start(Target::Unix(socket)).await?, _process: process })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }
}

/// Debian puts it where only root looks for programs.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("nginx")).find(|file| file.is_file())
}
