//! Who listens: a process of its own, so that what it costs can be told from what the service costs.
//!
//! [`Crowd`] is the harness' end of it, [`process`] the other. They speak in lines of JSON.

mod crowd;
pub(crate) mod process;
mod scan;

pub(crate) use crowd::{Crowd, LIVE_ONLY, get};
pub(crate) use scan::numbers;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the client is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) address: SocketAddr,
    /// Requests, each with how many connections send it.
    pub(crate) requests: Vec<(String, usize)>,
    pub(crate) ready: Ready,
    /// Where to write when which event came, of events that are numbered (`latency-7`).
    pub(crate) record: Option<PathBuf>,
}

/// When a stream has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Ready {
    /// When the head of the answer is there.
    Head,
    /// When nchan's greeting is, a comment that looks like a frame and may come after the head.
    Greeted,
    /// When the notice `live` is, to its end.
    Live,
}

/// What was read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Frames.
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// When counting began (before the first connection was made, or when it was told to count).
    pub(crate) began: i64,
    /// When the last of it was read.
    pub(crate) ended: i64,
    /// Microseconds of processor time that the client has used for it.
    pub(crate) processor: i64,
}
