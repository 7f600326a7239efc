//! The server: wiring, start and graceful shutdown.
//!
//! On shutdown it stops accepting, ends each stream with the notice `shutdown`, and closes idle
//! connections. After [`GRACE`] it drops the rest, whose clients do not read. They lose nothing: they
//! resume after the last event that they read.

use crate::api::Api;
use crate::feed_handle::FeedHandle;
use crate::metrics::Metrics;
use crate::request::hosts::{Hosts, PublicUrl};
use crate::routes::{router, standby};
use crate::source::SourceProbe;
use crate::stream::registry::StreamRegistry;
use crate::transport::ConnectionContext;
use crate::transport::accept::accept;
use crate::transport::connections::{Connections, Limits};
use crate::transport::listener::{ListenError, listen};
use axum::Router;
use feed::Pressure;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long streams have to send their last frame: less than the ten seconds of the whole service.
const GRACE: Duration = Duration::from_secs(8);
/// Limit of connections without a stream: each may hold a request buffer of up to 16 KiB.
const MAX_WAITING: usize = 4096;

/// Addresses, limits and timeouts of the server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The URLs that clients use. Their hosts are accepted in requests.
    pub public_urls: Vec<PublicUrl>,
    /// Allow addresses that other machines can reach, although there is no authentication.
    pub insecure_no_auth: bool,
    /// Limit of open streams.
    pub max_streams: usize,
    /// Limit of open streams per client address. Loopback is exempt: proxies connect from there.
    pub max_streams_per_address: usize,
    /// Connections reserved for probes, the dashboard and requests, in addition to those of streams.
    pub spare_connections: usize,
    /// How long a client may read nothing while data waits for it before its connection is closed. It
    /// resumes with its last event id.
    pub client_timeout: Duration,
}

impl Default for ServerSettings {
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

/// A server that listens. Connections wait until it [runs](Self::run).
pub struct Server {
    listeners: Vec<(TcpListener, SocketAddr)>,
    hosts: Hosts,
    streams: Arc<StreamRegistry>,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
    client_timeout: Duration,
    extra_routes: Router,
}

/// Listens on the addresses in `settings`.
pub async fn bind(settings: ServerSettings) -> Result<Server, ListenError> {
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
    let streams = Arc::new(StreamRegistry::new(
        settings.max_streams,
        settings.max_streams_per_address,
        Arc::clone(&metrics),
    ));
    Ok(Server {
        listeners,
        hosts: Hosts::new(settings.public_urls),
        streams,
        connections,
        metrics,
        client_timeout: settings.client_timeout,
        extra_routes: Router::new(),
    })
}

impl Server {
    /// The addresses that it listens on, in the order of the settings, with the assigned ports.
    pub fn local_addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.listeners.iter().map(|(_, address)| *address)
    }

    /// Adds routes. They must not be below `/fhir`, `/health` or `/metrics`.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.extra_routes = self.extra_routes.merge(routes);
        self
    }

    /// Serves as a standby until `until` completes, and returns its result. `detail` is a sentence for
    /// operators about the active process.
    pub async fn stand_by<T>(&self, detail: &str, until: impl Future<Output = T>) -> T {
        let context = ConnectionContext {
            service: TowerToHyperService::new(standby::router(detail, self.hosts.clone())),
            client_timeout: self.client_timeout,
            // One response per connection, so that no connection is cut when this process takes over.
            keep_alive: false,
            pressure: Pressure::default(),
            connections: Arc::clone(&self.connections),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            metrics: Arc::clone(&self.metrics),
        };
        let accepting: FuturesUnordered<_> =
            self.listeners.iter().map(|(listener, _)| accept(listener, context.clone())).collect();
        tokio::select! {
            answer = until => answer,
            // They never complete.
            () = accepting.collect() => std::future::pending().await,
        }
    }

    /// Serves until `shutdown` is cancelled and every connection has ended, at most ten seconds later.
    pub async fn run<F: FeedHandle>(self, feed: F, source: SourceProbe, shutdown: CancellationToken) {
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
            started: crate::clock::now(),
        });
        let context = ConnectionContext {
            service: TowerToHyperService::new(router(api, self.extra_routes)),
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
            let context = context.clone();
            accepting.spawn(async move { accept(&listener, context).await });
        }
        accepting.close();
        accepting.wait().await;

        tracing::info!(streams = self.streams.open_count(), "closing streams");
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "closing connections of clients that do not read");
            cut.cancel();
            tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests;
