//! Where rows are measured: a fresh cluster for each, with the settings of a database that is meant to be fast and safe, and
//! the service beside it.

use crate::client::{Crowd, LIVE_ONLY, Ready, Spec, get};
use crate::command::Arguments;
use crate::{output, writer};
use anyhow::{Context as _, Result, ensure};
use bench::documents;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tests::{Context, Postgres, Site, create_owned, http, metric, until};

/// For Postgres: nothing that keeps data safe is off.
const SETTINGS: &[&str] = &[
    "fsync = on",
    "shared_buffers = 512MB",
    "max_wal_size = 16GB",
    "checkpoint_timeout = 1h",
    "max_replication_slots = 40",
    "max_wal_senders = 40",
    // Neither is measured, and both come when they please.
    "autovacuum = off",
    "track_io_timing = off",
];

/// The place, and how much is to be measured.
pub(crate) struct Lab {
    context: Context,
    pub(crate) runs: usize,
    scale: f64,
    sites: AtomicU32,
    // Last, so that it goes when all else is gone.
    _home: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn open(arguments: &Arguments) -> Result<Self> {
        ensure!(
            arguments.scale > 0.0 && arguments.scale.is_finite(),
            "--scale is a number above 0: 1 for all, 0.01 for a hundredth"
        );
        ensure!(arguments.runs > 0, "--runs is at least 1");
        raise_the_limit_of_files()?;
        let home = tempfile::Builder::new().prefix("fhir-tail-bench-").tempdir()?;
        // Postgres runs as another user when we are root, and has to reach its folder in here.
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711))?;
        let postgres = Postgres::all()?.into_iter().next().context("there is no Postgres")?;
        output::say(&format!("PostgreSQL {} in {}", postgres.major(), postgres.bin().display()));
        let template = home.path().join("template");
        create_owned(&template)?;
        let data = template.join("data");
        postgres.initialise(&data, 16)?;
        let context = Context::new(postgres, home.path(), &data);
        Ok(Self {
            context,
            runs: arguments.runs,
            scale: arguments.scale,
            sites: AtomicU32::new(0),
            _home: home,
        })
    }

    /// So many, in proportion, but no fewer than what still means something.
    pub(crate) fn scaled(&self, whole: u32, least: u32) -> u32 {
        // Positive, and what is too large becomes the largest.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scaled = (f64::from(whole) * self.scale).round() as u32;
        scaled.max(least.min(whole))
    }

    /// What Postgres and the service of the last site have said.
    pub(crate) fn logs(&self) -> String {
        let last = self.sites.load(Relaxed).saturating_sub(1);
        tests::logs(&self.context.directory().join(format!("site-{last}")))
    }

    /// Removes what the sites have left, so that a run takes no more room than its largest row.
    pub(crate) fn remove_sites(&self) -> Result<()> {
        for site in 0..self.sites.load(Relaxed) {
            match std::fs::remove_dir_all(self.context.directory().join(format!("site-{site}"))) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The major version of the Postgres that is measured.
    pub(crate) fn postgres(&self) -> u32 {
        self.context.postgres().major()
    }

    /// A migrated database, and a service that is not started yet.
    pub(crate) async fn site(&self, arguments: &[&str]) -> Result<(Context, Site)> {
        let context = self.context.within(&format!("site-{}", self.sites.fetch_add(1, Relaxed)))?;
        let arguments = [&["--log-level", "warn"], arguments].concat();
        // Over TCP too. The port was free just now.
        let port = format!("port = {}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let settings = [SETTINGS, &["listen_addresses = '127.0.0.1'", &port]].concat();
        let site = Site::prepare(&context, &settings, &arguments).await?;
        Ok((context, site))
    }

    /// The same, with the service running and ready.
    pub(crate) async fn running(&self, arguments: &[&str]) -> Result<(Context, Site)> {
        let (context, mut site) = self.site(arguments).await?;
        site.server.start().await?;
        ready(site.server.listening()?).await?;
        Ok((context, site))
    }

    /// The same, with so many resources that are old enough to come from the tables.
    pub(crate) async fn loaded(&self, rows: u64) -> Result<(Context, Site)> {
        let (context, site) = self.running(&[]).await?;
        writer::at_once(&site.sql, 0..rows).await?;
        settled(&site).await?;
        Ok((context, site))
    }
}

/// Waits until what was written is read, on disk, old enough for the tables, and known to the planner.
pub(crate) async fn settled(site: &Site) -> Result<()> {
    tidy(site).await?;
    caught_up(site, "fhir_tail").await?;
    site.settle().await
}

/// What a database does by itself sooner or later, now. Each is a statement of its own: neither may be in a transaction.
pub(crate) async fn tidy(site: &Site) -> Result<()> {
    for statement in ["vacuum analyze fhir.resource", "checkpoint"] {
        site.sql.batch_execute(statement).await?;
    }
    Ok(())
}

/// Waits until a slot has nothing left of what is in the log now.
pub(crate) async fn caught_up(site: &Site, slot: &str) -> Result<()> {
    let target: String =
        site.sql.query_one("select pg_current_wal_insert_lsn()::text", &[]).await?.try_get(0)?;
    acknowledged(site, slot, &target).await
}

/// Waits until all before a place in the log is acknowledged, which is what is on the disk of the service.
pub(crate) async fn acknowledged(site: &Site, slot: &str, target: &str) -> Result<()> {
    let passed = "select coalesce(confirmed_flush_lsn >= ($2::text)::pg_lsn, false) from pg_replication_slots where slot_name = $1";
    let passed = site.sql.prepare(passed).await?;
    until("the slot to be acknowledged", Duration::from_secs(900), || async {
        Ok(site
            .sql
            .query_opt(&passed, &[&slot, &target])
            .await?
            .and_then(|row| row.get::<_, bool>(0).then_some(())))
    })
    .await
}

/// Waits until the journal has all before a place in the log on disk.
pub(crate) async fn on_disk(site: &Site, address: SocketAddr, target: &str) -> Result<()> {
    let sql = "select (($1::text)::pg_lsn - '0/0')::float8";
    let target: f64 = site.sql.query_one(sql, &[&target]).await?.try_get(0)?;
    until("the journal to be written", Duration::from_secs(900), || async {
        // To ask costs the service time: not more than is needed.
        tokio::time::sleep(Duration::from_millis(15)).await;
        Ok((metric(address, "fhir_tail_durable_lsn").await? >= target).then_some(()))
    })
    .await
}

/// Waits until a slot is read, and returns since when: when the server's process for that began, on [`clock::of_day`].
pub(crate) async fn read_since(sql: &tokio_postgres::Client, slot: &str) -> Result<i64> {
    let begun = "select (extract(epoch from backend_start) * 1000000)::int8 from pg_replication_slots \
                 join pg_stat_replication on pid = active_pid where slot_name = $1";
    until("the slot to be read", Duration::from_secs(60), || async {
        Ok(sql.query_opt(begun, &[&slot]).await?.map(|row| row.try_get(0)).transpose()?)
    })
    .await
}

/// Waits until the service says that it is ready.
pub(crate) async fn ready(address: SocketAddr) -> Result<()> {
    until("the service to be ready", Duration::from_secs(120), || async {
        Ok((http::get(address, "/health/ready", "").await?.status == 200).then_some(()))
    })
    .await
}

/// What asks for the changes of the documents' type alone, from now on.
pub(crate) fn live_request(address: SocketAddr) -> String {
    get(address, &format!("/fhir/{}/$export?{LIVE_ONLY}", documents::TYPE), "")
}

/// So many subscribers of the documents' type, live; `record` is where they write when which event came.
pub(crate) async fn subscribers(site: &Site, count: usize, record: Option<&Path>) -> Result<Crowd> {
    let address = site.server.listening()?;
    let requests = vec![(live_request(address), count)];
    crowd(address, requests, record.map(PathBuf::from)).await
}

/// Subscribers, live.
pub(crate) async fn crowd(
    address: SocketAddr,
    requests: Vec<(String, usize)>,
    record: Option<PathBuf>,
) -> Result<Crowd> {
    Ok(Crowd::start(Spec { address, requests, ready: Ready::Live, record }).await?.0)
}

/// Ten thousand subscribers are as many files, here and in what is started from here.
fn raise_the_limit_of_files() -> Result<()> {
    const WANTED: u64 = 65_536;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, hard.max(WANTED)).is_err() {
        // Only root may raise the hard limit.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        if hard < 11_000 {
            output::say(&format!(
                "only {hard} files may be open: rows with 10,000 subscribers will fail (ulimit -n)"
            ));
        }
    }
    Ok(())
}
