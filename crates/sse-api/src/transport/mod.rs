//! Sockets: accepting connections, limiting how many there are, and carrying HTTP over them.
//!
//! What a connection speaks is in a folder of its own: [`http1`] is HTTP/1.1 in plain text. It asks the service with a
//! request, with its [`Peer`] as an extension, and gets a response. One that is [`Detachable`] has no end; a protocol may
//! write its body in a way of its own. The rest of the crate sees no socket.

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

/// Who is connected: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// An extension of the responses whose body is a stream without an end of its own.
#[derive(Clone, Copy)]
pub(crate) struct Detachable;

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) service: TowerToHyperService<Router>,
    pub(crate) client_timeout: Duration,
    /// Whether a connection is for more than one request.
    pub(crate) keep_alive: bool,
    /// On streams whose clients do not take what they are given.
    pub(crate) pressure: Pressure,
    pub(crate) connections: Arc<Connections>,
    /// Of the connections, with a stream and without.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    /// Cancelled when there is no more time for those that do not read.
    pub(crate) cut: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
}
