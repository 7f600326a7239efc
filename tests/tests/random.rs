//! Random writers, and readers that come and go as they please: whatever happens, each reader hears everything once and
//! in order. The same while the server is killed, and while Postgres is restarted.
//!
//! Each run prints its seed. `FHIR_TAIL_TEST_SEED` repeats one (the writers' and readers' choices; not the scheduler's),
//! `FHIR_TAIL_TEST_SECONDS` makes it longer.

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tests::check::{Expect, check};
use tests::{
    Address, Case, Client, Context, Cut, Ended, History, Load, Reader, SOON, Site, Subscribe, TYPES, Table,
    Writers, cases, micros, until, within,
};
use tokio::time::{Instant, sleep};

pub(crate) fn cases() -> Vec<Case> {
    cases![each readers_that_are_cut, each while_the_server_is_killed, each while_postgres_is_restarted]
}

async fn readers_that_are_cut(context: Context) -> Result<()> {
    Run::new(&context, false).await?.go(async |_, _| Ok(())).await
}

async fn while_the_server_is_killed(context: Context) -> Result<()> {
    Run::new(&context, false)
        .await?
        .go(async |site, random| {
            sleep(Duration::from_millis(random.u64(200..2_500))).await;
            if random.u8(0..4) == 0 {
                let status = site.server.terminate(SOON).await?;
                ensure!(status.success(), "it ended with {status}");
            } else {
                site.server.kill().await?;
            }
            sleep(Duration::from_millis(random.u64(0..300))).await;
            site.server.start().await
        })
        .await
}

async fn while_postgres_is_restarted(context: Context) -> Result<()> {
    Run::new(&context, true)
        .await?
        .go(async |site, random| {
            sleep(Duration::from_millis(random.u64(500..3_000))).await;
            if random.bool() {
                site.cluster.stop_fast().await?;
            } else {
                site.cluster.stop_immediate().await?;
            }
            sleep(Duration::from_millis(random.u64(0..300))).await;
            site.cluster.start_again().await?;
            site.sql = site.cluster.connect().await?;
            site.server.must_run()
        })
        .await
}

/// How long the writers write.
const SECONDS: u64 = 12;

/// The last that is written, of each type: who has heard it has heard everything before it.
const END: &str = "the-end";

const READERS: u32 = 8;

struct Run {
    site: Site,
    seed: u64,
    restarts: bool,
}

impl Run {
    async fn new(context: &Context, restarts: bool) -> Result<Self> {
        let given = std::env::var("FHIR_TAIL_TEST_SEED").ok();
        let seed =
            given.map(|seed| seed.parse().context("FHIR_TAIL_TEST_SEED is not a number")).transpose()?;
        let site = Site::start(context).await?;
        Ok(Self { site, seed: seed.unwrap_or_else(|| fastrand::u64(..)), restarts })
    }

    async fn go(self, disturb: impl AsyncFnMut(&mut Site, &mut Rng) -> Result<()>) -> Result<()> {
        let seed = self.seed;
        report(&format!("seed {seed}"));
        self.attempt(disturb).await.with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))
    }

    async fn attempt(
        mut self,
        mut disturb: impl AsyncFnMut(&mut Site, &mut Rng) -> Result<()>,
    ) -> Result<()> {
        let mut random = Rng::with_seed(self.seed);
        History::begin(&self.site.sql).await?;
        // Something to replay for a while, so that it can be cut.
        let fill = "insert into fhir.resource (resource_type, id, content) \
            select t, 'f' || i, format('{\"resourceType\":\"%s\",\"n\":%s,\"text\":\"%s\"}', t, i, repeat('x', 300))::json \
            from generate_series(1, 1500) i, unnest(array['Patient', 'Observation', 'Condition']) t";
        self.site.sql.batch_execute(fill).await?;
        let load = Load { writers: 6, pause: Duration::from_millis(12), restarts: self.restarts };
        let writers = Writers::start(&self.site.cluster.config("postgres"), random.u64(..), &load);
        let writing = Arc::new(AtomicBool::new(true));
        let cut_in_replays = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for index in 0..READERS {
            let subscriber = Subscriber {
                random: Rng::with_seed(random.u64(..)),
                address: self.site.server.address(),
                writing: Arc::clone(&writing),
                cut_in_replays: Arc::clone(&cut_in_replays),
            };
            let subscription = self.subscription(index, &mut random).await?;
            tasks.push(tokio::spawn(subscriber.follow(subscription)));
        }
        let end = Instant::now() + Duration::from_secs(seconds()?);
        while Instant::now() < end {
            disturb(&mut self.site, &mut random).await?;
            sleep(Duration::from_millis(100)).await;
        }
        let commits = writers.stop().await?;
        for resource_type in TYPES {
            self.site.put(resource_type, END).await?;
        }
        writing.store(false, Ordering::Relaxed);
        let mut heard = Vec::new();
        for task in tasks {
            heard.push(within("the readers", SOON * 2, async { task.await? }).await?);
        }
        let (history, table) = (History::read(&self.site.sql).await?, Table::read(&self.site.sql).await?);
        for (subscription, reader) in &heard {
            let Subscription { types, since, .. } = subscription;
            check(
                &reader.heard,
                Expect { history: &history, table: &table, types, since: *since, resets: false },
            )
            .with_context(|| format!("{:?} {}", reader.subscribe, reader.tail()))?;
        }
        let events: usize = heard.iter().map(|(_, reader)| reader.heard.len()).sum();
        let connections: u32 = heard.iter().map(|(_, reader)| reader.connections).sum();
        let cuts = cut_in_replays.load(Ordering::Relaxed);
        report(&format!(
            "{commits} commits, {} changes, {events} events in {connections} connections, {cuts} cut in a replay",
            history.entries.len()
        ));
        ensure!(cuts > 0, "no replay was cut: nothing is tested of that");
        ensure!(commits > 100, "only {commits} commits");
        Ok(())
    }

    /// What a reader asks for.
    async fn subscription(&self, index: u32, random: &mut Rng) -> Result<Subscription> {
        let types: &[&str] = [&[][..], &["Observation"], &["Patient", "Condition"]][random.usize(0..3)];
        let mut query = Vec::new();
        if !types.is_empty() {
            query.push(format!("_type={}", types.join(",")));
        }
        // From the middle of what the table was filled with, or from now.
        let mut since = None;
        if random.bool() {
            let sql = if random.bool() {
                "select last_updated from fhir.resource where id = 'f700' and resource_type = 'Observation'"
            } else {
                "select clock_timestamp()"
            };
            let sql =
                format!("select to_char(({sql}) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
            let text: String = self.site.sql.query_one(&sql, &[]).await?.try_get(0)?;
            since = Some(micros(&text)?);
            query.push(format!("_since={text}"));
        }
        let client = if index.is_multiple_of(2) { Client::Raw } else { Client::EventSource };
        Ok(Subscription { subscribe: Subscribe::with(client, &query.join("&")), types, since })
    }
}

struct Subscription {
    subscribe: Subscribe,
    types: &'static [&'static str],
    since: Option<i64>,
}

struct Subscriber {
    random: Rng,
    address: Address,
    writing: Arc<AtomicBool>,
    cut_in_replays: Arc<AtomicU32>,
}

impl Subscriber {
    /// Comes and goes until it has heard the end, and is not cut any more once that was written.
    async fn follow(mut self, subscription: Subscription) -> Result<(Subscription, Reader)> {
        let mut reader = Reader::new(subscription.subscribe.clone());
        sleep(Duration::from_millis(self.random.u64(0..3_000))).await;
        let types = if subscription.types.is_empty() { &TYPES[..] } else { subscription.types };
        let mut ends = 0;
        let mut live = false;
        // What was heard before was looked at already.
        let mut looked = 0;
        loop {
            let writing = self.writing.load(Ordering::Relaxed);
            let address = self.address.clone();
            let at = until("an address", SOON, || async { Ok(address.now()) }).await?;
            let cut = match self.random.u8(0..6) {
                _ if !writing => Cut::Never,
                // In a first replay: soon.
                0..3 => Cut::Bytes(self.random.u64(1..400_000)),
                3 | 4 => Cut::Events(self.random.u64(0..2_500)),
                _ => Cut::Events(self.random.u64(0..20)),
            };
            reader.resume_by_query = self.random.u8(0..4) == 0;
            let connected = reader.connect(at).await;
            let ended = if connected.is_err() {
                Ended::Lost(String::new())
            } else {
                // A reader is also cut where it is quiet: after a while, whatever it has heard.
                let patience = Duration::from_millis(self.random.u64(300..4_000));
                let reading = reader.read_on(cut, |reader| {
                    for heard in &reader.heard[looked..] {
                        looked += 1;
                        live |= heard.what.code() == Some("live");
                        ends += usize::from(heard.what.key().is_some_and(|key| key.id == END));
                    }
                    live && ends >= types.len()
                });
                if writing {
                    tokio::time::timeout(patience, reading).await.unwrap_or(Ended::Cut)
                } else {
                    reading.await
                }
            };
            reader.cut();
            match ended {
                Ended::Done => return Ok((subscription, reader)),
                Ended::Cut if !live && !reader.heard.is_empty() => {
                    self.cut_in_replays.fetch_add(1, Ordering::Relaxed);
                }
                Ended::Cut | Ended::Lost(_) => {}
            }
            sleep(Duration::from_millis(self.random.u64(1..200))).await;
        }
    }
}

fn seconds() -> Result<u64> {
    match std::env::var("FHIR_TAIL_TEST_SECONDS") {
        Ok(seconds) => seconds.parse().context("FHIR_TAIL_TEST_SECONDS is not a number"),
        Err(_) => Ok(SECONDS),
    }
}

#[allow(clippy::print_stderr, reason = "the seed is what a failure is repeated by")]
fn report(text: &str) {
    eprintln!("{text}");
}
