//! A source that is away or behind: an open stream is told that what it shows is old, and when it is new again.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use tests::{
    Binary, Case, Client, Cluster, Context, Proxy, Reader, SOON, Site, Subscribe, Target, cases, http,
    micros, until,
};
use tokio::time::Instant;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_database_that_is_stopped,
        once a_connection_that_stalls,
        each a_walsender_that_is_behind,
        once a_record_that_is_half_on_disk,
    ]
}

/// The contract is thirty seconds; the rest is for a busy machine.
const TOLD: Duration = Duration::from_secs(90);

/// Reads on until it is told that what it has is old, with the time up to which it has everything.
async fn is_told(reader: &mut Reader, times: usize) -> Result<String> {
    reader.hear("stale", TOLD, |reader| reader.notices("stale").count() == times).await?;
    reader.transaction_time().context("stale without a transactionTime")
}

async fn is_fresh_again(reader: &mut Reader, times: usize) -> Result<()> {
    reader.hear("fresh", TOLD, |reader| reader.notices("fresh").count() == times).await
}

/// The log is followed up to its end.
async fn caught_up(site: &Site) -> Result<()> {
    until("the feed to be fresh", SOON, || async {
        Ok((site.metric("fhir_tail_stale").await? == 0.0
            && site.metric("fhir_tail_feed_age_seconds").await? < 6.0)
            .then_some(()))
    })
    .await
}

/// Of a reader that only reads on: what a `_since` of the time that it was told brings is all that it has not heard.
async fn misses_nothing_since(site: &Site, time: &str, id: &str) -> Result<()> {
    let query = format!("_type=Patient&_since={time}");
    let late = site.live(Subscribe::with(Client::Raw, &query)).await?;
    ensure!(late.heard_of(id), "{time} is later than what was not heard: {}", late.tail());
    Ok(())
}

async fn a_database_that_is_stopped(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "before").await?;
    let mut everything = site.live(Subscribe::all(Client::EventSource)).await?;
    let mut patients = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    caught_up(&site).await?;
    let binary = Binary::find()?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let position = context.directory().join("position.json").display().to_string();
    let download = ["tail", &url, "--until-live", "--state", &position];
    let first = binary.succeed(&download)?;
    ensure!(
        !first.stdout.is_empty() && !String::from_utf8(first.stderr)?.contains("stale"),
        "not as expected"
    );
    site.cluster.stop_fast().await?;
    let time = is_told(&mut everything, 1).await?;
    is_told(&mut patients, 1).await?;
    let ready = http::get(site.server.listening()?, "/health/ready", "").await?.body().await?;
    ensure!(String::from_utf8(ready)?.contains(r#""stale":true"#), "readiness does not say it");

    // A client that comes meanwhile, with an id that another was told: told again, before and after live.
    let stale = patients.last_id.clone();
    patients.cut();
    patients.connect(site.server.listening()?).await?;
    is_told(&mut patients, 3).await?;
    ensure!(patients.noticed("live") && !patients.noticed("reset"), "{}", patients.tail());

    // So is one that reads no further than live.
    let resumed = binary.succeed(&download)?;
    let told = String::from_utf8(resumed.stderr)?;
    ensure!(told.contains("stale: what changed after 20") && resumed.stdout.is_empty(), "{told}");

    site.cluster.start_again().await?;
    site.sql = site.cluster.connect().await?;
    site.put("Patient", "missed").await?;
    is_fresh_again(&mut everything, 1).await?;
    is_fresh_again(&mut patients, 1).await?;
    misses_nothing_since(&site, &time, "missed").await?;

    // The id of the notice, like any other.
    let mut resumed = Reader::new(Subscribe::with(Client::Raw, "_type=Patient"));
    resumed.last_id = stale;
    resumed.connect(site.server.listening()?).await?;
    resumed.hear("what it missed", SOON, |reader| reader.heard_of("missed")).await?;
    ensure!(!resumed.heard_of("before") && !resumed.noticed("reset"), "{}", resumed.tail());
    Ok(())
}

/// Nobody says that anything is wrong: no packet comes.
async fn a_connection_that_stalls(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &[]).await?;
    let proxy = Proxy::start(Target::Unix(cluster.socket())).await?;
    let url = format!("postgresql://fhir_tail@{}/fhir", proxy.address());
    let mut site = Site::on(&context, cluster, &url, &[]).await?;
    site.server.start().await?;
    site.put("Patient", "before").await?;
    let mut reader = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    caught_up(&site).await?;
    proxy.freeze(true);
    site.put("Patient", "meanwhile").await?;
    is_told(&mut reader, 1).await?;
    ensure!(!reader.heard_of("meanwhile"), "{}", reader.tail());
    proxy.freeze(false);
    is_fresh_again(&mut reader, 1).await?;
    reader.hear("what it missed", SOON, |reader| reader.heard_of("meanwhile")).await?;
    ensure!(!reader.noticed("reset"), "{}", reader.tail());
    Ok(())
}

/// SQL is answered, the connection stands, and the log does not come: as when a large transaction is decoded.
async fn a_walsender_that_is_behind(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    caught_up(&site).await?;
    let pid: i32 = site
        .sql
        .query_one("select active_pid from pg_replication_slots where active", &[])
        .await?
        .try_get(0)?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    site.put("Patient", "decoded-late").await?;
    let told = is_told(&mut reader, 1).await;
    kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    let time = told?;
    ensure!(!reader.heard_of("decoded-late"), "{}", reader.tail());
    is_fresh_again(&mut reader, 1).await?;
    reader.hear("what was late", SOON, |reader| reader.heard_of("decoded-late")).await?;
    // What was written ten minutes ago would count as told: the time is that of what was received.
    misses_nothing_since(&site, &time, "decoded-late").await?;
    let fresh = reader.transaction_time().context("fresh without a transactionTime")?;
    ensure!(micros(&fresh)? >= micros(&time)?, "the time went back from {time} to {fresh}");
    Ok(())
}

/// A transaction that stays open has written more than a page of the log, of which the database wrote whole pages to its disk.
/// The walsender cannot send the record that ends beyond, and nothing commits: that is no lag.
async fn a_record_that_is_half_on_disk(context: Context) -> Result<()> {
    // Nothing else writes the rest: neither a checkpoint nor the background writer.
    let settings = ["checkpoint_timeout = 1h", "autovacuum = off"];
    let mut site = Site::prepare(&context, &settings, &[]).await?;
    site.server.start().await?;
    let mut reader = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    caught_up(&site).await?;
    let writer = "select pid from pg_stat_activity where backend_type = 'background writer'";
    let writer: i32 = site.sql.query_one(writer, &[]).await?.try_get(0)?;
    kill(Pid::from_raw(writer), Signal::SIGSTOP)?;
    let all_received = half_on_disk(&site).await;
    kill(Pid::from_raw(writer), Signal::SIGCONT)?;
    all_received?;
    site.put("Patient", "after").await?;
    reader.hear("what came after", SOON, |reader| reader.heard_of("after")).await?;
    ensure!(!reader.noticed("stale"), "{}", reader.tail());
    Ok(())
}

/// Waits for such a record, and then until a look finds that all has been received.
async fn half_on_disk(site: &Site) -> Result<()> {
    let other = site.cluster.connect().await?;
    other.batch_execute("create table noise (x text); alter table noise alter x set storage plain").await?;
    until("a record that is half on disk", SOON, || async {
        other.batch_execute("begin; insert into noise values (repeat('x', 5000))").await?;
        let half = "select pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn() \
                    and (pg_current_wal_flush_lsn() - '0/0') % 8192 = 0";
        let half: bool = until("the flush to stand still", SOON, || async {
            let row = site.sql.query_one(half, &[]).await?;
            Ok(Some(row.try_get(0)?))
        })
        .await?;
        if !half {
            other.batch_execute("commit").await?;
        }
        Ok(half.then_some(()))
    })
    .await?;
    let since = Instant::now();
    // Looks go on, one every five seconds: one that was begun after this finds that all has been received.
    until("the feed to have all that there is", SOON, || async {
        let age = site.metric("fhir_tail_feed_age_seconds").await?;
        Ok((age < since.elapsed().as_secs_f64()).then_some(()))
    })
    .await
}
