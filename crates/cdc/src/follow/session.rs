//! One session: prepared, then streaming, until it ends.

use super::Settings;
use super::error::SessionError;
use super::prepare::{Known, Prepared, prepare};
use crate::batch::Assembler;
use crate::database::Ended;
use crate::layout::Layout;
use crate::replication::{Channel, Start, Stream};
use crate::retry::Backoff;
use crate::sink::Sink;
use crate::{SourceStatus, publication, slot};
use feed::{Batch, Lsn, PublishError};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

/// How often the slot's lag is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a shutdown waits for the journal.
const SETTLE: Duration = Duration::from_secs(5);

/// How a session ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// As it was told to.
    Shutdown,
    /// The journal begins again, from where it stands.
    Reopened,
}

/// What is kept from session to session.
pub(super) struct Session {
    settings: Settings,
    assembler: Assembler,
    pub(super) status: watch::Sender<SourceStatus>,
    shutdown: CancellationToken,
    /// What was decoded again differed from what was published: the next session begins a new epoch.
    forked: bool,
}

/// Ends when the stream has to be let go of, with the reason.
type Watch<'a> = Pin<&'a mut (dyn Future<Output = SessionError> + Send)>;

impl Session {
    pub(super) fn new(
        settings: Settings,
        layout: Box<dyn Layout>,
        status: watch::Sender<SourceStatus>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { settings, assembler: Assembler::new(layout), status, shutdown, forked: false }
    }

    pub(super) async fn run(
        &mut self,
        sink: &mut impl Sink,
        backoff: &mut Backoff,
    ) -> Result<End, SessionError> {
        self.say("connecting");
        let known = Known::of(sink, self.forked);
        let prepared = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(End::Shutdown),
            prepared = prepare(&self.settings, &known) => prepared?,
        };
        let Prepared { connected, connection, identity, epoch, status_interval } = prepared;
        let mut from = sink.acknowledged();
        if let Some(epoch) = epoch {
            from = epoch.start;
            match sink.begin_epoch(epoch).await {
                Ok(()) => self.forked = false,
                Err(error) => return self.not_published(error),
            }
        }
        let start = Start {
            slot: self.settings.slot.as_str(),
            publication: &self.settings.publication,
            from,
            status_interval,
            durable: sink.durable(),
        };
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(End::Shutdown),
            stream = connection.start(start) => stream?,
        };
        tracing::info!(database = %self.settings.database, slot = %self.settings.slot, "following the database");
        self.assembler.restart();
        self.status.send_modify(|status| {
            status.connected = true;
            status.needs = None;
            "following the database".clone_into(&mut status.state);
        });

        let settings = self.settings.clone();
        let status = self.status.clone();
        let (client, ended) = (connected.client, connected.ended);
        let mut watch =
            std::pin::pin!(
                async move { watch_database(&client, ended, &settings, &identity, &status).await }
            );
        self.stream(stream, from, sink, watch.as_mut(), backoff).await
    }

    async fn stream(
        &mut self,
        mut stream: Stream<Channel>,
        from: Lsn,
        sink: &mut impl Sink,
        mut watch: Watch<'_>,
        backoff: &mut Backoff,
    ) -> Result<End, SessionError> {
        let mut acked = stream.acked();
        let mut passed = from;
        loop {
            let event = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.say("stopping");
                    settle(sink, passed).await;
                    // Whatever is lost of it comes again: it was not acknowledged.
                    let _lost = stream.close().await;
                    return Ok(End::Shutdown);
                }
                reason = &mut watch => return Err(reason),
                Ok(()) = acked.changed() => {
                    let acked_lsn = *acked.borrow_and_update();
                    self.status.send_modify(|status| status.acked_lsn = acked_lsn);
                    continue;
                }
                event = stream.next() => event?,
            };
            // It took the command and went on: an outage after this is a new one.
            backoff.reset();
            self.assembler.push(&event)?;
            drop(event);
            while !self.assembler.is_full()
                && let Some(event) = stream.try_next()
            {
                self.assembler.push(&event?)?;
            }
            let Some(batch) = self.assembler.take() else { continue };
            passed = batch.passed.unwrap_or(passed);
            let published;
            (published, stream) = match self.publish(batch, stream, sink, watch.as_mut()).await {
                Published::Streaming(result, stream) => (result, stream),
                Published::Ended(end) => return end,
            };
            if let Err(error) = published {
                return self.not_published(error);
            }
            let skipped = self.assembler.skipped();
            self.status.send_modify(|status| {
                status.received_lsn = passed;
                status.skipped_rows = skipped;
            });
        }
    }

    /// Publishes, and lets go of the stream if the database wants to shut down while the feed is busy: it
    /// would wait for us as long as we hold on. The publishing itself is never broken off.
    async fn publish(
        &mut self,
        batch: Batch,
        stream: Stream<Channel>,
        sink: &mut impl Sink,
        watch: Watch<'_>,
    ) -> Published {
        let mut publishing = std::pin::pin!(sink.publish(batch));
        let reason = tokio::select! {
            biased;
            result = &mut publishing => return Published::Streaming(result, stream),
            () = self.shutdown.cancelled() => None,
            reason = watch => Some(reason),
        };
        let Some(reason) = reason else {
            self.say("stopping");
            // The process ends: what is not published by then is not acknowledged either.
            let _late = tokio::time::timeout(SETTLE, publishing).await;
            let _lost = stream.close().await;
            return Published::Ended(Ok(End::Shutdown));
        };
        drop(stream);
        self.status.send_modify(|status| status.connected = false);
        Published::Ended(match publishing.await {
            Ok(()) => Err(reason),
            Err(error) => self.not_published(error),
        })
    }

    fn not_published(&mut self, error: PublishError) -> Result<End, SessionError> {
        match error {
            PublishError::Reopened => Ok(End::Reopened),
            PublishError::Fork(_) => {
                self.forked = true;
                Err(SessionError::Publish(error))
            }
        }
    }

    fn say(&self, state: &str) {
        self.status.send_modify(|status| state.clone_into(&mut status.state));
    }
}

enum Published {
    Streaming(Result<(), PublishError>, Stream<Channel>),
    Ended(Result<End, SessionError>),
}

/// Waits until everything that was published is on disk, so that it is acknowledged and need not come again.
async fn settle(sink: &impl Sink, passed: Lsn) {
    let mut durable = sink.durable();
    let on_disk = durable.wait_for(|durable| *durable >= passed);
    if tokio::time::timeout(SETTLE, on_disk).await.is_err() {
        tracing::warn!("the journal is slow: some changes will be read again at the next start");
    }
}

/// Looks after slot and publication over the ordinary connection, and notices there that the server
/// shuts down: to a walsender it says so only when all is acknowledged.
async fn watch_database(
    client: &Client,
    mut ended: Ended,
    settings: &Settings,
    identity: &str,
    status: &watch::Sender<SourceStatus>,
) -> SessionError {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        loop {
            look.tick().await;
            let lag = slot::lag(client, &settings.slot).await?;
            status.send_modify(|status| {
                status.slot_lag_bytes = lag.unacknowledged;
                status.wal_held_bytes = lag.held;
            });
            let now = publication::identity(client, &settings.publication, &settings.tables).await?;
            if now != identity {
                return Ok::<_, tokio_postgres::Error>(SessionError::IdentityChanged);
            }
        }
    };
    tokio::select! {
        biased;
        sql_state = &mut ended => match sql_state.ok().flatten().as_deref() {
            Some("57P01" | "57P03") => SessionError::ShuttingDown,
            _ => SessionError::WatchEnded,
        },
        reason = looking => reason.unwrap_or_else(|error| match error.code().map(SqlState::code) {
            Some("57P01" | "57P03") => SessionError::ShuttingDown,
            _ => SessionError::Database(error),
        }),
    }
}
