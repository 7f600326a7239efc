//! The state that the routes share.

use crate::metrics::Metrics;
use crate::request::hosts::Hosts;
use crate::source::SourceProbe;
use crate::stream::registry::StreamRegistry;
use fhir::Instant;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The state that requests need.
pub(crate) struct Api<F> {
    pub(crate) feed: F,
    pub(crate) source: SourceProbe,
    pub(crate) hosts: Hosts,
    pub(crate) streams: Arc<StreamRegistry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
    pub(crate) started: Instant,
}
