//! The operation `$export`: from a request to a stream, or to the reason why there is none.

use crate::api::Api;
use crate::feed_handle::Subscribe;
use crate::request::negotiate::{Asked, Asking, RESPOND_EVENTSOURCE};
use crate::request::resume::Resume;
use crate::stream::event_body::{Opening, frames};
use crate::stream::existence::{NotThere, look, look_again};
use crate::stream::rejection::{Passing, Refusal, stream_headers};
use crate::stream::start_notice::start;
use crate::transport::Streamed;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use fhir::{ExportRequest, IssueType, Level, Patients, ResourceType};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;

/// Answers a request for the operation.
pub(crate) async fn export<F: Subscribe>(
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

async fn begin<F: Subscribe>(
    api: &Arc<Api<F>>,
    level: Level,
    peer: SocketAddr,
    parts: &Parts,
) -> Result<Response, Refusal> {
    implemented(&level, &parts.method)?;
    let asking = Asking::of(&parts.headers);
    match asking.asked {
        Asked::Preferred | Asked::Accepted => {}
        Asked::Asynchronous => {
            return Err(not_implemented(
                "Prefer: respond-async is not supported yet: ask for a stream with Prefer: respond-eventsource",
            ));
        }
        Asked::Nothing => {
            return Err(Refusal::lasting(
                StatusCode::BAD_REQUEST,
                IssueType::Invalid,
                "ask for a stream with Prefer: respond-eventsource (and Accept: application/fhir+json) or with \
                 Accept: text/event-stream",
            ));
        }
    }
    let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let request = ExportRequest::parse(level, pairs, asking.handling)
        .map_err(|outcome| Refusal::Lasting(StatusCode::BAD_REQUEST, outcome))?;
    let resume = Resume::of(&parts.headers, &request)
        .map_err(|outcome| Refusal::Lasting(StatusCode::BAD_REQUEST, outcome))?;

    let refuse = |why, came_with| Err(Refusal::Passing { why, asked: asking.asked, came_with });
    if api.stopping.is_cancelled() {
        return refuse(Passing::Stopping, resume.came_with);
    }
    // Who has a position can be served from the journal; who begins needs the tables.
    if !resume.has_position() && !(api.source)().connected {
        return refuse(Passing::Unavailable, resume.came_with);
    }
    let looked = match resume.has_position() {
        true => look_again(&api.feed, &request).await.map(|()| Patients::none()),
        false => look(&api.feed, &request, asking.handling).await,
    };
    let missing = match looked {
        Ok(missing) => missing,
        Err(NotThere::Lasting(status, outcome)) => return Err(Refusal::Lasting(status, outcome)),
        Err(NotThere::Passing(why)) => return refuse(why, resume.came_with),
    };
    let mut response = if parts.method == Method::HEAD {
        // A body of unknown length, so that the headers are those of a GET.
        Response::new(
            Body::from_stream(futures_util::stream::empty::<Result<bytes::Bytes, std::io::Error>>()),
        )
    } else {
        let Some(open) = api.streams.open(level_name(&request.level), peer) else {
            return refuse(Passing::Full, resume.came_with);
        };
        let journal_begins = api.feed.status().journal_begins;
        let start = start(&request, &resume, &missing, journal_begins);
        let opening = Opening { start, heartbeat: request.heartbeat };
        let subscriber = api.feed.subscribe(request.filter, resume.begin);
        let body = Body::from_stream(frames(subscriber, opening, open, api.stopping.clone()));
        let mut response = Response::new(body);
        response.extensions_mut().insert(Streamed);
        response
    };
    stream_headers(response.headers_mut());
    if asking.asked == Asked::Preferred {
        let applied = HeaderValue::from_static(RESPOND_EVENTSOURCE);
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// POST comes later.
fn implemented(level: &Level, method: &Method) -> Result<(), Refusal> {
    if method == Method::POST {
        return Err(not_implemented("POST is not supported yet: use GET with parameters in the query"));
    }
    match level {
        Level::Type(ResourceType::GROUP) => Err(Refusal::lasting(
            StatusCode::NOT_FOUND,
            IssueType::NotFound,
            "for the resources of a Group's members name the Group: /fhir/Group/{id}/$export; for the Groups themselves use \
             /fhir/$export?_type=Group",
        )),
        Level::System | Level::Type(_) | Level::AllPatients | Level::Patient(_) | Level::Group(_) => Ok(()),
    }
}

fn not_implemented(diagnostics: &str) -> Refusal {
    Refusal::lasting(StatusCode::NOT_IMPLEMENTED, IssueType::NotSupported, diagnostics)
}

/// The word for logs: never an id.
const fn level_name(level: &Level) -> &'static str {
    match level {
        Level::System => "system",
        Level::Type(_) => "type",
        Level::AllPatients => "all-patients",
        Level::Patient(_) => "patient",
        Level::Group(_) => "group",
    }
}
