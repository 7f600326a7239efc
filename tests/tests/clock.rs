//! The database's clock steps, by seconds and in both directions, while commits wait for a synchronous standby that is away,
//! so that they are in the log and nobody can see them. Whatever a replay is begun with, it ends with everything.

use crate::crowd::{Crowd, Disturbance};
use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use std::time::Duration;
use tests::check::{Expect, check};
use tests::{
    Case, Client, Clock, Cluster, Context, Cut, Heard, History, Load, Reader, SOON, Site, Subscribe, Table,
    cases, micros, put, seconds, seed, until, within,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(crate) fn cases() -> Vec<Case> {
    let skip = || Clock::is_missing().then(|| "libfaketime is not installed".to_owned());
    let cases = cases![
        each a_commit_that_waits_while_the_clock_steps_back,
        each a_step_back_while_the_service_is_down,
        once readers_while_the_clock_steps_and_commits_wait,
    ];
    cases.into_iter().map(|case| Case { skip, ..case }).collect()
}

/// How far the clock is ahead of the real time before it steps back to it. More than the database's clock runs on
/// within a test; less than the minute beyond which stamps count as damaged.
const AHEAD: i64 = 45_000;

/// A site whose database's clock is ahead.
async fn site_ahead(context: &Context) -> Result<(Site, Clock)> {
    let clock = Clock::new(context.directory())?.context("libfaketime is not installed")?;
    clock.step_to(AHEAD)?;
    let cluster = Cluster::start_with_clock(context, &[], Some(clock.clone())).await?;
    let url = cluster.url("fhir_tail");
    let mut site = Site::on(context, cluster, &url, &[]).await?;
    site.server.start().await?;
    // Ours do not wait for a standby; those of the tests that shall wait have connections of their own.
    site.sql.batch_execute("set synchronous_commit = local").await?;
    Ok((site, clock))
}

/// From now on commits wait for a standby that never comes; or no longer.
async fn standby_is_away(site: &Site, away: bool) -> Result<()> {
    let change =
        if away { "set synchronous_standby_names = 'nobody'" } else { "reset synchronous_standby_names" };
    site.sql.batch_execute(&format!("alter system {change}")).await?;
    site.sql.batch_execute("select pg_reload_conf()").await?;
    // A session takes a setting over when it is idle: one that is new has it.
    until("the setting", SOON, || async {
        let fresh = site.cluster.connect().await?;
        let row =
            fresh.query_one("select current_setting('synchronous_standby_names') = 'nobody'", &[]).await?;
        Ok((row.try_get::<_, bool>(0)? == away).then_some(()))
    })
    .await
}

/// Creates `new`, replaces `changed` and deletes `gone` in transactions whose commits wait.
async fn waiting_commits(site: &Site) -> Result<JoinHandle<Result<()>>> {
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(site.cluster.connect().await?);
    }
    let waiting = tokio::spawn(async move {
        let [new, changed, gone] = &clients[..] else { unreachable!("there are three") };
        let delete = "delete from fhir.resource where resource_type = 'Patient' and id = 'gone'";
        let done = tokio::join!(
            put(new, "Patient", "new", 1),
            put(changed, "Patient", "changed", 2),
            gone.batch_execute(delete)
        );
        done.0.and(done.1)?;
        done.2.map_err(Into::into)
    });
    let wait = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and datname = 'fhir'";
    until("the commits to wait", SOON, || async {
        let waits: i64 = site.sql.query_one(wait, &[]).await?.try_get(0)?;
        Ok((waits == 3).then_some(()))
    })
    .await?;
    Ok(waiting)
}

/// What was there before, and the transactionTime of one who asked for it.
async fn before_the_step(site: &Site) -> Result<String> {
    History::begin(&site.sql).await?;
    for id in ["still", "changed", "gone"] {
        site.put("Patient", id).await?;
    }
    site.settle().await?;
    let poll = site.live(Subscribe::all(Client::Raw)).await?;
    poll.transaction_time().context("live without a transactionTime")
}

/// Each has ended with what the tables have, and heard nothing twice or backwards.
async fn judge(site: &Site, readers: &[(&str, &[Heard], Option<i64>, bool)]) -> Result<()> {
    let (history, table) = (History::read(&site.sql).await?, Table::read(&site.sql).await?);
    for (name, heard, since, resets) in readers {
        let expect = Expect { history: &history, table: &table, types: &[], since: *since, resets: *resets };
        check(heard, expect).with_context(|| format!("{name}: {heard:#?}"))?;
    }
    Ok(())
}

async fn a_commit_that_waits_while_the_clock_steps_back(context: Context) -> Result<()> {
    let (site, clock) = site_ahead(&context).await?;
    let address = site.server.listening()?;
    let time = before_the_step(&site).await?;
    let mut live = site.live(Subscribe::all(Client::Raw)).await?;
    // One is cut in its replay before the step, and goes on with the same watermark after it.
    let mut resumed = Reader::new(Subscribe::all(Client::EventSource));
    resumed.read(address, Cut::Events(2), |_| false).await;
    ensure!(!resumed.noticed("live") && resumed.last_id.is_some(), "{}", resumed.tail());

    clock.step_to(0)?;
    standby_is_away(&site, true).await?;
    let waiting = waiting_commits(&site).await?;
    live.hear("what nobody sees", SOON, |reader| reader.heard_of("new")).await?;
    let mut replayed = site.live(Subscribe::all(Client::Raw)).await?;
    let since = format!("_since={time}");
    let mut polled = site.live(Subscribe::with(Client::EventSource, &since)).await?;
    resumed.connect(address).await?;
    resumed.hear("live", SOON, |reader| reader.noticed("live")).await?;

    standby_is_away(&site, false).await?;
    within("the commits to be seen", SOON, async { waiting.await? }).await?;
    let mut later = site.live(Subscribe::all(Client::EventSource)).await?;
    let mut polled_later = site.live(Subscribe::with(Client::Raw, &since)).await?;
    site.put("Patient", "end").await?;
    for reader in [&mut live, &mut replayed, &mut polled, &mut resumed, &mut later, &mut polled_later] {
        reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    }
    let since = Some(micros(&time)?);
    let readers = [
        ("live", &live.heard[..], None, false),
        ("replayed while they waited", &replayed.heard[..], None, false),
        ("_since, while they waited", &polled.heard[..], since, false),
        ("a replay that was cut before the step", &resumed.heard[..], None, false),
        ("replayed later", &later.heard[..], None, false),
        ("_since, later", &polled_later.heard[..], since, false),
    ];
    judge(&site, &readers).await
}

/// What is written while the service is down is stamped by a clock that has stepped back, and with an altered publication
/// no log tells of it: a client is reset from the time that its id names.
async fn a_step_back_while_the_service_is_down(context: Context) -> Result<()> {
    let (mut site, clock) = site_ahead(&context).await?;
    let time = before_the_step(&site).await?;
    // One has an id of the feed, the other one of the end of its replay.
    let mut follower = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "live").await?;
    follower.hear("it", SOON, |reader| reader.heard_of("live")).await?;
    site.settle().await?;
    let mut replayed = site.live(Subscribe::all(Client::EventSource)).await?;
    follower.cut();
    replayed.cut();

    site.server.kill().await?;
    clock.step_to(0)?;
    standby_is_away(&site, true).await?;
    let waiting = waiting_commits(&site).await?;
    standby_is_away(&site, false).await?;
    within("the commits to be seen", SOON, async { waiting.await? }).await?;
    site.sql
        .batch_execute(
            "drop publication fhir_tail; \
             create publication fhir_tail for table fhir.resource, fhir.tombstone",
        )
        .await?;
    site.server.start().await?;
    let address = site.server.listening()?;
    follower.connect(address).await?;
    replayed.connect(address).await?;
    let since = format!("_since={time}");
    let mut polled = site.live(Subscribe::with(Client::Raw, &since)).await?;
    site.put("Patient", "end").await?;
    for reader in [&mut follower, &mut replayed, &mut polled] {
        // The pages may have it too.
        let live = |reader: &Reader| {
            let of = |code| reader.heard.iter().rposition(|heard| heard.what.code() == Some(code));
            of("live") > of("reset")
        };
        reader.hear("the end", SOON, |reader| reader.heard_of("end") && live(reader)).await?;
    }
    ensure!(follower.noticed("reset") && replayed.noticed("reset"), "{}", follower.tail());
    let readers = [
        ("an id of the feed", &follower.heard[..], None, true),
        ("an id of the end of a replay", &replayed.heard[..], None, true),
        ("_since", &polled.heard[..], Some(micros(&time)?), false),
    ];
    judge(&site, &readers).await
}

const SECONDS: u64 = 15;

/// Steps of the clock and waits for the standby.
struct StepsAndWaits {
    clock: Clock,
    away: bool,
    offset: i64,
    steps: u32,
    waits: u32,
}

impl Disturbance for StepsAndWaits {
    async fn next(&mut self, site: &mut Site, random: &mut Rng) -> Result<()> {
        sleep(Duration::from_millis(random.u64(200..1_500))).await;
        if random.bool() {
            let step = random.i64(2_000..5_000);
            let back = self.offset >= step && (random.bool() || self.offset + step > AHEAD);
            self.offset += if back { -step } else { step };
            self.clock.step_to(self.offset)?;
            self.steps += 1;
        } else {
            self.away = !self.away;
            standby_is_away(site, self.away).await?;
            self.waits += u32::from(self.away);
        }
        Ok(())
    }

    fn enough(&self) -> bool {
        self.steps > 0 && self.waits > 0
    }

    async fn end(&mut self, site: &mut Site) -> Result<()> {
        ensure!(self.enough(), "{} steps and {} waits", self.steps, self.waits);
        standby_is_away(site, false).await
    }
}

async fn readers_while_the_clock_steps_and_commits_wait(context: Context) -> Result<()> {
    let (mut site, clock) = site_ahead(&context).await?;
    let seed = seed()?;
    report(&format!("seed {seed}"));
    let time = Duration::from_secs(seconds()?.unwrap_or(SECONDS));
    let crowd = Crowd {
        load: Load { writers: 4, pause: Duration::from_millis(12), restarts: false },
        readers: u32::try_from(time.as_secs())?,
        spread: time,
        time,
        address: site.server.address(),
    };
    let disturbance = StepsAndWaits { clock, away: false, offset: AHEAD, steps: 0, waits: 0 };
    let tally = crowd
        .run(&mut site, Rng::with_seed(seed), disturbance)
        .await
        .with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))?;
    report(&format!("{tally:?}"));
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the seed is what a failure is repeated by")]
fn report(text: &str) {
    eprintln!("{text}");
}
