//! What this crate asks of the feed, as a trait: so that a stream can be driven by a script as well.

use feed::{Begin, Feed, GroupNow, Item, Pressure, SourceError, Status, Subscription};
use fhir::{Filter, Patients};
use std::future::Future;

/// Where streams come from.
pub trait FeedHandle: Clone + Send + Sync + 'static {
    /// One stream.
    type FeedStream: FeedStream;

    /// Begins a stream.
    fn subscribe(&self, filter: Filter, begin: Begin) -> Self::FeedStream;

    /// Those of these patients who are stored. An error if the database is away, or cannot tell whose a resource was.
    fn stored(&self, patients: Patients) -> impl Future<Output = Result<Patients, SourceError>> + Send;

    /// A Group as it is now, or an error as of [`stored`](Self::stored).
    fn group(&self, id: &str) -> impl Future<Output = Result<GroupNow, SourceError>> + Send;

    /// Where the feed is.
    fn status(&self) -> Status;

    /// What tells a stream that others wait for the bytes that its client does not take.
    fn pressure(&self) -> Pressure;
}

/// The stream of one subscriber.
pub trait FeedStream: Send + 'static {
    /// What comes next; `Err` ends the stream. Can be dropped at any await point and called again.
    fn next(&mut self) -> impl Future<Output = Result<Item, SourceError>> + Send;

    /// The id of everything that [`next`](Self::next) has returned so far, in its text form.
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
