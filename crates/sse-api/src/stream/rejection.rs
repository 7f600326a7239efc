//! Errors before a stream begins.
//!
//! A browser's EventSource reconnects only after status 200. So a request by `Accept` alone that can be
//! retried gets a stream of one frame whose `retry:` is the delay. Other clients get the status and
//! `Retry-After`. Permanent rejections have their status for all clients.

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

/// Why a stream cannot begin now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RetryReason {
    /// The service stops.
    Stopping,
    /// The database is away.
    Unavailable,
    /// The tables lack what streams of patients need.
    MigrationMissing,
    /// The stream limit is reached.
    StreamLimit,
}

impl RetryReason {
    const fn status(self) -> StatusCode {
        match self {
            Self::Stopping | Self::Unavailable | Self::MigrationMissing => StatusCode::SERVICE_UNAVAILABLE,
            Self::StreamLimit => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// In seconds. The delay is drawn at random, so that clients rejected together do not retry together.
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
                "the database lacks the columns or indexes for streams of patients: the operator runs \
                 'fhir-tail migrate'; 'fhir-tail check' lists what is missing"
            }
            Self::StreamLimit => "stream limit reached: close one or retry later",
        }
    }
}

/// Why there is no stream.
pub(crate) enum Rejection {
    /// A retry would be rejected again.
    Permanent(StatusCode, Outcome),
    /// A retry can succeed.
    Retryable {
        /// Why not now.
        why: RetryReason,
        /// How the stream was asked for.
        mode: ResponseMode,
        /// The event id that the client sent, returned byte for byte so that its next attempt is the same.
        last_event_id: Option<Vec<u8>>,
    },
}

impl Rejection {
    /// A permanent rejection with one error.
    pub(crate) fn permanent(status: StatusCode, code: IssueType, diagnostics: &str) -> Self {
        Self::Permanent(status, Outcome::error(code, diagnostics))
    }

    /// The label of the metric: the status, also when an EventSource gets a frame instead.
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
