//! Event ids: all that is needed to go on from an event, in the id of that event.

/// An event id: a position in the feed, or a place within a replay. Opaque to clients; base64url, under
/// 64 bytes when live and under 256 in a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventId(());

/// The text is no id that this service gave out.
#[derive(Debug, thiserror::Error)]
#[error("not an event id of this service")]
pub struct InvalidEventId;

impl std::fmt::Display for EventId {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}

impl std::str::FromStr for EventId {
    type Err = InvalidEventId;
    fn from_str(_: &str) -> Result<Self, InvalidEventId> {
        unimplemented!()
    }
}

impl EventId {
    /// The id that means "from this request's beginning".
    pub fn beginning() -> Self {
        unimplemented!()
    }
}
