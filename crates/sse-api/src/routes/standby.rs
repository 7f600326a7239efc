//! The routes of a standby, while another process holds the slot: live, not ready, and everything else
//! is told to retry.

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

/// The routes. `detail` is a sentence for operators about the active process.
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
        .fallback(retry_later)
        .layer(from_fn(restrict))
}

/// Rejects a request for now. An EventSource gets its event id back, so that it resumes after the same event.
async fn retry_later(request: Request) -> Response {
    let headers = request.headers();
    let mode = Negotiated::from_headers(headers).mode;
    let id = headers.get_all("last-event-id").iter().find(|value| !value.is_empty());
    let last_event_id = id.map(|value| value.as_bytes().to_vec());
    Rejection::Retryable { why: RetryReason::Unavailable, mode, last_event_id }.into_response()
}
