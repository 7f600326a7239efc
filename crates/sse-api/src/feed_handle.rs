//! The feed as this crate uses it: a trait, so that tests can drive a stream.

use feed::{Begin, Feed, GroupNow, Item, Pressure, SourceError, Status, Subscription};
use fhir::{Filter, Patients};
use std::future::Future;

/// The feed.
pub trait FeedHandle: Clone + Send + Sync + 'static {
    /// One stream.
    type FeedStream: FeedStream;

    /// Starts a stream.
    fn subscribe(&self, filter: Filter, begin: Begin) -> Self::FeedStream;

    /// Those of the patients that are stored. Fails if the database is away, or lacks the columns and
    /// indexes for streams of patients.
    fn stored(&self, patients: Patients) -> impl Future<Output = Result<Patients, SourceError>> + Send;

    /// The current state of a Group. Fails like [`stored`](Self::stored).
    fn group(&self, id: &str) -> impl Future<Output = Result<GroupNow, SourceError>> + Send;

    /// The current state of the feed.
    fn status(&self) -> Status;

    /// The signal that other streams wait for memory that a stalled client holds.
    fn pressure(&self) -> Pressure;
}

/// The stream of one subscriber.
pub trait FeedStream: Send + 'static {
    /// The next item; `Err` ends the stream. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Item, SourceError>> + Send;

    /// The event id that covers everything [`next`](Self::next) has returned so far.
    fn id(&self) -> String;
}

impl FeedHandle for Feed {
    type FeedStream = Subscription;

    fn subscribe(&self, filter: Filter, begin: Begin) -> Subscription {
        Feed::subscribe(self, filter, begin)
    }

    fn stored(&self, patients: Patients) -> impl Future<Output = Result<Patients, SourceError>> + Send {
        Feed::stored(self, patients)
    }

    fn group(&self, id: &str) -> impl Future<Output = Result<GroupNow, SourceError>> + Send {
        Feed::group(self, id)
    }

    fn status(&self) -> Status {
        Feed::status(self)
    }

    fn pressure(&self) -> Pressure {
        Feed::pressure(self)
    }
}

impl FeedStream for Subscription {
    fn next(&mut self) -> impl Future<Output = Result<Item, SourceError>> + Send {
        Subscription::next(self)
    }

    fn id(&self) -> String {
        Subscription::id(self).to_string()
    }
}
