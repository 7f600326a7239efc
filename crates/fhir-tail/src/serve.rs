//! `fhir-tail serve`: everything put together, and taken apart again in order. A demo is the same with sample data
//! and a clinic at work.

use crate::data_dir::DataDir;
use crate::demo::Demonstration;
use crate::demo::embedded::Embedded;
use crate::migrate;
use crate::output::say;
use crate::own_thread::on_own_thread;
use crate::place::search;
use crate::received::{Counting, Received};
use crate::settings::Settings;
use crate::signals::Signals;
use crate::supervisor::{Supervisor, blocking};
use anyhow::Context as _;
use cdc::check::Retention;
use cdc::layout::Layout as _;
use cdc::layout::native::{FACTS, Native, SERVICE_ROLE};
use feed::{Feed, Lsn, Publisher, Rate, Source};
use nix::sys::stat::{Mode, umask};
use pg::Database;
use sse_api::{EventStream, Fact, Server, SourceSnapshot};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the clinic of a demo has: what it is writing is taken back.
const CLINIC_WITHIN: Duration = Duration::from_secs(5);
/// How long the streams have to end: the server cuts off those that do not read before that.
const STREAMS_WITHIN: Duration = Duration::from_secs(10);
/// How long the reader of the log has to make durable what it read, and to acknowledge it.
const INTAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long the embedded Postgres has; it is stopped with increasing force.
const POSTGRES_WITHIN: Duration = Duration::from_secs(100);

/// How often a standby checks whether the active service has ended: it takes over within a few seconds.
const TAKE_OVER: Duration = Duration::from_millis(500);
/// How long to wait for the database before saying where we listen: without it every answer is a refusal.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(3);

/// Pages of the tables that are read at once for all replays, each on a connection of its own.
const CONCURRENT_PAGES: usize = 4;
/// Bytes held for all subscribers together. One resource may be 10 MB.
const HELD_BYTES: usize = 64 << 20;

/// Serves until a signal or a failure.
pub(crate) async fn run(settings: Settings, demonstration: Option<Demonstration>) -> anyhow::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    let mut signals = Signals::new()?;
    let prepared = tokio::select! {
        prepared = Prepared::new(&settings, demonstration) => prepared?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the service had started");
            return Ok(());
        }
    };
    prepared.serve(&settings, &mut signals).await
}

/// All that is needed to begin.
struct Prepared {
    embedded: Option<Embedded>,
    database: Database,
    demonstration: Option<Demonstration>,
    feed: Feed,
    publisher: Publisher,
    server: Server,
    // Last, as fields are dropped in their order: the lock is released when nothing is left to protect.
    data_dir: DataDir,
}

impl Prepared {
    async fn new(settings: &Settings, demonstration: Option<Demonstration>) -> anyhow::Result<Self> {
        // Before anything is started that takes long: a port in use is the usual failure.
        let server = sse_api::bind(sse_api::ServerSettings {
            listen: settings.listen.clone(),
            public_urls: settings.public_urls.clone(),
            insecure_no_auth: settings.insecure_no_auth,
            max_streams: settings.max_streams,
            max_streams_per_address: settings.max_streams_per_address(),
            spare_connections: settings.spare_connections,
            client_timeout: settings.client_timeout.as_duration(),
        })
        .await?
        .with_routes(routes());
        let data_dir = data_dir(settings, &server).await?;
        let (embedded, database) = match &settings.database {
            Some(database) => (None, database.clone()),
            None => {
                if let Some(demonstration) = &demonstration {
                    demonstration.prepare(&data_dir, &search(settings)).await?;
                }
                let embedded = Embedded::start(data_dir.path(), &search(settings)).await?;
                migrate::apply(&embedded.administrator()?).await?;
                if let Some(demonstration) = &demonstration {
                    demonstration.populate(&embedded.administrator()?).await?;
                }
                embedded.allow_login(SERVICE_ROLE).await?;
                let database = embedded.as_role(SERVICE_ROLE)?;
                (Some(embedded), database)
            }
        };
        let options = feed::Options {
            directory: data_dir.journal()?,
            retention_bytes: settings.retention_bytes.0,
            retention_age: settings.retention_age.as_duration(),
            concurrent_pages: CONCURRENT_PAGES,
            held_bytes: HELD_BYTES,
            base_urls: settings.base_urls(),
        };
        let (feed, publisher) =
            blocking(move || Feed::open(options, Arc::new(EventStream)).context("cannot start")).await?;
        Ok(Self { embedded, database, demonstration, feed, publisher, server, data_dir })
    }

    async fn serve(self, settings: &Settings, signals: &mut Signals) -> anyhow::Result<()> {
        let Self { embedded, database, demonstration, feed, publisher, server, data_dir } = self;
        let mut supervisor = Supervisor::default();
        // The order in which they end.
        let clinic = supervisor.stage("clinic", CLINIC_WITHIN);
        let streams = supervisor.stage("streams", STREAMS_WITHIN);
        let intake = supervisor.stage("intake", INTAKE_WITHIN);
        let postgres = supervisor.stage("postgres", POSTGRES_WITHIN);

        let followed = settings.followed(database);
        let tables =
            cdc::Tables::start(&followed, feed.clone(), settings.on_bad_row, supervisor.token(intake));
        let decoder = Native::default().decoder(tables.context());
        feed.set_source(Arc::clone(&tables) as Arc<dyn Source>);
        let (status, told) = watch::channel(cdc::SourceStatus::default());
        let received = Received::new();
        let snapshot = snapshot(told.clone(), received.clone(), tables, feed.clone(), settings.retention());

        supervisor.spawn(intake, "the reader of the log", {
            let (feed, stop) = (feed.clone(), supervisor.token(intake));
            let decoder = Counting::new(decoder, received);
            // On a dedicated thread: the walsender waits for a client that does not read.
            let following = on_own_thread("replication", async move {
                cdc::run(followed, Box::new(decoder), feed, publisher, status, stop).await
            });
            async move { Ok(following.await??) }
        });
        let addresses: Vec<_> = server.local_addrs().collect();
        supervisor.spawn(streams, "the HTTP server", {
            let stop = supervisor.token(streams);
            async move {
                server.run(feed, snapshot, stop).await;
                Ok(())
            }
        });
        let psql = embedded.as_ref().map(|embedded| embedded.reach().psql_url());
        let shown = demonstration.map(|demonstration| (demonstration, data_dir.path().to_owned()));
        supervisor.spawn(
            streams,
            "the announcement",
            announce(addresses, psql, shown, told, supervisor.token(streams)),
        );
        if let (Some(demonstration), Some(embedded)) = (demonstration, &embedded) {
            let work = demonstration.work(embedded.administrator()?, supervisor.token(clinic));
            supervisor.spawn(clinic, "the clinic", work);
        }
        if let Some(embedded) = &embedded {
            let database = embedded.administrator()?;
            supervisor.spawn(intake, "the index of patients", index(database, supervisor.token(intake)));
        }
        if let Some(embedded) = embedded {
            supervisor.spawn(postgres, "the embedded Postgres", keep(embedded, supervisor.token(postgres)));
        }
        let result = supervisor.run(async || signals.next().await).await;
        drop(data_dir);
        result
    }
}

/// What is served beside the API.
#[cfg(feature = "dashboard")]
fn routes() -> axum::Router {
    dashboard::routes()
}

/// Nothing: this build has no dashboard.
#[cfg(not(feature = "dashboard"))]
fn routes() -> axum::Router {
    axum::Router::new()
}

/// The data directory; while another process uses it, the service is its standby.
async fn data_dir(settings: &Settings, server: &Server) -> anyhow::Result<DataDir> {
    let in_use = match DataDir::try_open(&settings.data_dir)? {
        Ok(data_dir) => return Ok(data_dir),
        Err(in_use) => in_use,
    };
    tracing::warn!("{in_use}: standing by, to take over when it ends");
    listening(server.local_addrs());
    let free = async {
        loop {
            tokio::time::sleep(TAKE_OVER).await;
            if let Ok(data_dir) = DataDir::try_open(&settings.data_dir)? {
                return Ok(data_dir);
            }
        }
    };
    let data_dir = server.stand_by(&format!("{in_use}: standing by"), free).await;
    tracing::info!("taking over");
    data_dir
}

fn listening(addresses: impl IntoIterator<Item = SocketAddr>) {
    for address in addresses {
        say(format_args!("listening on http://{address}/fhir"));
    }
}

/// Says where we listen once a request can be answered, or after a while if the database is not there yet.
async fn announce(
    addresses: Vec<SocketAddr>,
    psql: Option<String>,
    demo: Option<(Demonstration, PathBuf)>,
    mut told: watch::Receiver<cdc::SourceStatus>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let connected = tokio::time::timeout(ANNOUNCE_WITHIN, told.wait_for(|status| status.connected));
    if stop.run_until_cancelled(connected).await.is_some() {
        match (demo, psql) {
            (Some((demo, data_dir)), Some(psql)) => demo.announce(&addresses, &psql, &data_dir),
            (_, psql) => {
                listening(addresses);
                if let Some(psql) = psql {
                    say(format_args!("psql: {psql}"));
                }
            }
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// Builds the index of patients of our own Postgres where a release without it has left rows. All other streams are served
/// at the same time.
async fn index(database: Database, stop: CancellationToken) -> anyhow::Result<()> {
    let building = migrate::build_index(&database, |progress| tracing::info!("{progress}"));
    if let Some(Err(error)) = stop.run_until_cancelled(building).await {
        let error = format!("{:#}", anyhow::Error::from(error));
        tracing::warn!(error, "the index of patients was not built: 'fhir-tail migrate' goes on with it");
    }
    stop.cancelled().await;
    Ok(())
}

/// What metrics and health show of the database.
fn snapshot(
    told: watch::Receiver<cdc::SourceStatus>,
    received: Received,
    tables: Arc<cdc::Tables>,
    feed: Feed,
    retention: Retention,
) -> sse_api::SourceProbe {
    Arc::new(move || {
        let status = told.borrow();
        // Until something was received the numbers mean nothing.
        let known = status.received_lsn > Lsn::ZERO;
        // Without watermarks no replay begins, however well the log is followed.
        let refusal = tables.refusal();
        let failing = tables.failing_facts();
        let lacking = tables.lacking_for_patients().iter().map(ToString::to_string).collect();
        let facts = FACTS.iter().map(|name| {
            let failing = failing.iter().find(|failing| failing.subject == *name);
            Fact { name, fails: failing.map(ToString::to_string) }
        });
        SourceSnapshot {
            connected: status.connected && refusal.is_none(),
            facts: facts.collect(),
            obstacle: tables.obstacle(),
            detail: refusal.unwrap_or_else(|| status.state.clone()),
            slot_lag_bytes: status.slot_lag_bytes,
            wal_held_bytes: status.wal_held_bytes,
            wal_limit_bytes: status.wal_limit_bytes,
            warnings: [status.warnings.clone(), lacking].concat(),
            service_may_be_away: service_may_be_away(&status),
            client_may_be_away: Some(client_may_be_away(&feed.status(), retention)),
            acked_lsn: known.then_some(status.acked_lsn),
            received_lsn: known.then_some(status.received_lsn),
            received: received.by_type(),
            rows_skipped: tables.bad_rows().count(),
            clock_steps: tables.clock_steps(),
            reconnects: status.reconnects,
            holding_back: tables.holding_back(),
        }
    })
}

/// For how many seconds, at today's rate, before the log that is held for our slot is too much.
fn service_may_be_away(status: &cdc::SourceStatus) -> Option<u64> {
    let left = status.wal_limit_bytes?.saturating_sub(status.wal_held_bytes?);
    Some(status.wal_rate?.lasts(left).as_secs())
}

/// For how many seconds, at today's rate, before the journal has dropped what comes next.
fn client_may_be_away(feed: &feed::Status, retention: Retention) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let begins = Duration::from_micros(u64::try_from(feed.journal_begins.unix_micros()).unwrap_or(0));
    let rate = Rate::new(feed.journal_bytes, now.saturating_sub(begins));
    rate.lasts(retention.bytes).min(retention.age).as_secs()
}

/// Watches the embedded Postgres, and stops it when it is time.
async fn keep(mut embedded: Embedded, stop: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => embedded.stop().await,
        error = embedded.ended() => Err(error),
    }
}
