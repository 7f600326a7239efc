//! Errors before a stream has begun.
//!
//! No browser's EventSource comes back from any status but 200. So to a request by `Accept` alone, a refusal
//! that passes is a stream of one frame, with `retry:` set to the wait; everyone else gets the status
//! and `Retry-After`. Refusals that last keep their status for everyone.

use crate::request::negotiate::{Asked, EVENT_STREAM};
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
pub(crate) enum Passing {
    /// The service stops.
    Stopping,
    /// The database is away.
    Unavailable,
    /// The database cannot tell whose a resource was.
    NoPatients,
    /// As many streams as there may be are open.
    Full,
}

impl Passing {
    const fn status(self) -> StatusCode {
        match self {
            Self::Stopping | Self::Unavailable | Self::NoPatients => StatusCode::SERVICE_UNAVAILABLE,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// In seconds; drawn, so that those who were refused together do not come back together.
    const fn wait(self) -> RangeInclusive<u64> {
        match self {
            Self::Stopping | Self::Unavailable => 2..=6,
            Self::NoPatients | Self::Full => 10..=30,
        }
    }

    const fn code(self) -> NoticeCode {
        match self {
            Self::Stopping | Self::Unavailable | Self::NoPatients => NoticeCode::Transient,
            Self::Full => NoticeCode::Throttled,
        }
    }

    /// For clients.
    const fn diagnostics(self) -> &'static str {
        match self {
            Self::Stopping => "the service is stopping: come back in a few seconds",
            Self::Unavailable => "the database is not available: come back in a few seconds",
            Self::NoPatients => {
                "the database does not tell yet whose a resource was, or by an index who is in it: its operator runs \
                 'fhir-tail migrate', and 'fhir-tail check' says what is missing"
            }
            Self::Full => "as many streams as there may be are open: close one, or come back later",
        }
    }
}

/// Why there is no stream.
pub(crate) enum Refusal {
    /// The request would be refused again.
    Lasting(StatusCode, Outcome),
    /// It could be answered later.
    Passing {
        /// Why not now.
        why: Passing,
        /// How the stream was asked for.
        asked: Asked,
        /// The id that the client gave: it gets it back byte for byte, so that its next attempt is the same as this one.
        came_with: Option<Vec<u8>>,
    },
}

impl Refusal {
    /// One that lasts.
    pub(crate) fn lasting(status: StatusCode, code: IssueType, diagnostics: &str) -> Self {
        Self::Lasting(status, Outcome::error(code, diagnostics))
    }

    /// The label of the metric: the status, of a frame for an EventSource as well.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Lasting(status, _) => *status,
            Self::Passing { why, .. } => why.status(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Lasting(status, outcome) => response::outcome(status, &outcome),
            Self::Passing { why, asked, came_with } => passing(why, asked, came_with),
        }
    }
}

fn passing(why: Passing, asked: Asked, came_with: Option<Vec<u8>>) -> Response {
    let wait = Duration::from_secs(fastrand::u64(why.wait()));
    let outcome = Outcome::notice(why.code(), why.diagnostics());
    if asked != Asked::Accepted {
        let mut rejected = response::outcome(why.status(), &outcome);
        rejected.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        return rejected;
    }
    let id = came_with.unwrap_or_else(|| EventId::beginning().to_string().into_bytes());
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
