//! Responses that are made whole, and their media types.

use axum::body::Body;
use axum::response::Response;
use fhir::{IssueType, Outcome};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};

/// The media type of FHIR's JSON.
pub(crate) const FHIR_JSON: HeaderValue = HeaderValue::from_static("application/fhir+json");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A small answer, newly made.
pub(crate) fn content(media_type: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An OperationOutcome as a response.
pub(crate) fn outcome(status: StatusCode, outcome: &Outcome) -> Response {
    let mut response = content(FHIR_JSON, outcome.to_json());
    *response.status_mut() = status;
    response
}

/// An OperationOutcome with one error as a response.
pub(crate) fn error(status: StatusCode, code: IssueType, diagnostics: &str) -> Response {
    outcome(status, &Outcome::error(code, diagnostics))
}
