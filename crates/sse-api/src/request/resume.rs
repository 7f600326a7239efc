//! Where a stream begins: the id of an event, or an instant.

use feed::{Begin, EventId};
use fhir::{ExportRequest, Issue, IssueType, Outcome};
use http::HeaderMap;

/// Where a client left off.
pub(crate) struct Resume {
    pub(crate) begin: Begin,
    /// The id that it came with, as it gave it.
    pub(crate) last_event_id: Option<Vec<u8>>,
}

impl Resume {
    /// The header wins over the query (a browser that comes back sends the newer one in the header), what a library adds to the
    /// URL over what that was written with, and all over `_since`. An empty id is none: some clients send one before their
    /// first event.
    pub(crate) fn of(headers: &HeaderMap, request: &ExportRequest) -> Result<Self, Outcome> {
        let since = request.since;
        let header = headers.get_all("last-event-id").iter().find(|value| !value.is_empty());
        let library = request.library_event_id.as_deref().map(str::as_bytes);
        if let Some(bytes) = header.map(|value| value.as_bytes()).or(library) {
            // A library that gives an id which cannot be read would never let go of it.
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

    /// Whether the stream goes on from an event.
    pub(crate) fn has_position(&self) -> bool {
        matches!(&self.begin, Begin::After { id: Some(id), .. } if *id != EventId::beginning())
    }
}
