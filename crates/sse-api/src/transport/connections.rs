//! The connections that are open: how many there may be, and which one is closed to make room for a new one.
//!
//! Each connection takes a file descriptor, and without descriptors neither the database nor the journal can be reached. So
//! their number is limited, and a new connection is always taken: when a limit is reached, the connection that has been waiting
//! longest is closed. A connection waits from the moment it was accepted, and again from each request on, until it becomes a
//! stream. A request that arrives byte by byte does not end the wait, so slow requests are closed first.

use crate::limits::{LogLimit, limit_key};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// How often the log says that connections are closed to make room.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) all: usize,
    /// Without a stream: each holds the buffers that a request is read into.
    pub(crate) waiting: usize,
    /// Of one address that is not of this machine.
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
    /// Those without a stream, the one that has been waiting longest first.
    waiting: BTreeMap<u64, Waiting>,
    by_address: HashMap<IpAddr, Address>,
}

struct Waiting {
    address: IpAddr,
    /// Ends the connection's task, and so closes its socket. `None` for the moment before the task is spawned.
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Address {
    count: usize,
    waiting: BTreeSet<u64>,
}

/// Which limit is reached.
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

/// What becomes of a new connection.
enum Admission {
    Admitted(u64),
    /// This one has to end first; `None` when no connection can be closed.
    Full(ConnectionLimit, Option<Waiting>),
}

impl Connections {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let open = Mutex::new(Open::default());
        Self { limits, open, ended: Notify::new(), metrics, log: LogLimit::new(LOG_EVERY) }
    }

    /// Takes a new connection, for which others are closed where a limit is reached. `None` when all others are streams: the new
    /// one has to be closed.
    pub(super) async fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Connection> {
        let address = limit_key(address);
        loop {
            // Before the look, so that a connection that ends after it is not missed.
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
                    // Its task is dropped, and with it the socket, before there is room.
                    evicted?.close();
                    ended.await;
                }
            }
        }
    }

    /// Closes the connection that has been waiting longest, if any is.
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

    /// Puts a connection behind all that wait.
    fn wait(&mut self, address: IpAddr, task: Option<AbortHandle>) -> u64 {
        let key = self.next;
        self.next += 1;
        self.waiting.insert(key, Waiting { address, task });
        self.by_address.entry(address).or_default().waiting.insert(key);
        key
    }

    /// Takes the connection that has been waiting longest, of one address or of all.
    fn evict(&mut self, among: Option<IpAddr>) -> Option<Waiting> {
        let key = match among {
            Some(address) => *self.by_address.get(&address)?.waiting.first()?,
            None => *self.waiting.first_key_value()?.0,
        };
        self.leave(key)
    }

    /// Takes a connection from those that wait.
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
        // Without a task the connection sees that it was taken out as soon as it gets one.
        if let Some(task) = self.task {
            task.abort();
        }
    }
}

/// One connection: its place is given back when this is dropped, which has to be after its socket.
pub(super) struct Connection {
    connections: Arc<Connections>,
    address: IpAddr,
    /// Its place among those that wait; `None` for a stream.
    key: Mutex<Option<u64>>,
}

impl Connection {
    /// Says what ends it.
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

    /// A request has come: from now on it waits for the next one.
    pub(super) fn request_received(&self) {
        let mut open = self.connections.open.lock();
        let mut key = self.key.lock();
        // One that was closed stays so.
        if let Some(Waiting { address, task }) = key.and_then(|key| open.leave(key)) {
            *key = Some(open.wait(address, task));
        }
    }

    /// It is a stream from now on, and not closed to make room; `false` if it was closed already.
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

    /// A connection whose task ends only when it is closed from outside.
    async fn open(
        connections: &Arc<Connections>,
        address: IpAddr,
    ) -> (Arc<Connection>, tokio::task::JoinHandle<()>) {
        let connection = Arc::new(connections.admit(address).await.unwrap());
        let task = tokio::spawn(std::future::pending());
        connection.set_task(task.abort_handle());
        (connection, task)
    }

    /// Whether a task was closed to make room, after the connection was given back as its task would.
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
    async fn the_longest_waiting_connection_makes_room() {
        let connections = connections();
        let first = open(&connections, address(1)).await;
        let second = open(&connections, address(2)).await;
        let third = open(&connections, address(3)).await;
        // It has asked for something: the second has been waiting longest.
        first.0.request_received();
        let fourth = makes_room(&connections, address(4), second).await;
        assert!(!first.1.is_finished() && !third.1.is_finished());
        drop(fourth);
        assert_eq!(connections.open.lock().count, 2);
    }

    #[tokio::test]
    async fn a_stream_is_not_closed_and_leaves_room_for_others() {
        let connections = connections();
        let mut streams = Vec::new();
        for last in 1..=3 {
            let stream = open(&connections, address(last)).await;
            assert!(stream.0.becomes_stream());
            streams.push(stream);
        }
        let waiting = open(&connections, address(4)).await;
        // All that there may be: the only one that is no stream goes.
        let last = makes_room(&connections, address(5), waiting).await;
        assert!(last.becomes_stream());
        assert!(connections.admit(address(6)).await.is_none());
        assert!(streams.iter().all(|(_, task)| !task.is_finished()));
    }

    #[tokio::test]
    async fn one_address_closes_its_own_and_this_machine_is_not_limited() {
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
    async fn what_is_closed_before_it_runs_does_not_run() {
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
