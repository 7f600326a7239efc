//! One scrape: the values in [`Metrics`], and those that the feed and the database hold, which are
//! read when Prometheus asks, so that they are as old as the scrape.

use crate::admin::health::{is_ready, safe_time_age_seconds};
use crate::metrics::{Metrics, counters};
use crate::source::SourceSnapshot;
use feed::{Lsn, Status};
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// The media type of the text format.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The text of a scrape.
pub(crate) fn scrape(
    metrics: &Metrics,
    feed: &Status,
    source: &SourceSnapshot,
) -> prometheus::Result<String> {
    let mut families = metrics.gather();
    families.extend(gathered(feed, source)?.gather());
    TextEncoder::new().encode_to_string(&families)
}

/// The current values of feed and database, in a registry that lives as long as the scrape.
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
    lsn(
        "fhir_tail_durable_lsn",
        "Everything before this LSN is in the journal, on disk.",
        Some(feed.durable_lsn),
    )?;
    let received = source.received_lsn.unwrap_or(feed.received_lsn);
    lsn("fhir_tail_received_lsn", "Everything before this LSN was received.", Some(received))?;
    lsn("fhir_tail_acked_lsn", "The last LSN acknowledged to the database.", source.acked_lsn)?;
    gauge(
        "fhir_tail_journal_bytes",
        "Bytes of changes in the journal, before compression.",
        Some(feed.journal_bytes),
    )?;
    gauge("fhir_tail_journal_ok", "1 while the journal can be written.", Some(feed.journal_ok.into()))?;
    gauge("fhir_tail_held_bytes", "Bytes held in memory for subscribers.", Some(feed.held_bytes))?;
    let waiting = |readers| u64::try_from(readers).ok();
    gauge(
        "fhir_tail_replays_waiting",
        "Replays that wait for memory, for their turn at the tables, or for a journal that cannot be written.",
        waiting(feed.replays_waiting),
    )?;
    gauge(
        "fhir_tail_journal_readers_waiting",
        "Streams that wait for memory to read the journal.",
        waiting(feed.journal_readers_waiting),
    )?;
    count(
        "fhir_tail_reads_reclaimed_total",
        "Reads for a slow client that were dropped because others waited for the memory.",
        feed.reads_reclaimed,
    )?;
    count(
        "fhir_tail_stalled_dropped_total",
        "Stalled clients that were disconnected because others waited for the memory.",
        feed.stalled_dropped,
    )?;
    if let Some(age) = safe_time_age_seconds(feed) {
        let gauge = Gauge::new(
            "fhir_tail_safe_time_age_seconds",
            "Age of the safe time, up to which replays read the tables.",
        )?;
        gauge.set(age);
        registry.register(Box::new(gauge))?;
    }
    let age = Gauge::new(
        "fhir_tail_feed_age_seconds",
        "Seconds since the feed was last known to have everything in the database's log.",
    )?;
    age.set(feed.age.as_secs_f64());
    registry.register(Box::new(age))?;
    gauge(
        "fhir_tail_stale",
        "1 while clients have been told that the stream is stale.",
        Some(feed.stale.into()),
    )?;
    let held_back = u64::from(source.holding_back.is_some());
    gauge(
        "fhir_tail_safe_time_held_back",
        "1 while a transaction holds the safe time back.",
        Some(held_back),
    )?;

    let ready = is_ready(feed, source, false);
    gauge(
        "fhir_tail_ready",
        "1 while a replay can begin; /health/ready has the reason otherwise.",
        Some(ready.into()),
    )?;
    let failing = IntGaugeVec::new(
        Opts::new("fhir_tail_fact_failing", "1 while a fact fails that complete replays depend on."),
        &["fact"],
    )?;
    for fact in &source.facts {
        failing.with_label_values(&[fact.name]).set(fact.fails.is_some().into());
    }
    registry.register(Box::new(failing))?;
    gauge("fhir_tail_source_connected", "1 while the log is being read.", Some(source.connected.into()))?;
    gauge(
        "fhir_tail_slot_lag_bytes",
        "Bytes between the slot's position and the end of the log.",
        source.slot_lag_bytes,
    )?;
    gauge(
        "fhir_tail_wal_held_bytes",
        "Bytes of log that the database keeps for the slot.",
        source.wal_held_bytes,
    )?;
    gauge(
        "fhir_tail_wal_limit_bytes",
        "Limit of the log kept for the slot; above it the slot is dropped and subscribers are reset.",
        source.wal_limit_bytes,
    )?;
    gauge(
        "fhir_tail_service_may_be_away_seconds",
        "How long the service can be down, at the current rate of change, before its slot is dropped.",
        source.service_may_be_away,
    )?;
    gauge(
        "fhir_tail_client_may_be_away_seconds",
        "How long a client can be disconnected, at the current rate of change, before it is reset.",
        source.client_may_be_away,
    )?;
    let warnings = u64::try_from(source.warnings.len()).ok();
    gauge("fhir_tail_warnings", "Warnings that need an operator; /health/ready lists them.", warnings)?;
    count("fhir_tail_source_reconnects_total", "Reconnects to the database's log.", source.reconnects)?;
    count(
        "fhir_tail_clock_steps_total",
        "Backward steps of the database's clock: replays may have repeated versions.",
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
    use crate::clock::now;
    use crate::scripted_feed::status;
    use crate::source::Fact;
    use fhir::{Instant, ResourceType};

    /// The value of a sample in the text.
    fn value(text: &str, sample: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.strip_prefix(sample).is_some_and(|r| r.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    #[test]
    fn scrape_omits_values_that_are_not_known() {
        let metrics = Metrics::new().unwrap();
        metrics.sent(ResourceType::PATIENT, 2);
        metrics.sent(ResourceType::PATIENT, 3);
        metrics.bytes_sent.inc_by(99);
        let feed =
            Status { durable_lsn: Lsn::new(0x1_0000_0000), journal_ok: true, safe_time: None, ..status() };
        let text = scrape(&metrics, &feed, &SourceSnapshot::default()).unwrap();
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

        let feed =
            Status { safe_time: Some(Instant::from_unix_micros(now().unix_micros() - 5_000_000)), ..feed };
        let source = SourceSnapshot {
            connected: true,
            facts: vec![Fact { name: "triggers", fails: Some("they rest".into()) }],
            slot_lag_bytes: Some(7),
            acked_lsn: Some(Lsn::new(16)),
            received: vec![(ResourceType::GROUP, 4)],
            reconnects: 2,
            ..SourceSnapshot::default()
        };
        let text = scrape(&metrics, &feed, &source).unwrap();
        assert_eq!(value(&text, "fhir_tail_ready"), Some(1.0));
        assert_eq!(value(&text, r#"fhir_tail_fact_failing{fact="triggers"}"#), Some(1.0));
        assert_eq!(value(&text, "fhir_tail_slot_lag_bytes"), Some(7.0));
        assert_eq!(value(&text, "fhir_tail_acked_lsn"), Some(16.0));
        assert_eq!(value(&text, r#"fhir_tail_events_received_total{type="Group"}"#), Some(4.0));
        assert_eq!(value(&text, "fhir_tail_source_reconnects_total"), Some(2.0));
        assert!(value(&text, "fhir_tail_safe_time_age_seconds").unwrap() >= 5.0);
    }

    #[test]
    fn every_metric_has_help_and_only_counters_end_in_total() {
        let metrics = Metrics::new().unwrap();
        let text = scrape(&metrics, &status(), &SourceSnapshot::default()).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        }
    }
}
