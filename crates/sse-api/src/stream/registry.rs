//! The open streams: how many there may be, what each has sent, and why it ended.
//!
//! Nothing lists the streams yet, so each handle owns the facts of its stream and only the number
//! is shared. A view of all of them adds a map of those facts here, filled in
//! [`open`](StreamRegistry::open) and emptied when the handle is dropped.

use crate::limits::limit_key;
use crate::metrics::{EndReason, Metrics};
use feed::Frames;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The open streams.
pub(crate) struct StreamRegistry {
    max: usize,
    permits: Arc<Semaphore>,
    max_per_address: usize,
    /// Open streams per address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
}

/// The facts of one open stream.
#[derive(Debug)]
struct Stream {
    /// What the path names (`system`, `patient`, …), never an id.
    level: &'static str,
    /// The client's address.
    peer: SocketAddr,
    opened: Instant,
    /// Changes handed to the connection.
    events: AtomicU64,
    /// Bytes handed to the connection.
    bytes: AtomicU64,
}

impl StreamRegistry {
    /// `max` limits all streams, `max_per_address` those of one address that is not of this machine.
    pub(crate) fn new(max: usize, max_per_address: usize, metrics: Arc<Metrics>) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max));
        Self { max, permits, max_per_address, by_address: Mutex::new(HashMap::new()), metrics }
    }

    /// Opens a stream; `None` when a limit is reached.
    pub(crate) fn open(self: &Arc<Self>, level: &'static str, peer: SocketAddr) -> Option<StreamHandle> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.reserve_for_address(limit_key(peer.ip()))?;
        let (events, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let stream = Stream { level, peer, opened: Instant::now(), events, bytes };
        self.metrics.streams_open.inc();
        tracing::info!(%peer, level, "stream begins");
        Some(StreamHandle { registry: Arc::clone(self), stream, ended: EndReason::Client, _permit: permit })
    }

    /// Counts a stream for its address; `None` when the address has reached its limit.
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

    /// The number of open streams.
    pub(crate) fn open_count(&self) -> usize {
        self.max - self.permits.available_permits()
    }
}

/// One open stream. Dropping it closes the stream's entry and logs how it ended.
pub(crate) struct StreamHandle {
    registry: Arc<StreamRegistry>,
    stream: Stream,
    ended: EndReason,
    _permit: OwnedSemaphorePermit,
}

impl StreamHandle {
    /// Counts frames of changes that are handed to the connection.
    pub(crate) fn record_frames(&self, frames: &Frames) {
        let metrics = &self.registry.metrics;
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
        self.registry.metrics.notices_sent.with_label_values(&[code]).inc();
        self.record_bytes(bytes);
    }

    /// Logs what the stream waits for.
    pub(crate) fn log_wait(&self, what: String) {
        let Stream { level, peer, .. } = &self.stream;
        tracing::debug!(%peer, level, what, "stream waits");
    }

    /// Counts bytes that are handed to the connection.
    pub(crate) fn record_bytes(&self, bytes: usize) {
        // Lossless: usize has at most 64 bits.
        let bytes = bytes as u64;
        self.stream.bytes.fetch_add(bytes, Relaxed);
        self.registry.metrics.bytes_sent.inc_by(bytes);
    }

    /// Sets why the stream ends. The default is that the client disconnected.
    pub(crate) fn set_end_reason(&mut self, reason: EndReason) {
        self.ended = reason;
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.registry.release_for_address(limit_key(self.stream.peer.ip()));
        let metrics = &self.registry.metrics;
        metrics.streams_open.dec();
        metrics.streams_ended.with_label_values(&[self.ended.as_str()]).inc();
        let Stream { level, peer, opened, events, bytes } = &self.stream;
        tracing::info!(
            %peer,
            level,
            reason = self.ended.as_str(),
            seconds = opened.elapsed().as_secs(),
            events = events.load(Relaxed),
            bytes = bytes.load(Relaxed),
            "stream ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_handle_frees_its_place_in_every_limit() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let registry = Arc::new(StreamRegistry::new(3, 2, metrics));
        let open = |address: &str| registry.open("system", address.parse().unwrap());
        let (first, second) = (open("192.0.2.1:1").unwrap(), open("192.0.2.1:2").unwrap());
        assert!(open("192.0.2.1:3").is_none(), "the address has two streams");
        let third = open("192.0.2.2:1").unwrap();
        assert_eq!(registry.open_count(), 3);
        assert!(open("192.0.2.3:1").is_none(), "there are three streams");
        drop(first);
        assert_eq!((registry.open_count(), registry.metrics.streams_open.get()), (2, 2));
        drop(open("192.0.2.1:3").unwrap());
        drop((second, third));
        assert_eq!(registry.open_count(), 0);
        assert!(registry.by_address.lock().is_empty());
    }
}
