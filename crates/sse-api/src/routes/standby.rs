//! What is answered while another process serves and we wait to stand in for it: that we live, that we are not ready,
//! and to everyone else to come back.

use crate::request::browser_policy::restrict;
use crate::request::hosts::Hosts;
use crate::request::negotiate::Negotiated;
use crate::routes::{live, readiness};
use crate::stream::rejection::{Rejection, RetryReason};
use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;

/// The routes. `detail`: whom we stand by for, in a sentence for people.
pub(crate) fn router(detail: &str, hosts: Hosts) -> Router {
    let details = json!({
        "ready": false,
        "stopping": false,
        "database": { "connected": false, "detail": detail },
    });
    let details = details.to_string();
    Router::new()
        .route("/health/live", get(live))
        .route(
            "/health/ready",
            get(async move |request: Request| {
                readiness(false, details, hosts.check_or_address(&request).is_ok())
            }),
        )
        .fallback(come_back)
        .layer(from_fn(restrict))
}

/// A client keeps the id that it came with.
async fn come_back(request: Request) -> Response {
    let headers = request.headers();
    let mode = Negotiated::from_headers(headers).mode;
    let id = headers.get_all("last-event-id").iter().find(|value| !value.is_empty());
    let last_event_id = id.map(|value| value.as_bytes().to_vec());
    Rejection::Retryable { why: RetryReason::Unavailable, mode, last_event_id }.into_response()
}
