//! The streams that are open: how many there may be, who they are, and what became of them.

use crate::limits::limit_key;
use crate::metrics::{EndReason, Metrics};
use dashmap::DashMap;
use feed::Frames;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The streams that are open.
pub(crate) struct StreamRegistry {
    open: DashMap<u64, Arc<Stream>>,
    next: AtomicU64,
    places: Arc<Semaphore>,
    max_per_address: usize,
    /// How many streams each address has.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
}

/// One open stream, as operators see it.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Whose compartments, or which type: the word, never an id.
    pub(crate) level: &'static str,
    /// Who reads it.
    pub(crate) peer: SocketAddr,
    /// When it began.
    pub(crate) since: Instant,
    /// Changes handed to the connection.
    pub(crate) events: AtomicU64,
    /// Bytes handed to the connection.
    pub(crate) bytes: AtomicU64,
}

impl StreamRegistry {
    /// `max`: how many there may be; `max_per_address`: of one address that is not of this machine.
    pub(crate) fn new(max: usize, max_per_address: usize, metrics: Arc<Metrics>) -> Self {
        let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        let by_address = Mutex::new(HashMap::new());
        Self { open: DashMap::new(), next: AtomicU64::new(0), places, max_per_address, by_address, metrics }
    }

    /// Takes a place; `None` when there is none left.
    pub(crate) fn open(self: &Arc<Self>, level: &'static str, peer: SocketAddr) -> Option<StreamHandle> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.reserve_for_address(limit_key(peer.ip()))?;
        let stream = Arc::new(Stream {
            level,
            peer,
            since: Instant::now(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let key = self.next.fetch_add(1, Relaxed);
        self.open.insert(key, Arc::clone(&stream));
        self.metrics.streams_open.inc();
        tracing::info!(%peer, level, "stream begins");
        Some(StreamHandle { streams: Arc::clone(self), key, stream, ended: EndReason::Client, _place: place })
    }

    /// Counts a stream for its address; `None` when the address has as many as it may have.
    fn reserve_for_address(&self, address: IpAddr) -> Option<()> {
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.max_per_address && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(())
    }

    fn release_for_address(&self, address: IpAddr) {
        let mut by_address = self.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

/// The place of one stream, given back when it is dropped.
pub(crate) struct StreamHandle {
    streams: Arc<StreamRegistry>,
    key: u64,
    stream: Arc<Stream>,
    ended: EndReason,
    _place: OwnedSemaphorePermit,
}

impl StreamHandle {
    /// Counts frames of changes that are handed to the connection.
    pub(crate) fn record_frames(&self, frames: &Frames) {
        let metrics = &self.streams.metrics;
        let mut events = 0;
        for (event, count) in frames.counts.iter() {
            metrics.sent(event, count);
            events += count;
        }
        self.stream.events.fetch_add(events, Relaxed);
        self.record_bytes(frames.bytes.len());
    }

    /// Counts a notice that is handed to the connection.
    pub(crate) fn record_notice(&self, code: &str, bytes: usize) {
        self.streams.metrics.notices_sent.with_label_values(&[code]).inc();
        self.record_bytes(bytes);
    }

    /// Notes what keeps the stream waiting.
    pub(crate) fn log_wait(&self, what: String) {
        let Stream { level, peer, .. } = &*self.stream;
        tracing::debug!(%peer, level, what, "stream waits");
    }

    /// Counts bytes that are handed to the connection.
    pub(crate) fn record_bytes(&self, bytes: usize) {
        // Lossless: usize has at most 64 bits.
        let bytes = bytes as u64;
        self.stream.bytes.fetch_add(bytes, Relaxed);
        self.streams.metrics.bytes_sent.inc_by(bytes);
    }

    /// Notes why it ends; without this, because the client went away.
    pub(crate) fn set_end_reason(&mut self, reason: EndReason) {
        self.ended = reason;
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.streams.open.remove(&self.key);
        self.streams.release_for_address(limit_key(self.stream.peer.ip()));
        let metrics = &self.streams.metrics;
        metrics.streams_open.dec();
        metrics.streams_ended.with_label_values(&[self.ended.as_str()]).inc();
        let Stream { level, peer, since, events, bytes } = &*self.stream;
        tracing::info!(
            %peer,
            level,
            reason = self.ended.as_str(),
            seconds = since.elapsed().as_secs(),
            events = events.load(Relaxed),
            bytes = bytes.load(Relaxed),
            "stream ended"
        );
    }
}
