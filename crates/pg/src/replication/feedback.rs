//! The status task: tells the server what is safe, whatever the reader is doing.
//!
//! The server ends a connection from which it hears nothing for `wal_sender_timeout`. It reads our
//! messages while it waits for us to read its own, so all that has to go on while the feed holds the
//! reader up is this task; nothing needs to be read into memory meanwhile.

use crate::Lsn;
use crate::Timestamp;
use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend::{self, CopyData};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The shortest time between two updates that nobody asked for: a busy journal syncs hundreds of times a second.
const COALESCE: Duration = Duration::from_millis(100);
/// How long the end of the stream may take to be written.
const FAREWELL: Duration = Duration::from_secs(1);

/// The handle of the status task. Dropping it ends the task and closes its half of the socket.
pub(super) struct Feedback {
    shared: Arc<Shared>,
    farewell: CancellationToken,
    acked: watch::Receiver<Lsn>,
    task: JoinHandle<io::Result<()>>,
}

struct Shared {
    /// The server has asked for an update.
    asked: Notify,
    /// The highest place that this connection has told us of.
    received: AtomicU64,
}

impl Feedback {
    pub(super) fn spawn<W>(writer: W, durable: watch::Receiver<Lsn>, from: Lsn, interval: Duration) -> Self
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared { asked: Notify::new(), received: AtomicU64::new(from.get()) });
        let farewell = CancellationToken::new();
        let (acked_sender, acked) = watch::channel(Lsn::ZERO);
        let task = Task {
            writer,
            durable,
            shared: shared.clone(),
            farewell: farewell.clone(),
            acked: acked_sender,
            interval: interval.max(COALESCE),
        };
        Self { shared, farewell, acked, task: tokio::spawn(task.run()) }
    }

    /// The server has told us of this place.
    pub(super) fn received(&self, lsn: Lsn) {
        self.shared.received.fetch_max(lsn.get(), Ordering::Relaxed);
    }

    /// The server wants an update now.
    pub(super) fn ask(&self) {
        self.shared.asked.notify_one();
    }

    /// What the server was last told, as it changes.
    pub(super) fn acked(&self) -> watch::Receiver<Lsn> {
        self.acked.clone()
    }

    /// Sends a last update and the end of our side of the stream.
    pub(super) async fn farewell(&mut self) -> io::Result<()> {
        self.farewell.cancel();
        tokio::time::timeout(FAREWELL, &mut self.task).await??
    }
}

impl Drop for Feedback {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task<W> {
    writer: W,
    durable: watch::Receiver<Lsn>,
    shared: Arc<Shared>,
    farewell: CancellationToken,
    acked: watch::Sender<Lsn>,
    interval: Duration,
}

impl<W: AsyncWrite + Unpin> Task<W> {
    async fn run(mut self) -> io::Result<()> {
        // The journal is gone when the sender is; then only what was durable stays so.
        let mut journal_lives = true;
        loop {
            self.send().await?;
            let sent = tokio::time::Instant::now();
            tokio::select! {
                () = self.farewell.cancelled() => break,
                () = self.shared.asked.notified() => {}
                () = tokio::time::sleep_until(sent + self.interval) => {}
                changed = self.durable.changed(), if journal_lives => {
                    journal_lives = changed.is_ok();
                    tokio::select! {
                        () = self.farewell.cancelled() => break,
                        () = self.shared.asked.notified() => {}
                        () = tokio::time::sleep_until(sent + COALESCE) => {}
                    }
                }
            }
        }
        self.send().await?;
        let mut end = BytesMut::new();
        frontend::copy_done(&mut end);
        self.writer.write_all(&end).await?;
        self.writer.flush().await
    }

    async fn send(&mut self) -> io::Result<()> {
        // Never beyond what this server has told us of: a place from another history would make it throw
        // away changes that nobody has seen.
        let received = Lsn::new(self.shared.received.load(Ordering::Relaxed));
        let safe = (*self.durable.borrow_and_update()).min(received).max(*self.acked.borrow());
        self.writer.write_all(&status_update(safe)?).await?;
        self.writer.flush().await?;
        self.acked.send_if_modified(|acked| std::mem::replace(acked, safe) != safe);
        Ok(())
    }
}

/// A standby status update: all of `safe` is written, durable and applied here.
fn status_update(safe: Lsn) -> io::Result<BytesMut> {
    let mut update = BytesMut::with_capacity(34);
    update.put_u8(b'r');
    for _ in 0..3 {
        update.put_u64(safe.get());
    }
    update.put_i64(Timestamp::now().0);
    // We never ask for an answer: a dead connection is found by TCP.
    update.put_u8(0);
    let mut message = BytesMut::with_capacity(39);
    CopyData::new(update)?.write(&mut message);
    Ok(message)
}
