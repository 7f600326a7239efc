//! The ceiling: a server that knows its frames beforehand and does nothing but write them to its sockets. What the
//! kernel and the client cost shows here.

use crate::{client, clock, output};
use anyhow::{Context as _, Result};
use bench::documents;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Accepts streams and writes to them as it is told: `streams N`, then `FRAMES PER_WRITE` as often as wanted.
pub(crate) fn process() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    output::show(&listener.local_addr()?.to_string());
    let mut lines = std::io::stdin().lock().lines();
    let count: usize = lines.next().context("how many streams?")??.trim().parse()?;
    let mut streams = Vec::new();
    while streams.len() < count {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        streams.push(stream);
    }
    for line in lines {
        let line = line?;
        let (frames, per_write) =
            line.trim().split_once(' ').context("how many frames, and how many at once?")?;
        send(&mut streams, frames.parse()?, per_write.parse()?)?;
    }
    Ok(())
}

fn send(streams: &mut [TcpStream], frames: u64, per_write: u64) -> Result<()> {
    let chunk = |count: u64| {
        let frames: String = (0..count).map(documents::frame).collect();
        format!("{:x}\r\n{frames}\r\n", frames.len()).into_bytes()
    };
    let whole = chunk(per_write);
    output::show(&clock::now().to_string());
    let mut left = frames;
    while left > 0 {
        let count = left.min(per_write);
        let last;
        let chunk = if count == per_write {
            &whole
        } else {
            last = chunk(count);
            &last
        };
        for stream in &mut *streams {
            stream.write_all(chunk)?;
        }
        left -= count;
    }
    Ok(())
}

/// The harness' end of that server. It ends when this is dropped.
pub(crate) struct Plain {
    // Killed when it is dropped.
    _child: Child,
    tell: ChildStdin,
    hear: Lines<BufReader<ChildStdout>>,
}

impl Plain {
    /// Starts it, with a crowd of so many.
    pub(crate) async fn start(streams: usize) -> Result<(Self, client::Crowd)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("plain").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the plain server")?;
        let mut tell = child.stdin.take().context("no standard input")?;
        let mut hear = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let address = hear.next_line().await?.context("the plain server has ended")?.parse()?;
        tell.write_all(format!("{streams}\n").as_bytes()).await?;
        let spec = client::Spec {
            address,
            requests: vec![(client::get(address, "/", ""), streams)],
            ready: client::Ready::Head,
            record: None,
        };
        let (crowd, _) = client::Crowd::start(spec).await?;
        Ok((Self { _child: child, tell, hear }, crowd))
    }

    /// Has it send so many frames to each, so many with one write; when it began.
    pub(crate) async fn send(&mut self, frames: u64, per_write: u64) -> Result<i64> {
        self.tell.write_all(format!("{frames} {per_write}\n").as_bytes()).await?;
        Ok(self.hear.next_line().await?.context("the plain server has ended")?.parse()?)
    }
}
