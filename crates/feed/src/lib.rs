//! The feed of changes: published once, followed by any number of subscribers, from any position,
//! without a gap and without a duplicate.
//!
//! Read [`Feed`] first, then the folders in the order of a change: [`Publisher`] → `hub` and `journal` →
//! `subscriber` → `delivery`. `routing` decides which changes a request concerns, `replay` reads the
//! tables, `group` follows the members of a Group. The crate knows neither Postgres (it asks a
//! [`Source`] for watermarks and pages) nor HTTP (a [`Framing`] makes the bytes).
//!
//! # Example
//!
//! ```
//! use feed::*;
//! use std::sync::Arc;
//!
//! /// Tables without rows.
//! struct Tables;
//!
//! impl Source for Tables {
//!     fn watermark(&self) -> Answer<'_, Sample> {
//!         let safe_time = fhir::Instant::from_unix_micros(500);
//!         let watermark = Watermark { safe_time, fence_lsn: Lsn::new(10) };
//!         let taken = tokio::time::Instant::now();
//!         Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
//!     }
//!     fn confirm(&self) -> Answer<'_, ()> {
//!         Box::pin(async { Ok(()) })
//!     }
//!     fn present(
//!         &self,
//!         _: Option<fhir::Instant>,
//!         _: fhir::TypeSet,
//!         _: Option<Arc<fhir::Patients>>,
//!     ) -> Answer<'_, Vec<(Kind, fhir::ResourceType)>> {
//!         Box::pin(async { Ok(Vec::new()) })
//!     }
//!     fn page<'a>(&'a self, _: PageRequest, _: &'a mut dyn PageRows) -> Answer<'a, Page> {
//!         Box::pin(async { Ok(Page::default()) })
//!     }
//!     fn tombstones_purged(&self) -> Answer<'_, Option<fhir::Instant>> {
//!         Box::pin(async { Ok(None) })
//!     }
//!     fn holding_back(&self) -> Option<String> {
//!         None
//!     }
//! }
//!
//! /// One line per change.
//! struct Lines;
//!
//! impl Framing for Lines {
//!     fn begin(&self, _id: &str, _event: fhir::ResourceType, _out: &mut Vec<u8>) {}
//!     fn end(&self, out: &mut Vec<u8>) {
//!         out.push(b'\n');
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let options = Options {
//!     directory: directory.path().join("journal"),
//!     retention_bytes: 1 << 30,
//!     retention_age: std::time::Duration::from_secs(3600),
//!     concurrent_pages: 1,
//!     held_bytes: 1 << 20,
//!     base_urls: fhir::BaseUrls::default(),
//! };
//! let (feed, mut publisher) = Feed::open(options, Arc::new(Lines))?;
//! feed.set_source(Arc::new(Tables));
//! let origin = Origin { system: 1, timeline: 1, identity: String::new() };
//! let since = fhir::Instant::from_unix_micros(100);
//! publisher.begin_epoch(origin, Lsn::new(10), since, false).await?;
//!
//! let mut subscription = feed.subscribe(fhir::Filter::everything(), Begin::Since(None));
//! while !matches!(subscription.next().await?, Item::Notice(Notice::Live { .. })) {}
//!
//! let (commit_lsn, stamp) = (Lsn::new(100), fhir::Instant::from_unix_micros(1_000));
//! let change = Change {
//!     position: Position::first_at(commit_lsn),
//!     stamp,
//!     resource_type: fhir::ResourceType::PATIENT,
//!     kind: Kind::Upsert,
//!     patients: fhir::Patients::from_ids(["p1"]),
//!     before: Before::Nothing,
//!     group_before: None,
//!     tick: None,
//!     data: r#"{"resourceType":"Patient","id":"p1"}"#.into(),
//! };
//! let transaction = Transaction { commit_lsn, xid: 1, commit_time: stamp };
//! let batch = Batch { changes: vec![change], transactions: vec![transaction], passed: None };
//! publisher.publish(batch).await?;
//!
//! let Item::Frames(frames) = subscription.next().await? else { panic!("no change") };
//! assert_eq!(&frames.bytes[..], b"{\"resourceType\":\"Patient\",\"id\":\"p1\"}\n");
//! # Ok(())
//! # }
//! ```

mod change;
mod delivery;
mod feed;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod hub;
mod id;
mod idle_timer;
mod journal;
mod poll_on_wake;
mod publisher;
mod rate;
mod replay;
mod restored;
mod routing;
mod shared;
mod source;
mod subscriber;

pub(crate) use change::Anchor;
pub use change::{Batch, Before, Change, Kind, Position, Transaction};
pub use delivery::framing::Framing;
pub use delivery::pressure::Pressure;
pub use delivery::subscription::{Begin, EventCounts, Frames, Item, Notice, Subscription};
pub use feed::{Feed, OpenError, Options, SampleBase, Status};
pub use group::GroupNow;
pub use id::{EventId, InvalidEventId};
pub use idle_timer::idle_timer;
pub use pg::{InvalidLsn, Lsn};
pub use poll_on_wake::poll_on_wake;
pub use publisher::{Origin, PublishError, Publisher};
pub use rate::Rate;
pub use restored::{Noted, note_restored};
pub use source::{
    Answer, LARGE_BYTES, Large, LargeRow, Page, PageRequest, PageRows, Sample, Scope, Source, SourceError,
    Wants, Watermark, WriteResource,
};
