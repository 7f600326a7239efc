//! Metrics for Prometheus. What we count ourselves is in a registry of our own; what others know is read
//! when it is asked for, so that it is never older than the scrape.

use crate::health::is_ready;
use crate::source::SourceSnapshot;
use crate::streams::Ended;
use feed::{Lsn, Status};
use fhir::{Instant, NoticeCode, RESOURCE_TYPES, ResourceType};
use http::StatusCode;
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The media type of the text format.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

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
            streams_open: IntGauge::new("fhir_tail_streams_open", "Streams that are open.")?,
            streams_limit: IntGauge::new("fhir_tail_streams_limit", "Streams that may be open.")?,
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
                "Streams that ended, by reason.",
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
        for reason in Ended::ALL {
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

    /// The text of a scrape.
    pub(crate) fn scrape(&self, feed: &Status, source: &SourceSnapshot) -> prometheus::Result<String> {
        let mut families = self.registry.gather();
        families.extend(gathered(feed, source)?.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// How far the safe time is behind our clock; `None` while there is none. The safe time itself does not advance while
/// nothing changes.
pub(crate) fn safe_time_age_seconds(feed: &Status) -> Option<f64> {
    let now = now();
    // A microsecond more or less is lost in a float of this size: never mind.
    #[allow(clippy::cast_precision_loss)]
    feed.visible_until.max(feed.w).map(|w| now.unix_micros().saturating_sub(w.unix_micros()) as f64 / 1e6)
}

/// Our clock.
pub(crate) fn now() -> Instant {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Instant::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

fn counters(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}

/// What feed and database say of this moment, in a registry that lives as long as the scrape.
fn gathered(feed: &Status, source: &SourceSnapshot) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: Option<u64>| -> prometheus::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))
    };
    let lsn = |name: &str, help: &str, value: Option<Lsn>| gauge(name, help, value.map(Lsn::get));
    let count = |name: &str, help: &str, value: u64| -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        registry.register(Box::new(counter))
    };

    lsn("fhir_tail_head_lsn", "Commit LSN of the last change published.", Some(feed.head.commit_lsn))?;
    lsn("fhir_tail_durable_lsn", "All before this LSN is in the journal, on disk.", Some(feed.durable_lsn))?;
    let received = source.received_lsn.unwrap_or(feed.received_lsn);
    lsn("fhir_tail_received_lsn", "All before this LSN was received.", Some(received))?;
    lsn("fhir_tail_acked_lsn", "The last LSN acknowledged to the database.", source.acked_lsn)?;
    gauge(
        "fhir_tail_journal_bytes",
        "Bytes of changes that the journal holds, before compression.",
        Some(feed.journal_bytes),
    )?;
    gauge("fhir_tail_journal_ok", "1 while the journal takes changes.", Some(feed.journal_ok.into()))?;
    gauge("fhir_tail_held_bytes", "Bytes held in memory for subscribers.", Some(feed.held_bytes))?;
    let waiting = |readers| u64::try_from(readers).ok();
    gauge(
        "fhir_tail_replays_waiting",
        "Replays that wait for room, for their turn at the tables, or for a journal that cannot be written.",
        waiting(feed.replays_waiting),
    )?;
    gauge(
        "fhir_tail_journal_readers_waiting",
        "Streams that wait for room to read the journal.",
        waiting(feed.journal_readers_waiting),
    )?;
    count(
        "fhir_tail_reads_reclaimed_total",
        "Times what was read for a client that did not take it was dropped, since others waited.",
        feed.reads_reclaimed,
    )?;
    count(
        "fhir_tail_stalled_dropped_total",
        "Clients dropped since they took nothing and others waited.",
        feed.stalled_dropped,
    )?;
    if let Some(age) = safe_time_age_seconds(feed) {
        let gauge =
            Gauge::new("fhir_tail_safe_time_age_seconds", "Age of the safe time from which replays begin.")?;
        gauge.set(age);
        registry.register(Box::new(gauge))?;
    }
    let age = Gauge::new(
        "fhir_tail_feed_age_seconds",
        "How long ago the feed was last known to have all that was in the database's log.",
    )?;
    age.set(feed.age.as_secs_f64());
    registry.register(Box::new(age))?;
    gauge(
        "fhir_tail_stale",
        "1 while clients are told that what they have is old.",
        Some(feed.stale.into()),
    )?;
    let held_back = u64::from(source.holding_back.is_some());
    gauge(
        "fhir_tail_safe_time_held_back",
        "1 while a transaction holds the safe time back.",
        Some(held_back),
    )?;

    let ready = is_ready(feed, source, false);
    gauge("fhir_tail_ready", "1 while a replay can begin: /health/ready says why not.", Some(ready.into()))?;
    let failing = IntGaugeVec::new(
        Opts::new("fhir_tail_fact_failing", "1 while a fact fails on which complete replays depend."),
        &["fact"],
    )?;
    for fact in &source.facts {
        failing.with_label_values(&[fact.name]).set(fact.fails.is_some().into());
    }
    registry.register(Box::new(failing))?;
    gauge("fhir_tail_source_connected", "1 while the log is being read.", Some(source.connected.into()))?;
    gauge("fhir_tail_slot_lag_bytes", "How far the slot is behind the log.", source.slot_lag_bytes)?;
    gauge("fhir_tail_wal_held_bytes", "Log that the database keeps for the slot.", source.wal_held_bytes)?;
    gauge(
        "fhir_tail_wal_limit_bytes",
        "Beyond so much log held the slot is given up, and subscribers are reset.",
        source.wal_limit_bytes,
    )?;
    gauge(
        "fhir_tail_service_may_be_away_seconds",
        "For how long the service may be away, at today's rate, before its slot is given up.",
        source.service_may_be_away,
    )?;
    gauge(
        "fhir_tail_client_may_be_away_seconds",
        "For how long a client may be away, at today's rate, before it is reset.",
        source.client_may_be_away,
    )?;
    let warnings = u64::try_from(source.warnings.len()).ok();
    gauge("fhir_tail_warnings", "What somebody should see to: /health/ready says what.", warnings)?;
    count(
        "fhir_tail_source_reconnects_total",
        "Times the log's connection was made again.",
        source.reconnects,
    )?;
    count(
        "fhir_tail_clock_steps_total",
        "Times the database's clock stepped back: versions may have come twice in a replay.",
        source.clock_steps,
    )?;
    count("fhir_tail_rows_skipped_total", "Rows that could not be streamed.", source.rows_skipped)?;
    let events =
        counters("fhir_tail_events_received_total", "Changes received from the database, by type.", "type")?;
    for (resource_type, count) in &source.received {
        events.with_label_values(&[resource_type.as_str()]).inc_by(*count);
    }
    registry.register(Box::new(events))?;
    Ok(registry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::status;
    use crate::source::Fact;

    /// The value of a sample in the text.
    fn value(text: &str, sample: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|r| r.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    #[test]
    fn a_scrape_says_what_is_known_and_nothing_that_is_not() {
        let metrics = Metrics::new().unwrap();
        metrics.sent(ResourceType::PATIENT, 2);
        metrics.sent(ResourceType::PATIENT, 3);
        metrics.bytes_sent.inc_by(99);
        let feed = Status { durable_lsn: Lsn::new(0x1_0000_0000), journal_ok: true, w: None, ..status() };
        let text = metrics.scrape(&feed, &SourceSnapshot::default()).unwrap();
        assert_eq!(value(&text, r#"fhir_tail_events_sent_total{type="Patient"}"#), Some(5.0));
        assert_eq!(value(&text, "fhir_tail_bytes_sent_total"), Some(99.0));
        assert_eq!(value(&text, "fhir_tail_durable_lsn"), Some(4_294_967_296.0));
        assert_eq!(value(&text, "fhir_tail_journal_ok"), Some(1.0));
        assert_eq!(value(&text, r#"fhir_tail_streams_ended_total{reason="shutdown"}"#), Some(0.0));
        assert_eq!(value(&text, r#"fhir_tail_notices_sent_total{code="reset"}"#), Some(0.0));
        assert_eq!(value(&text, r#"fhir_tail_refusals_total{status="429"}"#), Some(0.0));
        assert!(text.contains("fhir_tail_build_info{version="));
        for unknown in ["fhir_tail_slot_lag_bytes", "fhir_tail_acked_lsn", "fhir_tail_safe_time_age_seconds"]
        {
            assert!(!text.contains(unknown), "{unknown}");
        }

        let feed = Status { w: Some(Instant::from_unix_micros(now().unix_micros() - 5_000_000)), ..feed };
        let source = SourceSnapshot {
            connected: true,
            facts: vec![Fact { name: "triggers", fails: Some("they rest".into()) }],
            slot_lag_bytes: Some(7),
            acked_lsn: Some(Lsn::new(16)),
            received: vec![(ResourceType::GROUP, 4)],
            reconnects: 2,
            ..SourceSnapshot::default()
        };
        let text = metrics.scrape(&feed, &source).unwrap();
        assert_eq!(value(&text, "fhir_tail_ready"), Some(1.0));
        assert_eq!(value(&text, r#"fhir_tail_fact_failing{fact="triggers"}"#), Some(1.0));
        assert_eq!(value(&text, "fhir_tail_slot_lag_bytes"), Some(7.0));
        assert_eq!(value(&text, "fhir_tail_acked_lsn"), Some(16.0));
        assert_eq!(value(&text, r#"fhir_tail_events_received_total{type="Group"}"#), Some(4.0));
        assert_eq!(value(&text, "fhir_tail_source_reconnects_total"), Some(2.0));
        assert!(value(&text, "fhir_tail_safe_time_age_seconds").unwrap() >= 5.0);
    }

    #[test]
    fn every_metric_has_help_and_a_unit_that_prometheus_knows() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.scrape(&status(), &SourceSnapshot::default()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        }
    }
}
