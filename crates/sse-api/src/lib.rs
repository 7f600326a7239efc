//! The feed out to HTTP.
//!
//! It owns routes, negotiation, the streams of Server-Sent Events, limits, metrics and health. It knows
//! nothing of Postgres: changes come from a [`feed::Feed`], and what is to be told of the database comes as a
//! [`SourceSnapshot`]. Read [`Server`] first, then `stream`.

mod address;
mod asking;
mod browser_policy;
mod cors;
mod export;
mod health;
mod host;
mod listen;
mod log_limit;
mod metrics;
mod notices;
mod pages;
mod place;
mod refusal;
mod routes;
#[cfg(test)]
mod script;
mod server;
mod source;
mod sse;
mod standby;
mod start;
mod stream;
mod streams;
mod subscribe;
mod whose;

pub use host::{InvalidPublicUrl, PublicUrl};
pub use listen::ListenError;
pub use server::{Server, Settings, bind};
pub use source::{Fact, SourceSnapshot, SourceStatus};
pub use sse::EventStream;
pub use subscribe::{Subscribe, Subscriber};
