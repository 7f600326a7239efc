//! Where a stream begins: the id of an event, or an instant.

use feed::{Begin, EventId};
use fhir::{ExportRequest, Issue, IssueType, Outcome};
use http::HeaderMap;

/// The start of a stream.
pub(crate) struct Resume {
    pub(crate) begin: Begin,
    /// The event id as the client sent it.
    pub(crate) last_event_id: Option<Vec<u8>>,
}

impl Resume {
    /// Precedence: the header (a reconnecting browser sends the newest id there), the parameter that a
    /// library adds, `_lastEventId`, `_since`. An empty id counts as absent: some clients send one before
    /// their first event.
    pub(crate) fn of(headers: &HeaderMap, request: &ExportRequest) -> Result<Self, Outcome> {
        let since = request.since;
        let header = headers.get_all("last-event-id").iter().find(|value| !value.is_empty());
        let library = request.library_event_id.as_deref().map(str::as_bytes);
        if let Some(bytes) = header.map(|value| value.as_bytes()).or(library) {
            // An id that cannot be read leads to a reset: rejected, a library would repeat it forever.
            let id = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
            return Ok(Self { begin: Begin::After { id, since }, last_event_id: Some(bytes.to_vec()) });
        }
        let Some(text) = request.last_event_id.as_deref() else {
            return Ok(Self { begin: Begin::Since(since), last_event_id: None });
        };
        let id: EventId = text.parse().map_err(|error| {
            let diagnostics = format!("_lastEventId is {error}: give the id of an event as it was received");
            Outcome::new(Issue::error(IssueType::Value, diagnostics).about("_lastEventId"))
        })?;
        Ok(Self {
            begin: Begin::After { id: Some(id), since },
            last_event_id: Some(text.as_bytes().to_vec()),
        })
    }

    /// Whether the stream continues after an event.
    pub(crate) fn has_position(&self) -> bool {
        matches!(&self.begin, Begin::After { id: Some(id), .. } if *id != EventId::beginning())
    }
}
