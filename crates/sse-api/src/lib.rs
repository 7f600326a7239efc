//! The feed out to HTTP.
//!
//! It owns routes, negotiation, the streams of Server-Sent Events, limits, metrics and health. It knows
//! nothing of Postgres: changes come from a [`feed::Feed`], and what is to be told of the database comes as a
//! [`SourceSnapshot`]. Read [`Server`] first, then `stream`.

mod admin;
mod api;
mod clock;
mod export;
mod feed_handle;
mod limits;
mod metrics;
mod request;
mod response;
mod routes;
#[cfg(test)]
mod scripted_feed;
mod server;
mod source;
mod stream;
mod transport;

pub use feed_handle::{FeedHandle, FeedStream};
pub use request::hosts::{InvalidPublicUrl, PublicUrl};
pub use server::{Server, ServerSettings, bind};
pub use source::{Fact, SourceProbe, SourceSnapshot};
pub use stream::framing::EventStream;
pub use transport::listener::{ListenError, is_loopback};
