//! The operation `$export`: turns a request into a stream or a rejection.

use crate::api::Api;
use crate::feed_handle::FeedHandle;
use crate::request::negotiate::{Negotiated, RESPOND_EVENTSOURCE, ResponseMode};
use crate::request::resume::Resume;
use crate::stream::event_body::{StreamOptions, event_body};
use crate::stream::existence::{ExistenceError, check_existence, recheck_group};
use crate::stream::rejection::{Rejection, RetryReason, stream_headers};
use crate::stream::start_notice::start;
use crate::transport::Detachable;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use fhir::{ExportRequest, IssueType, Level, Patients, ResourceType};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;

/// Answers a request for the operation, and counts rejections.
pub(crate) async fn export<F: FeedHandle>(
    api: &Arc<Api<F>>,
    level: Level,
    peer: SocketAddr,
    parts: &Parts,
) -> Response {
    match begin(api, level, peer, parts).await {
        Ok(response) => response,
        Err(refusal) => {
            api.metrics.refusals.with_label_values(&[refusal.status().as_str()]).inc();
            refusal.into_response()
        }
    }
}

async fn begin<F: FeedHandle>(
    api: &Arc<Api<F>>,
    level: Level,
    peer: SocketAddr,
    parts: &Parts,
) -> Result<Response, Rejection> {
    implemented(&level, &parts.method)?;
    let negotiated = Negotiated::from_headers(&parts.headers);
    match negotiated.mode {
        ResponseMode::StreamByPrefer | ResponseMode::StreamByAccept => {}
        ResponseMode::Asynchronous => {
            return Err(not_implemented(
                "Prefer: respond-async is not supported yet: ask for a stream with Prefer: respond-eventsource",
            ));
        }
        ResponseMode::Unspecified => {
            return Err(Rejection::permanent(
                StatusCode::BAD_REQUEST,
                IssueType::Invalid,
                "ask for a stream with Prefer: respond-eventsource (and Accept: application/fhir+json) or with \
                 Accept: text/event-stream",
            ));
        }
    }
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let request = ExportRequest::parse(level, pairs, negotiated.handling)
        .map_err(|outcome| Rejection::Permanent(StatusCode::BAD_REQUEST, outcome))?;
    let resume = Resume::of(&parts.headers, &request)
        .map_err(|outcome| Rejection::Permanent(StatusCode::BAD_REQUEST, outcome))?;

    let refuse = |why, last_event_id| Err(Rejection::Retryable { why, mode: negotiated.mode, last_event_id });
    if api.stopping.is_cancelled() {
        return refuse(RetryReason::Stopping, resume.last_event_id);
    }
    // A client with a position can be served from the journal; any other needs the tables.
    if !resume.has_position() && !(api.source)().connected {
        return refuse(RetryReason::Unavailable, resume.last_event_id);
    }
    let existence = match resume.has_position() {
        true => recheck_group(&api.feed, &request).await.map(|()| Patients::none()),
        false => check_existence(&api.feed, &request, negotiated.handling).await,
    };
    let missing = match existence {
        Ok(missing) => missing,
        Err(ExistenceError::Permanent(status, outcome)) => return Err(Rejection::Permanent(status, outcome)),
        Err(ExistenceError::Retryable(why)) => return refuse(why, resume.last_event_id),
    };
    let mut response = if parts.method == Method::HEAD {
        // A body of unknown length, so that the headers equal those of a GET.
        Response::new(
            Body::from_stream(futures_util::stream::empty::<Result<bytes::Bytes, std::io::Error>>()),
        )
    } else {
        let Some(open) = api.streams.open(level_name(&request.level), peer) else {
            return refuse(RetryReason::StreamLimit, resume.last_event_id);
        };
        let journal_begins = api.feed.status().journal_begins;
        let start = start(&request, &resume, &missing, journal_begins);
        let options = StreamOptions { start, heartbeat: request.heartbeat };
        let subscriber = api.feed.subscribe(request.filter, resume.begin);
        let body = Body::from_stream(event_body(subscriber, options, open, api.stopping.clone()));
        let mut response = Response::new(body);
        response.extensions_mut().insert(Detachable);
        response
    };
    stream_headers(response.headers_mut());
    if negotiated.mode == ResponseMode::StreamByPrefer {
        let applied = HeaderValue::from_static(RESPOND_EVENTSOURCE);
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// Rejects methods and levels that are not implemented.
fn implemented(level: &Level, method: &Method) -> Result<(), Rejection> {
    if method == Method::POST {
        return Err(not_implemented("POST is not supported yet: use GET with parameters in the query"));
    }
    match level {
        Level::Type(ResourceType::GROUP) => Err(Rejection::permanent(
            StatusCode::NOT_FOUND,
            IssueType::NotFound,
            "for the resources of a Group's members name the Group: /fhir/Group/{id}/$export; for the Groups themselves use \
             /fhir/$export?_type=Group",
        )),
        Level::System | Level::Type(_) | Level::AllPatients | Level::Patient(_) | Level::Group(_) => Ok(()),
    }
}

fn not_implemented(diagnostics: &str) -> Rejection {
    Rejection::permanent(StatusCode::NOT_IMPLEMENTED, IssueType::NotSupported, diagnostics)
}

/// The level for logs, never an id.
const fn level_name(level: &Level) -> &'static str {
    match level {
        Level::System => "system",
        Level::Type(_) => "type",
        Level::AllPatients => "all-patients",
        Level::Patient(_) => "patient",
        Level::Group(_) => "group",
    }
}
