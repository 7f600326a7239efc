//! The server: it accepts connections, and ends them in order.
//!
//! When it is told to stop it accepts nothing more, each stream ends with its `shutdown` notice, idle
//! connections are closed, and after [`GRACE`] what is left (clients that do not read) is dropped: they lose
//! nothing, as they come back with the last id that they read.
//!
//! hyper reads requests and answers them. A connection that becomes a stream is taken from it, as a stream needs none of
//! its buffers.

mod accept;
mod connections;
mod handover;
mod socket;
mod streaming;

use crate::host::{Hosts, PublicUrl};
use crate::listen::{ListenError, listen};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;
use crate::routes::{Api, Peer, router};
use crate::source::SourceStatus;
use crate::standby;
use crate::stream::Streamed;
use crate::streams::Streams;
use crate::subscribe::Subscribe;
use axum::Router;
use axum::response::Response;
use feed::{Pressure, poll_on_wake};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::accept;
use self::connections::{Connection, Connections, Limits};
use self::handover::{Handed, Handover};
use self::socket::Socket;
use self::streaming::Streaming;

/// How long streams have to send their last frame: less than the ten seconds that the whole service has.
const GRACE: Duration = Duration::from_secs(8);
/// How long a client may take to send a request's headers, and how long a connection may be idle.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// The longest headers. hyper buffers as much for a client that does not read.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// How much may wait in the kernel to be sent on one connection.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 128 * 1024;
/// How often the log says that a request named a host that is not ours.
const FOREIGN_HOST_LOG_EVERY: Duration = Duration::from_secs(10);
/// How many connections may be without a stream: a request is read into buffers of up to 16 KiB.
const MAX_WAITING: usize = 4096;

/// How the service is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The URLs under which it is reached from elsewhere: their hosts are answered.
    pub public_urls: Vec<PublicUrl>,
    /// Listen beyond this machine although nobody is asked who they are.
    pub insecure_no_auth: bool,
    /// How many streams may be open at once.
    pub max_streams: usize,
    /// How many of them one address may have, unless it is of this machine, where proxies are.
    pub max_streams_per_address: usize,
    /// How many connections there may be beside those of streams, for probes, the page, and requests that are on their way:
    /// there is always room for these.
    pub spare_connections: usize,
    /// How long a client may take nothing of what is there for it before its connection is closed: it comes
    /// back with its last id, and until then keeps nothing from others.
    pub client_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            public_urls: Vec::new(),
            insecure_no_auth: false,
            max_streams: 20_000,
            max_streams_per_address: 10_000,
            spare_connections: 1_024,
            client_timeout: Duration::from_secs(60),
        }
    }
}

/// The server, listening. Connections wait until it [runs](Self::run).
pub struct Server {
    listeners: Vec<(TcpListener, SocketAddr)>,
    hosts: Hosts,
    streams: Arc<Streams>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    client_timeout: Duration,
    others: Router,
}

/// Listens.
pub async fn bind(settings: Settings) -> Result<Server, ListenError> {
    let listeners = listen(&settings.listen, settings.insecure_no_auth).await?;
    let metrics = Arc::new(Metrics::new().map_err(ListenError::Metrics)?);
    let spare = settings.spare_connections.max(1);
    let limits = Limits {
        all: settings.max_streams.saturating_add(spare),
        waiting: MAX_WAITING,
        per_address: settings.max_streams_per_address.saturating_add(spare),
    };
    metrics.limit(settings.max_streams, limits.all);
    let connections = Arc::new(Connections::new(limits, Arc::clone(&metrics)));
    let streams =
        Arc::new(Streams::new(settings.max_streams, settings.max_streams_per_address, Arc::clone(&metrics)));
    Ok(Server {
        listeners,
        hosts: Hosts::new(settings.public_urls),
        streams,
        connections,
        metrics,
        client_timeout: settings.client_timeout,
        others: Router::new(),
    })
}

impl Server {
    /// The addresses that it listens on, in the order of the settings, with the ports that were free.
    pub fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|(_, address)| *address)
    }

    /// Serves these routes too. They must not be below `/fhir`, `/health` or `/metrics`.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.others = self.others.merge(routes);
        self
    }

    /// Answers that another process serves, until this is so. `detail`: whom we stand by for, in a sentence for people.
    pub async fn stand_by<T>(&self, detail: &str, until: impl Future<Output = T>) -> T {
        let serving = Serving {
            service: TowerToHyperService::new(standby::router(detail, self.hosts.clone())),
            client_timeout: self.client_timeout,
            // One answer each: nobody is kept here, nor cut off, when we take over.
            keep_alive: false,
            pressure: Pressure::default(),
            connections: Arc::clone(&self.connections),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            metrics: Arc::clone(&self.metrics),
        };
        let accepting: FuturesUnordered<_> =
            self.listeners.iter().map(|(listener, _)| accept(listener, serving.clone())).collect();
        tokio::select! {
            answer = until => answer,
            // They never end.
            () = accepting.collect() => std::future::pending().await,
        }
    }

    /// Serves until `shutdown` is cancelled and every connection has ended, at most ten seconds later.
    pub async fn run<F: Subscribe>(self, feed: F, source: SourceStatus, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let cut = CancellationToken::new();
        let pressure = feed.pressure();
        let api = Arc::new(Api {
            feed,
            source,
            hosts: self.hosts,
            streams: Arc::clone(&self.streams),
            metrics: Arc::clone(&self.metrics),
            stopping: shutdown.clone(),
            started: crate::metrics::now(),
            foreign_hosts: LogLimit::new(FOREIGN_HOST_LOG_EVERY),
        });
        let serving = Serving {
            service: TowerToHyperService::new(router(api, self.others)),
            client_timeout: self.client_timeout,
            keep_alive: true,
            pressure,
            connections: self.connections,
            tasks: tasks.clone(),
            stopping: shutdown.clone(),
            cut: cut.clone(),
            metrics: self.metrics,
        };
        let accepting = TaskTracker::new();
        for (listener, _) in self.listeners {
            let serving = serving.clone();
            accepting.spawn(async move { accept(&listener, serving).await });
        }
        accepting.close();
        accepting.wait().await;

        tracing::info!(streams = self.streams.len(), "streams are being ended");
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "clients that do not read are cut off");
            cut.cancel();
            tasks.wait().await;
        }
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Serving {
    service: TowerToHyperService<Router>,
    client_timeout: Duration,
    /// Whether a connection is for more than one request.
    keep_alive: bool,
    /// On streams whose clients do not take what they are given.
    pressure: Pressure,
    connections: Arc<Connections>,
    /// Of the connections, with a stream and without.
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// Cancelled when there is no more time for those that do not read.
    cut: CancellationToken,
    metrics: Arc<Metrics>,
}

/// Serves one connection until it ends or becomes a stream, which is then served by itself.
async fn serve(stream: TcpStream, peer: SocketAddr, place: Arc<Connection>, serving: Serving) {
    let Serving { service, client_timeout, keep_alive, pressure, tasks, stopping, cut, .. } = serving;
    // Until a request comes there is nothing to keep buffers for.
    let begun = tokio::time::timeout(HEADERS_WITHIN, stream.readable());
    if !matches!(stopping.run_until_cancelled(begun).await, Some(Ok(Ok(())))) {
        return;
    }
    let handover = Arc::new(Handover::default());
    let service = Named { service, peer, place: Arc::clone(&place), handover: Arc::clone(&handover) };
    // Events are small and each is waited for: none may wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    bound_kernel(&stream, client_timeout);
    let socket = Socket::new(stream, client_timeout, Arc::clone(&handover));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEADERS_WITHIN)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let ended = match stopping.run_until_cancelled(answer(&mut connection, &handover)).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            cut.run_until_cancelled(answer(&mut connection, &handover)).await.unwrap_or(Ok(None))
        }
    };
    match ended {
        Ok(None) => {}
        // What was closed to make room does not become a stream.
        Ok(Some(handed)) if place.becomes_stream() => {
            let parts = connection.into_parts();
            let socket = parts.io.into_inner().into_inner();
            match Streaming::new(socket, client_timeout, pressure, handed, parts.read_buf.len()) {
                Ok(streaming) => drop(tasks.spawn(write(streaming, place, cut))),
                Err(error) => tracing::error!(%error, "a stream cannot begin"),
            }
        }
        Ok(Some(_)) => {}
        Err(error) => tracing::debug!(%error, "a connection broke"),
    }
}

/// Answers requests until the connection ends, or has become a stream.
async fn answer(
    connection: &mut http1::Connection<TokioIo<Socket>, Named>,
    handover: &Handover,
) -> hyper::Result<Option<Handed>> {
    poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
        Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
        Poll::Pending => handover.take().map_or(Poll::Pending, |handed| Poll::Ready(Ok(Some(handed)))),
    })
    .await
}

/// Writes a stream until it has ended, its client is gone, or there is no more time.
async fn write(streaming: Streaming, place: Arc<Connection>, cut: CancellationToken) {
    let ended = tokio::select! {
        biased;
        () = poll_on_wake(cut.cancelled()) => Ok(()),
        ended = streaming => ended,
    };
    // The socket is closed now.
    drop(place);
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Bounds what the kernel does for a client.
///
/// What waits to be sent: the kernel's own bound is megabytes for each client, and a third of them has to be taken before
/// anything can be written again, so that a slow client would look like one that takes nothing. And how long it waits for a
/// client that has vanished without a word: its own bound is a quarter of an hour.
fn bound_kernel(stream: &TcpStream, client_timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        if let Err(error) = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT cannot be set");
        }
        if let Err(error) = socket.set_tcp_user_timeout(Some(client_timeout)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT cannot be set");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, client_timeout);
}

/// The service with the name of who is connected, and with a place for the stream that the connection may become.
struct Named {
    service: TowerToHyperService<Router>,
    peer: SocketAddr,
    place: Arc<Connection>,
    handover: Arc<Handover>,
}

impl Service<Request<Incoming>> for Named {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.place.asked();
        let version = request.version();
        request.extensions_mut().insert(Peer(self.peer));
        let response = self.service.call(request);
        let handover = Arc::clone(&self.handover);
        Box::pin(async move {
            let response = response.await?;
            if response.extensions().get::<Streamed>().is_none() {
                return Ok(response);
            }
            handover.put(Handed { response, version });
            // hyper is dropped while it waits.
            std::future::pending().await
        })
    }
}

#[cfg(test)]
mod tests;
