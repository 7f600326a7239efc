//! A stream of Server-Sent Events: whether it can begin, its notices, its body, and its registration.

pub(crate) mod event_body;
pub(crate) mod existence;
pub(crate) mod framing;
mod notices;
pub(crate) mod registry;
pub(crate) mod rejection;
pub(crate) mod start_notice;
