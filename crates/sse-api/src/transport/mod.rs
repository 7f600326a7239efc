//! Sockets: accepting connections, limiting how many there are, and carrying HTTP over them.
//!
//! Each protocol has a folder: [`http1`] is HTTP/1.1 without TLS. A protocol calls the service with a
//! request that has its [`Peer`] as an extension. The body of a [`Detachable`] response has no end, and
//! the protocol may write it by itself. The rest of the crate has no access to sockets.

pub(crate) mod accept;
pub(crate) mod connections;
mod http1;
pub(crate) mod listener;

use self::connections::Connections;
use crate::metrics::Metrics;
use axum::Router;
use feed::Pressure;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The client's address: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// An extension of responses whose body is an endless stream.
#[derive(Clone, Copy)]
pub(crate) struct Detachable;

/// What the connections share.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) service: TowerToHyperService<Router>,
    pub(crate) client_timeout: Duration,
    /// Whether a connection serves more than one request.
    pub(crate) keep_alive: bool,
    /// Closes streams whose clients hold memory that others wait for.
    pub(crate) pressure: Pressure,
    pub(crate) connections: Arc<Connections>,
    /// The tasks of all connections, with and without a stream.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    /// Cancelled at the end of the grace period, to drop clients that do not read.
    pub(crate) cut: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
}
