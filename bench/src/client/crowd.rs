//! The harness' end of the client.

use super::{Counted, Spec, process};
use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// What asks for nothing of what was, only for what comes.
pub(crate) const LIVE_ONLY: &str = "_since=2999-01-01T00:00:00Z";

/// Nothing that is measured takes longer; then something is lost.
const LIMIT: Duration = Duration::from_secs(600);

/// A request for a stream; `headers` are whole lines.
pub(crate) fn get(address: SocketAddr, target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{headers}\r\n")
}

/// A crowd of subscribers, in a process of its own. It ends when this is dropped.
pub(crate) struct Crowd {
    spec: Spec,
    // Killed when it is dropped.
    _child: Child,
    tell: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// Starts it, and waits until all its streams have begun; what was read until then.
    pub(crate) async fn start(spec: Spec) -> Result<(Self, Counted)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("client").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the client")?;
        let tell = child.stdin.take().context("no standard input")?;
        let hear = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let line = serde_json::to_string(&spec)?;
        let mut crowd = Self { spec, _child: child, tell, hear };
        crowd.tell(&line).await?;
        let ready = crowd.hear().await?;
        Ok((crowd, ready))
    }

    /// Has it count so many frames, from now on.
    pub(crate) async fn count(&mut self, frames: u64) -> Result<()> {
        self.tell(&frames.to_string()).await?;
        let counting: String = self.hear().await?;
        ensure!(counting == "counting", "the client said: {counting}");
        Ok(())
    }

    /// What it counted, when it has.
    pub(crate) async fn counted(&mut self) -> Result<Counted> {
        self.hear().await
    }

    /// When which event came, since it was last told to count.
    pub(crate) fn record(&self) -> Result<Vec<(u32, i64)>> {
        process::read_record(self.spec.record.as_deref().context("nothing is recorded")?)
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        self.tell.write_all(line.as_bytes()).await?;
        self.tell.write_all(b"\n").await.context("the client has ended")
    }

    async fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line =
            timeout(LIMIT, self.hear.next_line()).await.context("the client waits for frames in vain")??;
        Ok(serde_json::from_str(&line.context("the client has ended; see above")?)?)
    }
}
