//! A crowd: random writers, and readers that come and go as they please, while something is disturbed. In the end each
//! reader is judged.

use anyhow::{Result, ensure};
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tests::check::{Expect, check};
use tests::{
    Address, Client, Cut, Ended, History, Load, Reader, SOON, Site, Subscribe, TYPES, Table, Writers, micros,
    until, within,
};
use tokio::time::{Instant, sleep};

/// The last that is written, of each type: who has heard it has heard everything before it.
const END: &str = "the-end";

/// So many transactions at least.
const COMMITS: i64 = 100;

/// What it is made of.
pub(crate) struct Crowd {
    pub(crate) load: Load,
    pub(crate) readers: u32,
    /// They begin within this time.
    pub(crate) spread: Duration,
    /// How long the writers write at least; longer, if not [`enough`](Disturbance::enough) has happened.
    pub(crate) time: Duration,
    /// Where the readers reach the server.
    pub(crate) address: Address,
}

/// What goes wrong meanwhile.
pub(crate) trait Disturbance: Send {
    /// The next fault, and whatever it takes to go on after it.
    fn next(&mut self, site: &mut Site, random: &mut Rng) -> impl Future<Output = Result<()>> + Send;

    /// Whether enough went wrong for the test to mean something. On a busy machine a time may pass in which little happens.
    fn enough(&self) -> bool {
        true
    }

    /// Whatever is wrong is put right: the writers are to finish what they are at.
    fn end(&mut self, _: &mut Site) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// What was done.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) commits: i64,
    pub(crate) changes: usize,
    pub(crate) events: usize,
    pub(crate) connections: u32,
    pub(crate) cut_in_replays: u32,
}

impl Crowd {
    /// Lets it loose on a site, then judges every reader.
    pub(crate) async fn run(
        &self,
        site: &mut Site,
        mut random: Rng,
        mut disturbance: impl Disturbance,
    ) -> Result<Tally> {
        History::begin(&site.sql).await?;
        // Something to replay for a while, so that it can be cut.
        let fill = "insert into fhir.resource (resource_type, id, content) \
            select t, 'f' || i, format('{\"resourceType\":\"%s\",\"n\":%s,\"text\":\"%s\"}', t, i, repeat('x', 300))::json \
            from generate_series(1, 1500) i, unnest(array['Patient', 'Observation', 'Condition']) t";
        site.sql.batch_execute(fill).await?;
        let writers = Writers::start(&site.cluster.config("postgres"), random.u64(..), &self.load);
        let writing = Arc::new(AtomicBool::new(true));
        let cut_in_replays = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for index in 0..self.readers {
            let subscriber = Subscriber {
                random: Rng::with_seed(random.u64(..)),
                spread: self.spread,
                address: self.address.clone(),
                writing: Arc::clone(&writing),
                cut_in_replays: Arc::clone(&cut_in_replays),
            };
            let subscription = self.subscription(site, index, &mut random).await?;
            tasks.push(tokio::spawn(subscriber.follow(subscription)));
        }
        let end = Instant::now() + self.time;
        let enough =
            |disturbance: &_| Disturbance::enough(disturbance) && cut_in_replays.load(Ordering::Relaxed) > 0;
        while Instant::now() < end || !enough(&disturbance) && Instant::now() < end + SOON {
            disturbance.next(site, &mut random).await?;
            sleep(Duration::from_millis(100)).await;
        }
        disturbance.end(site).await?;
        writers.reach(COMMITS).await?;
        let commits = writers.stop().await?;
        for resource_type in TYPES {
            site.put(resource_type, END).await?;
        }
        writing.store(false, Ordering::Relaxed);
        let mut heard = Vec::new();
        for task in tasks {
            heard.push(within("the readers", SOON * 2, async { task.await? }).await?);
        }
        let (history, table) = (History::read(&site.sql).await?, Table::read(&site.sql).await?);
        let mut wrong = Vec::new();
        for (subscription, reader) in &heard {
            let Subscription { types, since, .. } = subscription;
            let expect = Expect { history: &history, table: &table, types, since: *since, resets: false };
            if let Err(error) = check(&reader.heard, expect) {
                wrong.push(format!("{error:#}: {:?} {}", reader.subscribe, reader.tail()));
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} of {} readers were told wrong:\n{}",
            wrong.len(),
            heard.len(),
            wrong.join("\n")
        );
        Ok(Tally {
            commits,
            changes: history.entries.len(),
            events: heard.iter().map(|(_, reader)| reader.heard.len()).sum(),
            connections: heard.iter().map(|(_, reader)| reader.connections).sum(),
            cut_in_replays: cut_in_replays.load(Ordering::Relaxed),
        })
    }

    /// What a reader asks for.
    async fn subscription(&self, site: &Site, index: u32, random: &mut Rng) -> Result<Subscription> {
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
            let text: String = site.sql.query_one(&sql, &[]).await?.try_get(0)?;
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
    spread: Duration,
    address: Address,
    writing: Arc<AtomicBool>,
    cut_in_replays: Arc<AtomicU32>,
}

impl Subscriber {
    /// Comes and goes until it has heard the end, and is not cut any more once that was written.
    async fn follow(mut self, subscription: Subscription) -> Result<(Subscription, Reader)> {
        let mut reader = Reader::new(subscription.subscribe.clone());
        sleep(self.spread.mul_f64(self.random.f64())).await;
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
            if writing && self.random.u8(0..8) == 0 {
                // A slow one: what is sent stays in the socket.
                sleep(Duration::from_millis(self.random.u64(500..4_000))).await;
            }
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
