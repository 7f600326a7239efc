//! Errors before a stream has begun.
//!
//! No browser's EventSource comes back from any status but 200. So to a request by `Accept` alone, a refusal
//! that passes is a stream of one frame, with `retry:` set to the wait; everyone else gets the status
//! and `Retry-After`. Refusals that last keep their status for everyone.

use crate::request::negotiate::{EVENT_STREAM, ResponseMode};
use crate::response;
use crate::stream::framing::outcome_frame;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use feed::EventId;
use fhir::{IssueType, NoticeCode, Outcome};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a stream cannot begin now and could later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RetryReason {
    /// The service stops.
    Stopping,
    /// The database is away.
    Unavailable,
    /// The database cannot tell whose a resource was.
    MigrationMissing,
    /// As many streams as there may be are open.
    StreamLimit,
}

impl RetryReason {
    const fn status(self) -> StatusCode {
        match self {
            Self::Stopping | Self::Unavailable | Self::MigrationMissing => StatusCode::SERVICE_UNAVAILABLE,
            Self::StreamLimit => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// In seconds; drawn, so that those who were refused together do not come back together.
    const fn retry_after(self) -> RangeInclusive<u64> {
        match self {
            Self::Stopping | Self::Unavailable => 2..=6,
            Self::MigrationMissing | Self::StreamLimit => 10..=30,
        }
    }

    const fn code(self) -> NoticeCode {
        match self {
            Self::Stopping | Self::Unavailable | Self::MigrationMissing => NoticeCode::Transient,
            Self::StreamLimit => NoticeCode::Throttled,
        }
    }

    /// For clients.
    const fn diagnostics(self) -> &'static str {
        match self {
            Self::Stopping => "the service is stopping: retry in a few seconds",
            Self::Unavailable => "the database is not available: retry in a few seconds",
            Self::MigrationMissing => {
                "the database does not tell yet whose a resource was, or by an index who is in it: its operator runs \
                 'fhir-tail migrate', and 'fhir-tail check' says what is missing"
            }
            Self::StreamLimit => "stream limit reached: close one or retry later",
        }
    }
}

/// Why there is no stream.
pub(crate) enum Rejection {
    /// The request would be refused again.
    Permanent(StatusCode, Outcome),
    /// It could be answered later.
    Retryable {
        /// Why not now.
        why: RetryReason,
        /// How the stream was asked for.
        mode: ResponseMode,
        /// The id that the client gave: it gets it back byte for byte, so that its next attempt is the same as this one.
        last_event_id: Option<Vec<u8>>,
    },
}

impl Rejection {
    /// One that lasts.
    pub(crate) fn permanent(status: StatusCode, code: IssueType, diagnostics: &str) -> Self {
        Self::Permanent(status, Outcome::error(code, diagnostics))
    }

    /// The label of the metric: the status, of a frame for an EventSource as well.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Permanent(status, _) => *status,
            Self::Retryable { why, .. } => why.status(),
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::Permanent(status, outcome) => response::outcome(status, &outcome),
            Self::Retryable { why, mode, last_event_id } => retryable(why, mode, last_event_id),
        }
    }
}

fn retryable(why: RetryReason, mode: ResponseMode, last_event_id: Option<Vec<u8>>) -> Response {
    let wait = Duration::from_secs(fastrand::u64(why.retry_after()));
    let outcome = Outcome::notice(why.code(), why.diagnostics());
    if mode != ResponseMode::StreamByAccept {
        let mut rejected = response::outcome(why.status(), &outcome);
        rejected.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        return rejected;
    }
    let id = last_event_id.unwrap_or_else(|| EventId::beginning().to_string().into_bytes());
    let mut response = Response::new(Body::from(outcome_frame(Some(wait), &id, &outcome.to_json())));
    stream_headers(response.headers_mut());
    response
}

/// The headers of every stream.
pub(crate) fn stream_headers(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
}
