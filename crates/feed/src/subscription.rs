//! One subscriber: replay, journal and hub, one after the other, as one stream.

use crate::EventId;
use bytes::Bytes;
use fhir::{Instant, ResourceType};
use std::sync::Arc;

/// Where a subscriber begins.
#[derive(Clone, Debug)]
pub enum Begin {
    /// At the state of the tables: all of it, or what was stamped after an instant (then with deletions).
    Since(Option<Instant>),
    /// After an event that it got: `id`. If that cannot be, at a reset, which goes back to `since` (the
    /// request's own) where the id itself does not say from where.
    After {
        /// The id it came with; `None` if it was unreadable, which is a reset.
        id: Option<EventId>,
        /// The request's own `_since`.
        since: Option<Instant>,
    },
}

/// What a subscriber is told besides changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The replay has ended; `transaction_time` is the instant to use as the next `_since`.
    Live {
        /// W of the mark that the replay ended with.
        transaction_time: Option<Instant>,
    },
    /// The head has moved and nothing was sent for a while.
    Position,
    /// The id cannot be continued: what follows is the newest state of all that changed after an instant.
    Reset {
        /// Why, in a sentence for people.
        reason: &'static str,
    },
    /// As `Reset`, and what has not come again by `live` is to be dropped.
    ResetAll {
        /// Why, in a sentence for people.
        reason: &'static str,
    },
}

/// Frames of several changes, shared among subscribers where they can be.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The frames as they are sent.
    pub bytes: Bytes,
    /// How many events of each name they hold.
    pub tally: Arc<[(ResourceType, u32)]>,
}

/// What a subscriber gets next.
#[derive(Clone, Debug)]
pub enum Item {
    /// Changes.
    Frames(Frames),
    /// Something to be told.
    Notice(Notice),
    /// What the subscriber waits for, in a sentence for people (an OperationOutcome is not sent for it;
    /// it shows in logs and on the page).
    Waiting(String),
}

/// The stream of one subscriber. Dropping it costs nobody anything.
pub struct Subscription(());

impl Subscription {
    /// What comes next; `Err` ends the stream. Can be dropped at any await point and called again.
    pub async fn next(&mut self) -> Result<Item, crate::SourceError> {
        unimplemented!()
    }

    /// The id of everything that [`next`](Self::next) has returned so far: of the starting position
    /// before the first, then of the position passed.
    pub fn id(&self) -> EventId {
        unimplemented!()
    }
}
