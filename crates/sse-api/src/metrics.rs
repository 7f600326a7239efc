//! What the service counts itself, for Prometheus.

use fhir::{NoticeCode, RESOURCE_TYPES, ResourceType};
use http::StatusCode;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::sync::OnceLock;

/// Why a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndReason {
    /// The client went away, or its connection broke.
    Client,
    /// The service stops.
    Shutdown,
    /// The database is away and the stream cannot go on without it.
    Unavailable,
    /// The database refuses.
    Refused,
}

impl EndReason {
    /// Every reason, so that a metric exists before its first event.
    pub(crate) const ALL: [Self; 4] = [Self::Client, Self::Shutdown, Self::Unavailable, Self::Refused];

    /// The label of the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Shutdown => "shutdown",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// What the service counts.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) streams_open: IntGauge,
    streams_limit: IntGauge,
    pub(crate) connections_open: IntGauge,
    connections_limit: IntGauge,
    pub(crate) connections_closed: IntCounterVec,
    pub(crate) accept_errors: IntCounter,
    pub(crate) streams_ended: IntCounterVec,
    pub(crate) refusals: IntCounterVec,
    pub(crate) notices_sent: IntCounterVec,
    pub(crate) bytes_sent: IntCounter,
    events_sent: IntCounterVec,
    /// The counters of `events_sent` by type: looked up once, not for each chunk of each subscriber.
    by_type: [OnceLock<IntCounter>; RESOURCE_TYPES],
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = IntGauge::with_opts(
            Opts::new("fhir_tail_build_info", "Which release this is.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        let metrics = Self {
            streams_open: IntGauge::new("fhir_tail_streams_open", "StreamRegistry that are open.")?,
            streams_limit: IntGauge::new("fhir_tail_streams_limit", "StreamRegistry that may be open.")?,
            connections_open: IntGauge::new("fhir_tail_connections_open", "Connections of clients.")?,
            connections_limit: IntGauge::new(
                "fhir_tail_connections_limit",
                "Connections of clients that there may be.",
            )?,
            connections_closed: counters(
                "fhir_tail_connections_closed_total",
                "Connections without a stream that were closed to make room for new ones, by the limit that was reached.",
                "limit",
            )?,
            accept_errors: IntCounter::new(
                "fhir_tail_accept_errors_total",
                "Times no connection could be accepted, as when no file descriptors are left.",
            )?,
            streams_ended: counters(
                "fhir_tail_streams_ended_total",
                "StreamRegistry that ended, by reason.",
                "reason",
            )?,
            refusals: counters(
                "fhir_tail_refusals_total",
                "Requests for a stream that were refused, by status.",
                "status",
            )?,
            notices_sent: counters("fhir_tail_notices_sent_total", "Notices sent, by code.", "code")?,
            bytes_sent: IntCounter::new("fhir_tail_bytes_sent_total", "Bytes sent within streams.")?,
            events_sent: counters(
                "fhir_tail_events_sent_total",
                "Changes sent to clients, by the type of the event.",
                "type",
            )?,
            by_type: std::array::from_fn(|_| OnceLock::new()),
            registry,
        };
        // A counter that first shows as 1 has not increased, to Prometheus: what alerts go by is there from the start.
        for reason in EndReason::ALL {
            metrics.streams_ended.with_label_values(&[reason.as_str()]);
        }
        for code in NoticeCode::ALL {
            metrics.notices_sent.with_label_values(&[code.as_str()]);
        }
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            metrics.refusals.with_label_values(&[status.as_str()]);
        }
        for limit in ["all", "waiting", "address"] {
            metrics.connections_closed.with_label_values(&[limit]);
        }
        for collector in [
            Box::new(build) as Box<dyn Collector>,
            Box::new(metrics.streams_open.clone()),
            Box::new(metrics.streams_limit.clone()),
            Box::new(metrics.connections_open.clone()),
            Box::new(metrics.connections_limit.clone()),
            Box::new(metrics.connections_closed.clone()),
            Box::new(metrics.accept_errors.clone()),
            Box::new(metrics.streams_ended.clone()),
            Box::new(metrics.refusals.clone()),
            Box::new(metrics.notices_sent.clone()),
            Box::new(metrics.bytes_sent.clone()),
            Box::new(metrics.events_sent.clone()),
        ] {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// Notes how many streams and connections there may be.
    pub(crate) fn limit(&self, streams: usize, connections: usize) {
        self.streams_limit.set(i64::try_from(streams).unwrap_or(i64::MAX));
        self.connections_limit.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Counts changes that were sent.
    pub(crate) fn sent(&self, event: ResourceType, count: u64) {
        self.by_type[event.index()]
            .get_or_init(|| self.events_sent.with_label_values(&[event.as_str()]))
            .inc_by(count);
    }

    /// The families of what we count.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

pub(crate) fn counters(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}
