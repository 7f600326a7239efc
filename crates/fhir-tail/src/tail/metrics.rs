//! What `--metrics` shows to Prometheus: how far behind the stream is, and what has come.

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use fhir::Instant;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus::core::Collector;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What is counted, whether anybody looks at it or not.
pub(super) struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    bytes: IntCounter,
    connected: IntGauge,
    reconnects: IntCounter,
    resets: IntCounterVec,
    last_event: Gauge,
    behind: Gauge,
    /// All that was committed before it has come, as far as we know; microseconds of our own clock.
    as_of: AtomicI64,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let counters =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let metrics = Self {
            registry: Registry::new(),
            events: counters(
                "fhir_tail_client_events_total",
                "Changes that have come, by what they say.",
                "op",
            )?,
            bytes: IntCounter::new("fhir_tail_client_bytes_total", "Bytes that have come within streams.")?,
            connected: IntGauge::new(
                "fhir_tail_client_connected",
                "1 while there is a stream, 0 while there is none.",
            )?,
            reconnects: IntCounter::new(
                "fhir_tail_client_reconnects_total",
                "Times that there was no stream, or no more, and another was asked for.",
            )?,
            resets: counters("fhir_tail_client_resets_total", "Notices reset and reset-all.", "code")?,
            last_event: Gauge::new(
                "fhir_tail_client_last_event_timestamp_seconds",
                "When the last change came, by our clock; 0: none has come since this program began.",
            )?,
            behind: Gauge::new(
                "fhir_tail_client_seconds_behind",
                "How long ago what has come was last known to be all there was.",
            )?,
            as_of: AtomicI64::new(now()),
        };
        // What alerts go by is there from the start.
        for op in ["upsert", "delete", "remove"] {
            metrics.events.with_label_values(&[op]);
        }
        for code in ["reset", "reset-all"] {
            metrics.resets.with_label_values(&[code]);
        }
        let Self { events, bytes, connected, reconnects, resets, last_event, behind, .. } = &metrics;
        for collector in [
            Box::new(events.clone()) as Box<dyn Collector>,
            Box::new(bytes.clone()),
            Box::new(connected.clone()),
            Box::new(reconnects.clone()),
            Box::new(resets.clone()),
            Box::new(last_event.clone()),
            Box::new(behind.clone()),
        ] {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// So many changes have come.
    pub(super) fn events(&self, op: &str, count: u64) {
        if count > 0 {
            self.events.with_label_values(&[op]).inc_by(count);
            self.last_event.set(seconds(now()));
        }
    }

    pub(super) fn bytes(&self, count: u64) {
        self.bytes.inc_by(count);
    }

    pub(super) fn connected(&self, is: bool) {
        self.connected.set(is.into());
    }

    pub(super) fn reconnects(&self) {
        self.reconnects.inc();
    }

    pub(super) fn resets(&self, code: &str) {
        self.resets.with_label_values(&[code]).inc();
    }

    /// All that there is has come.
    pub(super) fn is_current(&self) {
        self.as_of.store(now(), Ordering::Relaxed);
    }

    /// All that was committed before then has come, by another's clock: never later than by ours.
    pub(super) fn is_as_of(&self, then: Instant) {
        self.as_of.store(then.unix_micros().min(now()), Ordering::Relaxed);
    }

    fn scrape(&self) -> prometheus::Result<String> {
        let behind = now().saturating_sub(self.as_of.load(Ordering::Relaxed)).max(0);
        self.behind.set(seconds(behind));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// So many requests are answered at a time: more would take the files from what is written.
const AT_A_TIME: usize = 8;
/// Nobody keeps a connection for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers `GET /metrics` at an address for as long as the runtime runs, and says at which.
pub(super) async fn serve(metrics: Arc<Metrics>, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}, which --metrics names"))?;
    let address = listener.local_addr().context("cannot tell the address of --metrics")?;
    let app = Router::new().route("/metrics", get(answer)).with_state(metrics);
    tokio::spawn(accept(listener, app));
    Ok(address)
}

async fn accept(listener: TcpListener, app: Router) {
    let room = Arc::new(Semaphore::new(AT_A_TIME));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let Ok((socket, _)) = listener.accept().await else {
            // No file descriptors, perhaps: others may be given back.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let serving = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            // Who asks wrongly, or goes away, has no answer.
            let _ = timeout(PATIENCE, serving).await;
            drop(place);
        });
    }
}

async fn answer(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.scrape() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Microseconds since 1970, by our clock.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A microsecond more or less is lost in a float of this size: never mind.
#[allow(clippy::cast_precision_loss)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, name: &str) -> f64 {
        let text = metrics.scrape().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    #[test]
    fn it_counts_and_what_is_alerted_on_is_there_from_the_start() {
        let metrics = Metrics::new().unwrap();
        for name in [r#"events_total{op="remove"}"#, r#"resets_total{code="reset-all"}"#, "reconnects_total"]
        {
            assert_eq!(value(&metrics, &format!("fhir_tail_client_{name}")), 0.0);
        }
        metrics.events("upsert", 0);
        assert_eq!(value(&metrics, "fhir_tail_client_last_event_timestamp_seconds"), 0.0);
        metrics.events("upsert", 3);
        metrics.resets("reset");
        assert_eq!(value(&metrics, r#"fhir_tail_client_events_total{op="upsert"}"#), 3.0);
        assert_eq!(value(&metrics, r#"fhir_tail_client_resets_total{code="reset"}"#), 1.0);
        assert!(value(&metrics, "fhir_tail_client_last_event_timestamp_seconds") > 1e9);
    }

    #[test]
    fn behind_is_counted_from_what_is_known() {
        let metrics = Metrics::new().unwrap();
        let hour = 3_600_000_000;
        metrics.is_as_of(Instant::from_unix_micros(now() - hour));
        let behind = value(&metrics, "fhir_tail_client_seconds_behind");
        assert!((3_600.0..3_700.0).contains(&behind), "{behind}");
        // Another's clock is ahead.
        metrics.is_as_of(Instant::from_unix_micros(now() + hour));
        assert!(value(&metrics, "fhir_tail_client_seconds_behind") < 100.0);
        metrics.is_as_of(Instant::MIN);
        assert!(value(&metrics, "fhir_tail_client_seconds_behind") > 1e9);
        metrics.is_current();
        assert!(value(&metrics, "fhir_tail_client_seconds_behind") < 100.0);
    }
}
