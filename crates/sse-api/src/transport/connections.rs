//! Limits of open connections, and eviction of waiting ones.
//!
//! Each connection takes a file descriptor, and without descriptors neither the database nor the
//! journal can be reached, so their number is limited. A new connection is always accepted: at a limit
//! the connection that has waited longest is closed. A connection waits from when it is accepted, and
//! again from each request, until it becomes a stream. A request that arrives byte by byte does not
//! end the wait, so slow requests are closed first.

use crate::limits::{LogLimit, limit_key};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The shortest interval between log lines about evicted connections.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Limits of open connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of all connections.
    pub(crate) all: usize,
    /// Of those without a stream, which hold request buffers.
    pub(crate) waiting: usize,
    /// Of one client address, except loopback.
    pub(crate) per_address: usize,
}

/// The connections that are open.
pub(crate) struct Connections {
    limits: Limits,
    open: Mutex<Open>,
    /// Notified when a connection has ended.
    ended: Notify,
    metrics: Arc<Metrics>,
    log: LogLimit,
}

#[derive(Default)]
struct Open {
    count: usize,
    next: u64,
    /// Connections without a stream, the longest waiting first.
    waiting: BTreeMap<u64, Waiting>,
    by_address: HashMap<IpAddr, Address>,
}

struct Waiting {
    address: IpAddr,
    /// Aborts the connection's task, which closes its socket. `None` until the task is spawned.
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Address {
    count: usize,
    waiting: BTreeSet<u64>,
}

/// The limit that is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnectionLimit {
    All,
    Waiting,
    Address,
}

impl ConnectionLimit {
    /// The label of the metric.
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Waiting => "waiting",
            Self::Address => "address",
        }
    }
}

/// The decision on a new connection.
enum Admission {
    Admitted(u64),
    /// The given connection has to end first; `None` when none can be closed.
    Full(ConnectionLimit, Option<Waiting>),
}

impl Connections {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let open = Mutex::new(Open::default());
        Self { limits, open, ended: Notify::new(), metrics, log: LogLimit::new(LOG_EVERY) }
    }

    /// Admits a new connection, after closing a waiting one where a limit is reached. `None` when all
    /// others are streams: the caller closes the new one.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        let address = limit_key(address);
        loop {
            // Registered before the check, so that a connection that ends after it is not missed.
            let ended = self.ended.notified();
            let admission = self.open.lock().admit(self.limits, address);
            match admission {
                Admission::Admitted(key) => {
                    self.metrics.connections_open.inc();
                    let key = Mutex::new(Some(key));
                    return Some(Connection { connections: Arc::clone(self), address, key });
                }
                Admission::Full(reached, evicted) => {
                    self.report(reached, address);
                    // There is room when its task is dropped, and the socket with it.
                    evicted?.close();
                    ended.await;
                }
            }
        }
    }

    /// Closes the longest waiting connection, if there is one.
    pub(super) fn close_longest_waiting(&self) {
        let evicted = self.open.lock().evict(None);
        if let Some(evicted) = evicted {
            self.metrics.connections_closed.with_label_values(&[ConnectionLimit::All.as_str()]).inc();
            evicted.close();
        }
    }

    fn report(&self, reached: ConnectionLimit, address: IpAddr) {
        self.metrics.connections_closed.with_label_values(&[reached.as_str()]).inc();
        if let Some(suppressed) = self.log.allow() {
            tracing::warn!(
                limit = reached.as_str(),
                %address,
                suppressed,
                "connection limit reached: closing connections without a stream to accept new ones"
            );
        }
    }
}

impl Open {
    fn admit(&mut self, limits: Limits, address: IpAddr) -> Admission {
        let of_address = self.by_address.get(&address).map_or(0, |there| there.count);
        let reached = if !address.is_loopback() && of_address >= limits.per_address {
            ConnectionLimit::Address
        } else if self.count >= limits.all {
            ConnectionLimit::All
        } else if self.waiting.len() >= limits.waiting {
            ConnectionLimit::Waiting
        } else {
            let key = self.wait(address, None);
            self.count += 1;
            self.by_address.entry(address).or_default().count += 1;
            return Admission::Admitted(key);
        };
        let among = (reached == ConnectionLimit::Address).then_some(address);
        Admission::Full(reached, self.evict(among))
    }

    /// Adds a connection as the last of the waiting ones.
    fn wait(&mut self, address: IpAddr, task: Option<AbortHandle>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.waiting.insert(key, Waiting { address, task });
        self.by_address.entry(address).or_default().waiting.insert(key);
        key
    }

    /// Removes the longest waiting connection, of one address or of all.
    fn evict(&mut self, among: Option<IpAddr>) -> Option<Waiting> {
        let key = match among {
            Some(address) => *self.by_address.get(&address)?.waiting.first()?,
            None => *self.waiting.first_key_value()?.0,
        };
        self.leave(key)
    }

    /// Removes a connection from the waiting ones.
    fn leave(&mut self, key: u64) -> Option<Waiting> {
        let left = self.waiting.remove(&key)?;
        if let Some(address) = self.by_address.get_mut(&left.address) {
            address.waiting.remove(&key);
        }
        Some(left)
    }

    fn end(&mut self, key: Option<u64>, address: IpAddr) {
        if let Some(key) = key {
            self.leave(key);
        }
        self.count -= 1;
        if let Some(there) = self.by_address.get_mut(&address) {
            there.count -= 1;
            if there.count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Waiting {
    fn close(self) {
        // Without a task, `set_task` notices the removal and aborts.
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

/// One connection's slot. Dropping it frees the slot, so the socket has to be dropped before.
pub(super) struct Connection {
    connections: Arc<Connections>,
    address: IpAddr,
    /// Its key among the waiting connections; `None` for a stream.
    key: Mutex<Option<u64>>,
}

impl Connection {
    /// Sets the task that serves it.
    pub(super) fn set_task(&self, task: AbortHandle) {
        let mut open = self.connections.open.lock();
        match self.key.lock().and_then(|key| open.waiting.get_mut(&key)) {
            Some(waiting) => waiting.task = Some(task),
            None => {
                drop(open);
                task.abort();
            }
        }
    }

    /// Restarts the wait: a request was received.
    pub(super) fn request_received(&self) {
        let mut open = self.connections.open.lock();
        let mut key = self.key.lock();
        // An evicted connection stays evicted.
        if let Some(Waiting { address, task }) = key.and_then(|key| open.leave(key)) {
            *key = Some(open.wait(address, task));
        }
    }

    /// Exempts the connection from eviction as a stream; `false` if it was evicted already.
    pub(super) fn becomes_stream(&self) -> bool {
        let mut open = self.connections.open.lock();
        self.key.lock().take().and_then(|key| open.leave(key)).is_some()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let key = self.key.lock().take();
        self.connections.open.lock().end(key, self.address);
        self.connections.metrics.connections_open.dec();
        self.connections.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 4, waiting: 3, per_address: 2 };

    fn connections() -> Arc<Connections> {
        Arc::new(Connections::new(LIMITS, Arc::new(Metrics::new().unwrap())))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// A connection whose task ends only when it is aborted.
    async fn open(
        connections: &Arc<Connections>,
        address: IpAddr,
    ) -> (Arc<Connection>, tokio::task::JoinHandle<()>) {
        let connection = Arc::new(connections.admit(address).await.unwrap());
        let task = tokio::spawn(std::future::pending());
        connection.set_task(task.abort_handle());
        (connection, task)
    }

    /// Asserts that a task is aborted to admit another connection, once its slot is freed.
    async fn makes_room(
        connections: &Arc<Connections>,
        address: IpAddr,
        (connection, task): (Arc<Connection>, tokio::task::JoinHandle<()>),
    ) -> Connection {
        let admitted = tokio::spawn({
            let connections = Arc::clone(connections);
            async move { connections.admit(address).await.unwrap() }
        });
        assert!(task.await.unwrap_err().is_cancelled());
        drop(connection);
        admitted.await.unwrap()
    }

    #[tokio::test]
    async fn longest_waiting_connection_is_evicted() {
        let connections = connections();
        let first = open(&connections, address(1)).await;
        let second = open(&connections, address(2)).await;
        let third = open(&connections, address(3)).await;
        // Its wait restarts: the second is now the longest waiting.
        first.0.request_received();
        let fourth = makes_room(&connections, address(4), second).await;
        assert!(!first.1.is_finished() && !third.1.is_finished());
        drop(fourth);
        assert_eq!(connections.open.lock().count, 2);
    }

    #[tokio::test]
    async fn streams_are_not_evicted() {
        let connections = connections();
        let mut streams = Vec::new();
        for last in 1..=3 {
            let stream = open(&connections, address(last)).await;
            assert!(stream.0.becomes_stream());
            streams.push(stream);
        }
        let waiting = open(&connections, address(4)).await;
        // At the limit the only connection without a stream is closed.
        let last = makes_room(&connections, address(5), waiting).await;
        assert!(last.becomes_stream());
        assert!(connections.admit(address(6)).await.is_none());
        assert!(streams.iter().all(|(_, task)| !task.is_finished()));
    }

    #[tokio::test]
    async fn address_limit_evicts_its_own_and_exempts_loopback() {
        let connections = connections();
        let other = open(&connections, address(9)).await;
        let first = open(&connections, address(1)).await;
        let _second = open(&connections, address(1)).await;
        let _third = makes_room(&connections, address(1), first).await;
        assert!(!other.1.is_finished());

        let connections = self::connections();
        let local: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let (_a, _b) = (open(&connections, local).await, open(&connections, local).await);
        let _c = open(&connections, local).await;
        assert_eq!(connections.open.lock().count, 3);
    }

    #[tokio::test]
    async fn connection_evicted_before_it_has_a_task_is_aborted() {
        let connections = connections();
        let first = connections.admit(address(1)).await.unwrap();
        connections.close_longest_waiting();
        let task = tokio::spawn(std::future::pending::<()>());
        first.set_task(task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!first.becomes_stream());
        first.request_received();
        assert!(connections.open.lock().waiting.is_empty());
        drop(first);
        assert!(connections.open.lock().by_address.is_empty());
    }
}
