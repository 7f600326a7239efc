//! A replication connection that takes commands.

use super::codec::{Backend, Codec, READ_BUFFER};
use super::error::{Error, ServerError};
use super::feedback::Feedback;
use super::login::{receive, send};
use super::stream::Stream;
use crate::Lsn;
use crate::database::session;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use futures_util::StreamExt;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_util::codec::{Framed, FramedParts};

/// A replication connection that takes commands.
pub struct Connection<S> {
    framed: Framed<S, Codec>,
    server: Server,
}

/// What the server said of itself at the login.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Its process that serves us.
    pub(super) pid: i32,
    pub(super) version: Option<String>,
    pub(super) encoding: Option<String>,
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct System {
    /// The cluster's identifier, the same for its standbys and restored copies.
    pub id: u64,
    /// The timeline of what is being written.
    pub timeline: u32,
    /// What is on the server's disk.
    pub flushed: Lsn,
}

/// An ancestor in a timeline's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeline {
    /// Its number.
    pub id: u32,
    /// Where the next one branched off.
    pub switch_point: Lsn,
}

/// How the stream is to be started.
pub struct Start<'a> {
    /// The replication slot.
    pub slot: &'a str,
    /// The publication whose tables are sent.
    pub publication: &'a str,
    /// Where to begin; the server goes no further back than the slot has confirmed.
    pub from: Lsn,
    /// The longest time between two status updates.
    pub status_interval: Duration,
    /// What is safe in the journal.
    pub durable: watch::Receiver<Lsn>,
}

type Row = Vec<Option<String>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) const fn new(framed: Framed<S, Codec>, server: Server) -> Self {
        Self { framed, server }
    }

    /// States what could not be stated at the login, and makes sure that it was the server who heard that.
    pub(super) async fn settle(&mut self) -> Result<(), Error> {
        let Server { version, encoding, .. } = &self.server;
        if let Some(statements) = session::after_login(version.as_deref(), encoding.as_deref(), true) {
            self.query(&statements).await?;
        }
        // A pooler that lets replication through says another number at the login.
        let rows = self.query("select pg_catalog.pg_backend_pid()").await?;
        let pid = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        if pid == Some(self.server.pid) { Ok(()) } else { Err(Error::Pooler) }
    }

    /// The server's process that serves us.
    pub const fn pid(&self) -> i32 {
        self.server.pid
    }

    /// Which cluster this is, and where it stands.
    pub async fn identify_system(&mut self) -> Result<System, Error> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let field = |index: usize| rows.first().and_then(|row| row.get(index)?.as_deref());
        let system = || {
            Some(System {
                id: field(0)?.parse().ok()?,
                timeline: field(1)?.parse().ok()?,
                flushed: field(2)?.parse().ok()?,
            })
        };
        system().ok_or(Error::Protocol("an answer to IDENTIFY_SYSTEM that is none"))
    }

    /// The ancestors of a timeline, oldest first.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<Timeline>, Error> {
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = rows.first().and_then(|row| row.get(1)?.as_deref());
        content.map(history).ok_or(Error::Protocol("an answer to TIMELINE_HISTORY that is none"))
    }

    /// Makes a slot and returns where it begins. Waits for every transaction that is open in the cluster.
    /// `failover`: standbys keep a copy of it (from PostgreSQL 17 on).
    pub async fn create_slot(&mut self, slot: &str, failover: bool) -> Result<Lsn, Error> {
        // The form without parentheses is what PostgreSQL 14 knows; the later ones take it too.
        let options = if failover { "(SNAPSHOT 'nothing', FAILOVER)" } else { "NOEXPORT_SNAPSHOT" };
        let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", quoted(slot));
        let rows = self.query(&command).await?;
        rows.first()
            .and_then(|row| row.get(1)?.as_deref()?.parse().ok())
            .ok_or(Error::Protocol("an answer to CREATE_REPLICATION_SLOT that is none"))
    }

    /// Drops a slot.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<(), Error> {
        self.query(&format!("DROP_REPLICATION_SLOT {}", quoted(slot))).await.map(drop)
    }

    /// Sends a command and collects its rows. A connection that failed takes no other command.
    async fn query(&mut self, command: &str) -> Result<Vec<Row>, Error> {
        send(&mut self.framed, |buffer| frontend::query(command, buffer)).await?;
        let mut rows = Vec::new();
        loop {
            match receive(&mut self.framed).await? {
                Message::DataRow(body) => rows.push(fields(&body)?),
                Message::ReadyForQuery(_) => return Ok(rows),
                Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                _ => return Err(Error::Protocol("an answer to a command that is none")),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// Starts the stream. What is durable is told to the server from now on.
    pub async fn start(mut self, start: Start<'_>) -> Result<Stream<S>, Error> {
        // The names are a list of identifiers in a string literal.
        let names = quoted(start.publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{names}', messages 'true')",
            quoted(start.slot),
            start.from,
        );
        send(&mut self.framed, |buffer| frontend::query(&command, buffer)).await?;
        loop {
            match self.framed.next().await.ok_or(Error::Closed)?? {
                Backend::CopyBoth => break,
                Backend::Other(Message::ErrorResponse(body)) => {
                    return Err(ServerError::read(body.fields()).into());
                }
                Backend::Other(Message::NoticeResponse(_) | Message::ParameterStatus(_)) => {}
                _ => return Err(Error::Protocol("an answer to START_REPLICATION that is none")),
            }
        }
        let parts = self.framed.into_parts();
        let (reader, writer) = tokio::io::split(parts.io);
        let mut fresh = FramedParts::new::<BytesMut>(reader, parts.codec);
        fresh.read_buf = BytesMut::with_capacity(READ_BUFFER);
        // The first messages may have come with the answer. What is made of parts looks at them before it reads.
        fresh.read_buf.extend_from_slice(&parts.read_buf);
        let feedback = Feedback::spawn(writer, start.durable, start.from, start.status_interval);
        Ok(Stream::new(Framed::from_parts(fresh), feedback))
    }
}

/// An identifier as the replication grammar and SQL quote it.
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn fields(body: &DataRowBody) -> Result<Row, Error> {
    let text = |range: Option<std::ops::Range<usize>>| {
        let bytes = range.and_then(|range| body.buffer().get(range));
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    Ok(body.ranges().map(text).collect()?)
}

/// Lines of `timeline <tab> switch point <tab> reason`, and comments.
fn history(content: &str) -> Vec<Timeline> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some(Timeline { id: words.next()?.parse().ok()?, switch_point: words.next()?.parse().ok()? })
    };
    content.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_is_read() {
        let content = "# comment\n1\t0/3000148\tno recovery target specified\n\n2\t1/A0\tbefore x\n";
        let expected =
            [(1, 0x300_0148), (2, 0x1_0000_00a0)].map(|(id, at)| Timeline { id, switch_point: Lsn::new(at) });
        assert_eq!(history(content), expected);
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quoted(r#"a"b"#), r#""a""b""#);
    }
}
