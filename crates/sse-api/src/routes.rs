//! Which path is answered by what.

use crate::browser_policy::restrict;
use crate::cors;
use crate::export::export;
use crate::health;
use crate::host::{BadHost, ForeignHost, Hosts};
use crate::log_limit::LogLimit;
use crate::metrics::{self, Metrics};
use crate::pages;
use crate::place::Place;
use crate::refusal::{FHIR_JSON, Refusal};
use crate::source::SourceStatus;
use crate::streams::Streams;
use crate::subscribe::Subscribe;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use fhir::{Instant, IssueType};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// All that a request needs.
pub(crate) struct Api<F> {
    pub(crate) feed: F,
    pub(crate) source: SourceStatus,
    pub(crate) hosts: Hosts,
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
    pub(crate) started: Instant,
    /// How often the log says that somebody used another name.
    pub(crate) foreign_hosts: LogLimit,
}

/// Who is connected: an extension of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The routes, and beside them those of `others`, which the same names and policies protect.
pub(crate) fn router<F: Subscribe>(api: Arc<Api<F>>, others: Router) -> Router {
    Router::new()
        .merge(others.with_state(()))
        .route("/metrics", get(scrape::<F>))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready::<F>))
        .route("/fhir", any(fhir::<F>))
        .route("/fhir/", any(fhir::<F>))
        .route("/fhir/{*path}", any(fhir::<F>))
        .fallback(nothing)
        .method_not_allowed_fallback(only_reading)
        .layer(from_fn_with_state(Arc::clone(&api), own_name::<F>))
        .layer(from_fn(restrict))
        .with_state(api)
}

/// Answers only requests that used our own names. Probes come by whatever name the orchestrator has for us, and are told yes
/// or no whatever it is; what is for people and monitors is told under our names and under addresses.
async fn own_name<F: Subscribe>(State(api): State<Arc<Api<F>>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/health/") {
        return next.run(request).await;
    }
    let checked =
        if path == "/metrics" { api.hosts.check_or_address(&request) } else { api.hosts.check(&request) };
    let allowed = cors::allowed_origin(&api.hosts, request.headers());
    let mut response = match checked {
        Ok(()) if allowed.is_some() && cors::is_preflight(request.method(), request.headers()) => {
            cors::preflight()
        }
        Ok(()) => next.run(request).await,
        Err(BadHost::NotOurs(host)) => misdirected(&api, &host),
        Err(BadHost::Unreadable) => refused(
            StatusCode::BAD_REQUEST,
            IssueType::Invalid,
            "send one Host header with a host and, if need be, a port",
        ),
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Prefer, Origin"));
    if let Some(origin) = allowed {
        cors::allow(origin, headers);
    }
    response
}

/// Says which name came, and what makes it ours: in a container or a cluster that is seldom the one that somebody thinks of.
fn misdirected<F>(api: &Api<F>, host: &ForeignHost) -> Response {
    if let Some(unsaid) = api.foreign_hosts.allow() {
        tracing::warn!(
            %host,
            unsaid,
            "a request named a host that is not ours and was refused: if clients are to use it, start with \
             --public-url http://{host} (https:// behind a proxy with TLS)"
        );
    }
    refused(
        StatusCode::MISDIRECTED_REQUEST,
        IssueType::Forbidden,
        &format!(
            "the name in Host, '{host}', is not one of this service: use localhost, 127.0.0.1 or [::1], or have the \
             operator start it with --public-url http://{host} (https:// behind a proxy with TLS)"
        ),
    )
}

async fn fhir<F: Subscribe>(State(api): State<Arc<Api<F>>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let place = Place::of(parts.uri.path());
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    match place {
        Place::Nothing(why) => refused(StatusCode::NOT_FOUND, IssueType::NotFound, &why),
        Place::Export(level) if reads || parts.method == Method::POST => {
            let Some(Peer(peer)) = parts.extensions.get().copied() else {
                return refused(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    IssueType::Exception,
                    "the connection has no peer",
                );
            };
            export(&api, level, peer, &parts).await
        }
        Place::Front if reads => pages::front(&api.hosts.base_url(&parts.headers), &parts.headers),
        Place::Metadata if reads => {
            content(FHIR_JSON, pages::capability_statement(&api.hosts.base_url(&parts.headers), api.started))
        }
        _ => only_reading().await,
    }
}

pub(crate) async fn live() -> Response {
    content(pages::JSON, r#"{"live":true}"#)
}

async fn ready<F: Subscribe>(State(api): State<Arc<Api<F>>>, request: Request) -> Response {
    let (ready, details) =
        health::readiness(&api.feed.status(), &(api.source)(), api.stopping.is_cancelled());
    readiness(ready, details.to_string(), api.hosts.check_or_address(&request).is_ok())
}

/// The answer to whether we are ready: the details, which name the database and its sessions, only under a host of ours.
pub(crate) fn readiness(ready: bool, details: String, host_is_ours: bool) -> Response {
    let body = if host_is_ours { details } else { format!("{{\"ready\":{ready}}}") };
    let mut response = content(pages::JSON, body);
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn scrape<F: Subscribe>(State(api): State<Arc<Api<F>>>) -> Response {
    match api.metrics.scrape(&api.feed.status(), &(api.source)()) {
        Ok(text) => content(HeaderValue::from_static(metrics::CONTENT_TYPE), text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            let mut response = content(HeaderValue::from_static("text/plain"), "metrics cannot be written\n");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn nothing() -> Response {
    refused(StatusCode::NOT_FOUND, IssueType::NotFound, "there is nothing here: see /fhir/ for the URLs")
}

async fn only_reading() -> Response {
    let mut response = refused(
        StatusCode::METHOD_NOT_ALLOWED,
        IssueType::NotSupported,
        "use GET or HEAD: this service only reads",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn refused(status: StatusCode, code: IssueType, diagnostics: &str) -> Response {
    Refusal::lasting(status, code, diagnostics).into_response()
}

/// A small answer, newly made.
pub(crate) fn content(media_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
