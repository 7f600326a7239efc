//! The routes.

pub(crate) mod standby;

use crate::admin::{capability, health, scrape, url_list};
use crate::api::Api;
use crate::export::export;
use crate::feed_handle::FeedHandle;
use crate::request::browser_policy::restrict;
use crate::request::endpoint::Endpoint;
use crate::request::host_guard::{HostGuard, host_guard};
use crate::response::{self, FHIR_JSON, JSON, content};
use crate::transport::Peer;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get};
use fhir::IssueType;
use http::header::ALLOW;
use http::{HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// The routes of this crate and `extra_routes`, behind the same host guard and browser policy.
pub(crate) fn router<F: FeedHandle>(api: Arc<Api<F>>, extra_routes: Router) -> Router {
    let guard = Arc::new(HostGuard::new(api.hosts.clone()));
    Router::new()
        .merge(extra_routes.with_state(()))
        .route("/metrics", get(metrics::<F>))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready::<F>))
        .route("/fhir", any(fhir::<F>))
        .route("/fhir/", any(fhir::<F>))
        .route("/fhir/{*path}", any(fhir::<F>))
        .fallback(nothing)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(guard, host_guard))
        .layer(from_fn(restrict))
        .with_state(api)
}

async fn fhir<F: FeedHandle>(State(api): State<Arc<Api<F>>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let endpoint = Endpoint::from_path(parts.uri.path());
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    match endpoint {
        Endpoint::NotFound(why) => response::error(StatusCode::NOT_FOUND, IssueType::NotFound, &why),
        Endpoint::Export(level) if reads || parts.method == Method::POST => {
            let Some(Peer(peer)) = parts.extensions.get().copied() else {
                return response::error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    IssueType::Exception,
                    "the address of the client is not known",
                );
            };
            export(&api, level, peer, &parts).await
        }
        Endpoint::UrlList if reads => url_list::front(&api.hosts.base_url(&parts.headers), &parts.headers),
        Endpoint::Capability if reads => content(
            FHIR_JSON,
            capability::capability_statement(&api.hosts.base_url(&parts.headers), api.started),
        ),
        _ => method_not_allowed().await,
    }
}

pub(crate) async fn live() -> Response {
    content(JSON, r#"{"live":true}"#)
}

async fn ready<F: FeedHandle>(State(api): State<Arc<Api<F>>>, request: Request) -> Response {
    let (ready, details) =
        health::readiness(&api.feed.status(), &(api.source)(), api.stopping.is_cancelled());
    readiness(ready, details.to_string(), api.hosts.check_or_address(&request).is_ok())
}

/// The readiness response. The details name the database and its sessions, so only accepted hosts get
/// them.
pub(crate) fn readiness(ready: bool, details: String, host_is_ours: bool) -> Response {
    let body = if host_is_ours { details } else { format!("{{\"ready\":{ready}}}") };
    let mut response = content(JSON, body);
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn metrics<F: FeedHandle>(State(api): State<Arc<Api<F>>>) -> Response {
    match scrape::scrape(&api.metrics, &api.feed.status(), &(api.source)()) {
        Ok(text) => content(HeaderValue::from_static(scrape::CONTENT_TYPE), text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            let mut response = content(HeaderValue::from_static("text/plain"), "metrics cannot be written\n");
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn nothing() -> Response {
    response::error(StatusCode::NOT_FOUND, IssueType::NotFound, "no such path: see /fhir/ for the URLs")
}

async fn method_not_allowed() -> Response {
    let mut response = response::error(
        StatusCode::METHOD_NOT_ALLOWED,
        IssueType::NotSupported,
        "use GET or HEAD: this service only reads",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
