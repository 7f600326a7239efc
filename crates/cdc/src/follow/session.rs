//! One session: prepared, then streaming, until it ends.

use super::coalesce::Coalesce;
use super::error::{RunError, SessionError};
use super::prepare::{Known, Prepared, prepare};
use super::slot_monitor::watch_database;
use crate::Settings;
use crate::batch::Assembler;
use crate::layout::RowDecoder;
use crate::sink::Sink;
use crate::{SourceStatus, slot};
use feed::{Batch, Lsn, PublishError};
use pg::Backoff;
use pg::Encoding;
use pg::replication::{self, Channel, Start, Stream};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a shutdown waits for the journal.
const SETTLE: Duration = Duration::from_secs(5);
/// The longest time between two status updates: a sixth of what our session lets the server wait for one.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

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
    encoding: Arc<Encoding>,
    pub(super) status: watch::Sender<SourceStatus>,
    shutdown: CancellationToken,
    /// What was decoded again differed from what was published: the next session begins a new epoch.
    forked: bool,
    /// Rows are gone, and no change says so: the next session begins a new epoch, behind that transaction.
    untold: bool,
    /// The slot held too much and has to go before another is made.
    give_up_slot: bool,
    /// It was us who gave it up: that it is missing says nothing of the database.
    gave_up_slot: bool,
    /// The server's process that served the session before: it may not know yet that we are gone.
    walsender: Option<i32>,
}

/// Ends when the stream has to be let go of, with the reason.
type Watch<'a> = Pin<&'a mut (dyn Future<Output = SessionError> + Send)>;

impl Session {
    pub(super) fn new(
        settings: Settings,
        layout: Box<dyn RowDecoder>,
        status: watch::Sender<SourceStatus>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            settings,
            assembler: Assembler::new(layout),
            encoding: Arc::default(),
            status,
            shutdown,
            forked: false,
            untold: false,
            give_up_slot: false,
            gave_up_slot: false,
            walsender: None,
        }
    }

    pub(super) async fn run(
        &mut self,
        sink: &mut impl Sink,
        backoff: &mut Backoff,
    ) -> Result<End, SessionError> {
        if self.give_up_slot {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                gone = give_up_slot(&self.settings) => gone?,
            }
            self.give_up_slot = false;
            self.gave_up_slot = true;
            // No slot, nothing held: the next is made when there is somewhere to put what comes.
            self.say("waiting for the journal, whose disk may be full; the slot was given up");
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(End::Shutdown),
                () = sink.writable() => {}
            }
        }
        self.say("connecting");
        let mut known = Known {
            forked: self.forked || sink.tainted(),
            untold: self.untold,
            gave_up_slot: self.gave_up_slot,
            walsender: self.walsender,
            ..Known::of(sink)
        };
        let prepared = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(End::Shutdown),
            prepared = prepare(&self.settings, &mut known, sink, &self.status) => prepared,
        };
        self.forked = known.forked;
        if matches!(prepared, Err(SessionError::FactsFail(_))) {
            // The slot is ours, and nothing is read from it until somebody mends something: the disk comes first.
            let held = self.status.borrow().wal_held_bytes;
            self.give_up_slot |= held.is_some_and(|held| held > self.settings.max_wal_held);
        }
        let prepared = match prepared {
            Err(SessionError::Publish(error)) => return self.not_published(error),
            prepared => prepared?,
        };
        let Prepared { connected, connection, start: from, identity, epoch } = prepared;
        self.encoding = Encoding::of(&connected.client, &self.encoding).await?;
        if let Some(epoch) = epoch {
            match sink.begin_epoch(epoch).await {
                Ok(()) => (self.forked, self.untold, self.gave_up_slot) = (false, false, false),
                Err(error) => return self.not_published(error),
            }
        }
        sink.resume(from);
        let start = Start {
            slot: self.settings.slot.as_str(),
            publication: &self.settings.publication,
            from,
            status_interval: STATUS_INTERVAL,
            durable: sink.durable(),
        };
        let pid = connection.pid();
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return Ok(End::Shutdown),
            stream = connection.start(start) => stream?,
        };
        self.walsender = Some(pid);
        sink.set_leader(true);
        tracing::info!(database = self.settings.database.describe_at(&connected.endpoint), slot = %self.settings.slot, "following the database");
        self.assembler.encoding(Arc::clone(&self.encoding));
        self.assembler.restart();
        self.status.send_modify(|status| {
            status.connected = true;
            status.needs = None;
            "following the database".clone_into(&mut status.state);
        });

        let settings = self.settings.clone();
        let status = self.status.clone();
        let log_ends = sink.log_ends();
        let (client, ended) = (connected.client, connected.ended);
        let mut watch = std::pin::pin!(async move {
            watch_database(&client, ended, &settings, &identity, &status, log_ends).await
        });
        let ended = self.stream(stream, from, sink, watch.as_mut(), backoff).await;
        self.untold |= matches!(ended, Err(SessionError::Untold(_)));
        ended
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
        let mut coalesce = Coalesce::new(Instant::now());
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
                reason = &mut watch => {
                    self.give_up_slot |= matches!(reason, SessionError::TooMuchHeld { .. });
                    return Err(reason);
                }
                () = sink.reopened() => match sink.publish(Batch::default()).await {
                    Ok(()) => continue,
                    Err(error) => return self.not_published(error),
                },
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
            let messages = self.assembler.messages();
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
            self.status.send_modify(|status| status.received_lsn = passed);
            if let Some(pause) = coalesce.pause(messages, Instant::now()) {
                // Tokio's clock counts milliseconds. This holds up nobody else: see `run`.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(pause);
            }
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
        if matches!(reason, SessionError::TooMuchHeld { .. }) {
            // Now: the feed may be busy for as long as its disk hangs.
            self.give_up_slot = give_up_slot(&self.settings).await.is_err();
            self.gave_up_slot |= !self.give_up_slot;
        }
        Published::Ended(match publishing.await {
            Ok(()) => Err(reason),
            Err(error) => self.not_published(error),
        })
    }

    fn not_published(&mut self, error: PublishError) -> Result<End, SessionError> {
        match error {
            PublishError::Reopened => Ok(End::Reopened),
            PublishError::Stopped => Err(RunError::JournalStopped.into()),
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

/// Drops the slot, so that the database may throw away what it holds.
async fn give_up_slot(settings: &Settings) -> Result<(), SessionError> {
    tracing::error!(
        slot = %settings.slot, limit = settings.max_wal_held,
        "the database keeps too much log for us: the slot is given up, and subscribers will be reset"
    );
    let connected = settings.database.connect_watched(pg::Session::Monitor).await?;
    let mut connection = replication::connect(&settings.database, &connected.endpoint).await?;
    if slot::find(&connected.client, &settings.slot).await?.is_some() {
        connection.drop_slot(settings.slot.as_str()).await?;
    }
    Ok(())
}

/// Waits until everything that was published is on disk, so that it is acknowledged and need not come again.
async fn settle(sink: &impl Sink, passed: Lsn) {
    let mut durable = sink.durable();
    let on_disk = durable.wait_for(|durable| *durable >= passed);
    if tokio::time::timeout(SETTLE, on_disk).await.is_err() {
        tracing::warn!("the journal is slow: some changes will be read again at the next start");
    }
}
