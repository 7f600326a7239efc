//! A subscriber for fhir-tail, for programs that want its changes without losing one.
//!
//! [`Subscriber`] follows a stream over all its connections: it resumes after the last event, waits with back-off, and
//! reads an event into its [`Content`] without copying a resource. [`record`] writes a stream to files, each event once
//! whatever ends the program; `fhir-tail tail` is built on it. [`sse::Parser`] alone reads Server-Sent Events.
//!
//! ```no_run
//! use client::{Content, Credentials, NoticeKind, Selection, Step, Subscriber, Target};
//! use std::ops::ControlFlow;
//!
//! # async fn follow(saved: Option<String>) -> Result<(), client::Error> {
//! let types = ["Patient".to_owned()];
//! let selection = Selection { types: &types, ..Selection::default() };
//! let target = Target::new("http://127.0.0.1:8080/fhir", selection)?;
//! let mut subscriber = Subscriber::new(target, Credentials::default(), saved)?;
//! loop {
//!     let step = subscriber.next(|event, content| {
//!         match content {
//!             Content::Resource => println!("{}: {} bytes", event.name, event.data.len()),
//!             Content::Deletion(gone) => println!("deleted: {}/{}", gone.resource_type, gone.id),
//!             Content::Notice(notice) if notice.kind == NoticeKind::ResetAll => println!("forget everything"),
//!             Content::Notice(_) => {}
//!         }
//!         ControlFlow::Continue(())
//!     });
//!     match step.await? {
//!         // What was printed is done: keep this id to resume after it.
//!         Step::Received(_) => println!("at {:?}", subscriber.last_event_id()),
//!         Step::Disconnected { reason, retry_in } => println!("{reason}: again in {retry_in:?}"),
//!         Step::Connected | Step::Stopped(_) => {}
//!     }
//! }
//! # }
//! ```

mod backoff;
mod connection;
mod content;
mod error;
mod files;
pub mod sse;
mod subscriber;
mod target;

pub use backoff::Backoff;
pub use connection::Credentials;
pub use content::{Content, Deletion, NotUnderstood, Notice, NoticeKind};
pub use error::{Error, Mismatch, Result};
pub use files::{
    Change, Destination, Download, IN_FOLDER, LineFormat, Live, Position, Recording, Update, record,
};
pub use reqwest::header::{HeaderName, HeaderValue};
pub use subscriber::{Step, Subscriber};
pub use target::{Selection, Target};
