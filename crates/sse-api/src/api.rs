//! What the routes share.

use crate::metrics::Metrics;
use crate::request::hosts::Hosts;
use crate::source::SourceStatus;
use crate::stream::registry::Streams;
use fhir::Instant;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// All that a request needs.
pub(crate) struct Api<F> {
    pub(crate) feed: F,
    pub(crate) source: SourceStatus,
    pub(crate) hosts: Hosts,
    pub(crate) streams: Arc<Streams>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
    pub(crate) started: Instant,
}
