//! nginx with the module nchan (Debian: `libnginx-mod-nchan`), which is what one would put between a program that
//! knows of changes and browsers that listen.

use crate::{client, clock, output};
use anyhow::{Context as _, Result, ensure};
use bench::documents;
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tests::{Process, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A running nginx, stopped when this is dropped.
pub(crate) struct Nchan {
    _process: Process,
    address: SocketAddr,
}

const MODULES: [&str; 4] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/local/lib/nginx/modules",
    "/etc/nginx/modules",
];

fn found() -> Option<(PathBuf, PathBuf)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let nginx = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("nginx"))
        .find(|program| program.is_file())?;
    let module = MODULES.iter().map(|folder| Path::new(folder).join("ngx_nchan_module.so"));
    Some((nginx, module.into_iter().find(|module| module.is_file())?))
}

impl Nchan {
    /// Starts it in a folder of its own; `None`, and loudly, where it is not installed.
    pub(crate) async fn start(folder: &Path) -> Result<Option<Self>> {
        let Some((nginx, module)) = found() else {
            output::say(
                "SKIPPED: nchan is not installed, so nothing is compared with it (Debian: apt-get install libnginx-mod-nchan)",
            );
            return Ok(None);
        };
        std::fs::create_dir_all(folder)?;
        // Free at this moment, and nobody else on this machine looks for one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let configuration = folder.join("nginx.conf");
        std::fs::write(&configuration, written(folder, &module, address))?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder).arg("-c").arg(&configuration).arg("-e").arg(folder.join("error.log"));
        let log = folder.join("nginx.log");
        let mut process = Process::start("nginx", Signal::SIGTERM, &mut command, None, &log)?;
        until("nginx to listen", Duration::from_secs(30), || {
            let alive = process.must_run();
            async move {
                alive?;
                Ok(TcpStream::connect(address).await.ok())
            }
        })
        .await?;
        Ok(Some(Self { _process: process, address }))
    }

    /// A crowd of so many.
    pub(crate) async fn crowd(&self, streams: usize) -> Result<client::Crowd> {
        let spec = client::Spec {
            address: self.address,
            requests: vec![(client::get(self.address, "/subscribe", ""), streams)],
            ready: client::Ready::Greeted,
            record: None,
        };
        Ok(client::Crowd::start(spec).await?.0)
    }

    /// Publishes so many messages, all requests at once on one connection; when it began.
    pub(crate) async fn publish(&self, messages: u64) -> Result<i64> {
        let mut requests = String::new();
        for number in 0..messages {
            let frame = documents::frame(number);
            let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
            write!(
                requests,
                "POST /publish HTTP/1.1\r\nHost: {}\r\nX-EventSource-Event: {}\r\nContent-Length: {}\r\n\r\n{data}",
                self.address,
                documents::TYPE,
                data.len(),
            )?;
        }
        let mut socket = TcpStream::connect(self.address).await?;
        let began = clock::now();
        let (mut answers, mut ask) = socket.split();
        let asked = async {
            ask.write_all(requests.as_bytes()).await?;
            anyhow::Ok(())
        };
        let answered = async {
            let (mut count, mut bytes, mut buffer) = (0, Vec::new(), vec![0; 64 << 10]);
            while count < messages {
                let read = answers.read(&mut buffer).await?;
                ensure!(read > 0, "nginx closed the connection after {count} of {messages} messages");
                bytes.extend_from_slice(&buffer[..read]);
                let mut done = 0;
                while let Some(end) = memchr::memmem::find(&bytes[done..], b"HTTP/1.1 ") {
                    let status = bytes.get(done + end + 9..done + end + 12);
                    let Some(status) = status else { break };
                    ensure!(matches!(status, b"201" | b"202"), "nginx refused a message");
                    count += 1;
                    done += end + 12;
                }
                bytes.drain(..done);
            }
            anyhow::Ok(())
        };
        tokio::try_join!(asked, answered).context("cannot publish through nginx")?;
        Ok(began)
    }
}

fn written(folder: &Path, module: &Path, address: SocketAddr) -> String {
    let (folder, module) = (folder.display(), module.display());
    // Only root can become another user, and nothing here needs one.
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}load_module {module};\ndaemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\n\
         worker_rlimit_nofile 65536;\nevents {{ worker_connections 32768; }}\n\
         http {{\n access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n \
         fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};\n \
         client_body_buffer_size 64k; keepalive_requests 1000000; nchan_shared_memory_size 256m;\n \
         server {{\n  listen {address} backlog=4096;\n  \
         location = /subscribe {{ nchan_subscriber eventsource; nchan_channel_id bench;\n   \
         nchan_subscriber_first_message newest; }}\n  \
         location = /publish {{ nchan_publisher; nchan_channel_id bench;\n   nchan_message_buffer_length 10000; \
         nchan_message_timeout 5m; }}\n }}\n}}\n"
    )
}
