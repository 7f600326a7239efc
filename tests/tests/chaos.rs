//! Chaos: a crowd of readers with various filters, and faults of every kind in a random order, in rounds, each on a site of
//! its own. `make chaos` runs it for long; what it prints is a table of what was done and what went wrong.
//!
//! `FHIR_TAIL_TEST_SECONDS` says for how long, `FHIR_TAIL_TEST_SEED` with which choices, `FHIR_TAIL_TEST_READERS` with how
//! many readers.

use crate::crowd::{Crowd, Disturbance, Tally};
use crate::wire::EVENTS;
use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use tests::{
    Address, Case, Clock, Cluster, Context, Descriptors, Disk, Load, Proxy, SOON, Site, Takers, Target,
    cases, http, seconds, seed, skip, within,
};
use tokio::time::{Instant, sleep};

pub(crate) fn cases() -> Vec<Case> {
    cases![once everything_at_once]
}

/// How long it goes on if nobody says.
const SECONDS: u64 = 20;
const READERS: u32 = 10;
/// So many things are to go wrong at least.
const FAULTS: u32 = 6;
/// They begin within this time.
const READERS_BEGIN: Duration = Duration::from_secs(3);
/// A round is not longer than this: what each reader heard is kept until it is judged.
const ROUND: Duration = Duration::from_secs(60);
/// The database's clock is at most this far ahead of the real time: beyond a minute stamps count as damaged.
const AHEAD: i64 = 30_000;

/// What the service may have open, and how many strangers come for it at once.
const DESCRIPTORS: Descriptors = Descriptors { soft: 1_024, hard: 1_024 };
const STRANGERS: usize = 1_200;

/// Replays that nobody reads, at most so many at the same time.
const STALLED: usize = 200;

/// For the walsender to notice a frozen connection while it is frozen.
const SETTINGS: [&str; 2] = ["wal_sender_timeout = 2s", "tcp_user_timeout = 5s"];

async fn everything_at_once(context: Context) -> Result<()> {
    let seed = seed()?;
    report(&format!("seed {seed}"));
    let mut random = Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds()?.unwrap_or(SECONDS));
    let readers = match std::env::var("FHIR_TAIL_TEST_READERS") {
        Ok(readers) => readers.parse().context("FHIR_TAIL_TEST_READERS is not a number")?,
        Err(_) => READERS,
    };
    let mut totals = Totals::default();
    let mut round = 0_u32;
    // On a busy machine a time may pass in which little goes wrong.
    while Instant::now() < end || totals.faults() < FAULTS {
        round += 1;
        let time = end.saturating_duration_since(Instant::now()).clamp(Duration::from_secs(5), ROUND);
        let within = context.within(&format!("r{round}"))?;
        let result = play(&within, Rng::with_seed(random.u64(..)), readers, time, &mut totals).await;
        report(&totals.table(round));
        result.with_context(|| format!("in round {round} with FHIR_TAIL_TEST_SEED={seed}"))?;
        std::fs::remove_dir_all(within.directory())?;
    }
    Ok(())
}

/// One round.
async fn play(
    context: &Context,
    random: Rng,
    readers: u32,
    time: Duration,
    totals: &mut Totals,
) -> Result<()> {
    let clock = Clock::new(context.directory())?;
    let disk = Disk::mount(&context.directory().join("data"))?;
    for (there, what) in
        [(clock.is_some(), "libfaketime"), (disk.is_some(), "a tmpfs (only root may mount one)")]
    {
        if !there {
            skip(&format!("chaos: {what} cannot be had here"))?;
        }
    }
    let cluster = Cluster::start_with_clock(context, &SETTINGS, clock.clone()).await?;
    let database = Proxy::start(Target::Unix(cluster.socket())).await?;
    let url = format!("postgresql://fhir_tail@{}/fhir", database.address());
    let mut site = Site::on(context, cluster, &url, &[]).await?;
    site.server.limit(DESCRIPTORS);
    site.server.start().await?;
    let clients = Proxy::start(Target::Server(site.server.address())).await?;
    let crowd = Crowd {
        load: Load { writers: 4, pause: Duration::from_millis(25), restarts: true },
        readers,
        spread: READERS_BEGIN,
        time,
        address: Address::fixed(clients.address()),
    };
    let stalled = Vec::new();
    let faults = Faults { database, clients, clock, disk, stalled, injected: &mut totals.injected };
    let tally = crowd.run(&mut site, random, faults).await?;
    totals.add(tally);
    Ok(())
}

struct Faults<'a> {
    /// Between the service and Postgres.
    database: Proxy,
    /// Between the service and its clients.
    clients: Proxy,
    clock: Option<Clock>,
    disk: Option<Disk>,
    /// Clients that read no more than the head of the answer.
    stalled: Vec<http::Response>,
    injected: &'a mut BTreeMap<&'static str, u32>,
}

impl Disturbance for Faults<'_> {
    async fn next(&mut self, site: &mut Site, random: &mut Rng) -> Result<()> {
        sleep(Duration::from_millis(random.u64(50..1_200))).await;
        let name = match random.u8(0..16) {
            0 | 1 => {
                site.server.kill().await?;
                sleep(Duration::from_millis(random.u64(0..500))).await;
                site.server.start().await?;
                "service killed (-9)"
            }
            2 => {
                let status = site.server.terminate(SOON).await?;
                ensure!(status.success(), "it ended with {status}");
                site.server.start().await?;
                "service stopped and started"
            }
            3 => {
                site.cluster.stop_fast().await?;
                postgres_again(site).await?;
                "Postgres stopped (fast)"
            }
            4 => {
                site.cluster.stop_immediate().await?;
                postgres_again(site).await?;
                "Postgres stopped (immediate)"
            }
            5 => {
                let end = "select pg_terminate_backend(pid) from pg_stat_replication";
                site.sql.execute(end, &[]).await?;
                "walsender terminated"
            }
            6 => {
                self.database.cut();
                "connections to Postgres cut"
            }
            7 => {
                self.database.freeze(true);
                sleep(Duration::from_millis(random.u64(200..4_000))).await;
                if random.bool() {
                    self.database.cut();
                }
                self.database.freeze(false);
                "connections to Postgres frozen"
            }
            8 | 9 => {
                self.clients.cut();
                "connections of clients cut"
            }
            10 => {
                self.clients.freeze(true);
                sleep(Duration::from_millis(random.u64(200..4_000))).await;
                if random.bool() {
                    self.clients.cut();
                }
                self.clients.freeze(false);
                "connections of clients frozen"
            }
            11 | 12 => {
                let Some(clock) = &self.clock else { return Ok(()) };
                clock.step_to(random.i64(0..AHEAD))?;
                "database's clock stepped"
            }
            13 => {
                let strangers = Takers::take(site.server.listening()?, STRANGERS).await?;
                sleep(Duration::from_millis(random.u64(500..4_000))).await;
                let held = strangers.held();
                ensure!(held > 300, "only {held} strangers were held: the fault is none");
                "descriptors taken by strangers"
            }
            14 => {
                self.stalled.clear();
                let at = site.server.listening()?;
                for _ in 0..random.usize(0..STALLED) {
                    // The database may be away: then there is a refusal instead.
                    let asked = http::get_with_little_room(at, "/fhir/$export", EVENTS);
                    self.stalled.extend(within("an answer", SOON, asked).await.ok());
                }
                "stalled replays come and go"
            }
            _ => {
                let Some(disk) = &self.disk else { return Ok(()) };
                disk.fill()?;
                sleep(Duration::from_millis(random.u64(200..3_000))).await;
                if random.u8(0..3) == 0 {
                    site.server.kill().await?;
                    disk.free()?;
                    site.server.start().await?;
                } else {
                    disk.free()?;
                }
                "disk of the journal full"
            }
        };
        *self.injected.entry(name).or_default() += 1;
        site.server.must_run()
    }
}

async fn postgres_again(site: &mut Site) -> Result<()> {
    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    Ok(())
}

/// What was done in all rounds.
#[derive(Default)]
struct Totals {
    injected: BTreeMap<&'static str, u32>,
    crowd: Tally,
}

impl Totals {
    fn add(&mut self, tally: Tally) {
        let all = &mut self.crowd;
        all.commits += tally.commits;
        all.changes += tally.changes;
        all.events += tally.events;
        all.connections += tally.connections;
        all.cut_in_replays += tally.cut_in_replays;
    }

    fn faults(&self) -> u32 {
        self.injected.values().sum()
    }

    /// Of the rounds that were judged: in them nothing was lost, doubled or out of order.
    fn table(&self, round: u32) -> String {
        let Tally { commits, changes, events, connections, cut_in_replays } = self.crowd;
        let mut text = format!(
            "after round {round}: {commits} commits, {changes} changes, {events} events judged, {connections} connections, \
             {cut_in_replays} cut in a replay\n{:>7} faults\n",
            self.faults()
        );
        for (name, count) in &self.injected {
            text += &format!("{count:>7} {name}\n");
        }
        text
    }
}

#[allow(clippy::print_stderr, reason = "the table is what it is run for")]
fn report(text: &str) {
    eprintln!("{text}");
}
