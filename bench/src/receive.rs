//! `pg_recvlogical`, which comes with Postgres: what it costs to read the same log and do nothing with it.

use crate::{client, clock};
use anyhow::{Context as _, Result, ensure};
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use tests::{Cluster, Context};

/// Reads a slot up to a place in the log, into nothing; when it was there, on [`clock::of_day`].
pub(crate) async fn drain(context: &Context, url: &str, slot: &str, until: &str) -> Result<i64> {
    let mut command = command(context, url, slot);
    command.args(["--file", "/dev/null", "--endpos", until]);
    let output =
        tokio::process::Command::from(command).output().await.context("cannot run pg_recvlogical")?;
    ensure!(output.status.success(), "pg_recvlogical: {}", String::from_utf8_lossy(&output.stderr));
    Ok(clock::of_day())
}

/// One that goes on, and notes when which numbered event came.
pub(crate) struct Receiver {
    child: Child,
    came: mpsc::Receiver<(u32, i64)>,
}

impl Receiver {
    /// Starts it on a slot.
    pub(crate) fn start(context: &Context, cluster: &Cluster, slot: &str) -> Result<Self> {
        let mut command = command(context, &cluster.url("postgres"), slot);
        command.args(["--file", "-", "--fsync-interval", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run pg_recvlogical")?;
        let mut output = child.stdout.take().context("no standard output")?;
        let (send, came) = mpsc::channel();
        // Ends with the output.
        std::thread::Builder::new().name("receiver".into()).spawn(move || {
            let (mut buffer, mut rest) = (vec![0; 256 << 10], Vec::new());
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let now = clock::now();
                rest.extend_from_slice(&buffer[..count]);
                let done = client::numbers(&rest, |number| {
                    // Nobody listens any more when the harness ends.
                    let _ = send.send((number, now));
                });
                rest.drain(..done);
            }
        })?;
        Ok(Self { child, came })
    }

    /// What has come since the last time, `count` of them at least.
    pub(crate) fn take(&self, count: usize) -> Result<Vec<(u32, i64)>> {
        let limit = std::time::Duration::from_secs(60);
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.came.recv_timeout(limit).context("pg_recvlogical has ended, or is far behind")?);
        }
        Ok(all)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(context: &Context, url: &str, slot: &str) -> std::process::Command {
    let mut command = context.postgres().command("pg_recvlogical");
    command.arg("--dbname").arg(url).args(["--slot", slot, "--start", "--no-loop"]);
    command.args(["--option", "proto_version=1", "--option", "publication_names=fhir_tail"]);
    command
}
