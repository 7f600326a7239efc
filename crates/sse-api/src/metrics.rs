//! The counters and gauges that the service keeps for Prometheus.

use fhir::{NoticeCode, RESOURCE_TYPES, ResourceType};
use http::StatusCode;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use std::sync::OnceLock;

/// Why a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EndReason {
    /// The client disconnected.
    Client,
    /// The service is stopping.
    Shutdown,
    /// The database is away, and the stream needs it to continue.
    Unavailable,
    /// The database refused a query.
    Refused,
}

impl EndReason {
    /// Every reason: each label exists before its first event.
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

/// The counters and gauges that the service keeps.
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
    /// The counters of `events_sent` by type, looked up once instead of for each chunk.
    by_type: [OnceLock<IntCounter>; RESOURCE_TYPES],
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = IntGauge::with_opts(
            Opts::new("fhir_tail_build_info", "Version of the running release; always 1.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        let metrics = Self {
            streams_open: IntGauge::new("fhir_tail_streams_open", "Open streams.")?,
            streams_limit: IntGauge::new("fhir_tail_streams_limit", "Limit of open streams.")?,
            connections_open: IntGauge::new("fhir_tail_connections_open", "Open client connections.")?,
            connections_limit: IntGauge::new("fhir_tail_connections_limit", "Limit of client connections.")?,
            connections_closed: counters(
                "fhir_tail_connections_closed_total",
                "Connections without a stream that were closed to accept new ones, by the limit that was reached.",
                "limit",
            )?,
            accept_errors: IntCounter::new(
                "fhir_tail_accept_errors_total",
                "Failed attempts to accept a connection, for example without free file descriptors.",
            )?,
            streams_ended: counters(
                "fhir_tail_streams_ended_total",
                "Streams that ended, by reason.",
                "reason",
            )?,
            refusals: counters(
                "fhir_tail_refusals_total",
                "Requests for a stream that were rejected, by status.",
                "status",
            )?,
            notices_sent: counters("fhir_tail_notices_sent_total", "Notices sent, by code.", "code")?,
            bytes_sent: IntCounter::new("fhir_tail_bytes_sent_total", "Bytes sent in streams.")?,
            events_sent: counters(
                "fhir_tail_events_sent_total",
                "Changes sent to clients, by the type of the event.",
                "type",
            )?,
            by_type: std::array::from_fn(|_| OnceLock::new()),
            registry,
        };
        // To Prometheus a counter that first appears as 1 has not increased, so the labels that alerts
        // use exist from the start.
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

    /// Sets the limits of streams and connections.
    pub(crate) fn limit(&self, streams: usize, connections: usize) {
        self.streams_limit.set(i64::try_from(streams).unwrap_or(i64::MAX));
        self.connections_limit.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Counts changes sent as events of a type.
    pub(crate) fn sent(&self, event: ResourceType, count: u64) {
        self.by_type[event.index()]
            .get_or_init(|| self.events_sent.with_label_values(&[event.as_str()]))
            .inc_by(count);
    }

    /// The current values.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

pub(crate) fn counters(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}
