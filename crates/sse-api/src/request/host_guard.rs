//! The layer over all routes that rejects requests with an unknown host.

use crate::limits::LogLimit;
use crate::request::cors;
use crate::request::hosts::{ForeignHost, HostError, Hosts};
use crate::response;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use fhir::IssueType;
use http::header::VARY;
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::Duration;

/// The shortest interval between log lines about unknown hosts.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The accepted hosts, and the limit of log lines about others.
pub(crate) struct HostGuard {
    hosts: Hosts,
    log: LogLimit,
}

impl HostGuard {
    pub(crate) fn new(hosts: Hosts) -> Self {
        Self { hosts, log: LogLimit::new(LOG_EVERY) }
    }
}

/// Answers only requests with an accepted host. Probes are answered under any host, since the
/// orchestrator chooses it; `/metrics` also under IP addresses.
pub(crate) async fn host_guard(
    State(guard): State<Arc<HostGuard>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    if path.starts_with("/health/") {
        return next.run(request).await;
    }
    let checked =
        if path == "/metrics" { guard.hosts.check_or_address(&request) } else { guard.hosts.check(&request) };
    let allowed = cors::allowed_origin(&guard.hosts, request.headers());
    let mut response = match checked {
        Ok(()) if allowed.is_some() && cors::is_preflight(request.method(), request.headers()) => {
            cors::preflight()
        }
        Ok(()) => next.run(request).await,
        Err(HostError::Foreign(host)) => misdirected(&guard, &host),
        Err(HostError::Malformed) => response::error(
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

/// Names the unknown host and the setting that accepts it: in a container or a cluster it is rarely the
/// one that the operator expects.
fn misdirected(guard: &HostGuard, host: &ForeignHost) -> Response {
    if let Some(suppressed) = guard.log.allow() {
        tracing::warn!(
            %host,
            suppressed,
            "a request named an unknown host and was rejected: to accept it, start with \
             --public-url http://{host} (https:// behind a proxy with TLS)"
        );
    }
    response::error(
        StatusCode::MISDIRECTED_REQUEST,
        IssueType::Forbidden,
        &format!(
            "the name in Host, '{host}', is not a name of this service: use localhost, 127.0.0.1 or [::1], or have the \
             operator start it with --public-url http://{host} (https:// behind a proxy with TLS)"
        ),
    )
}
