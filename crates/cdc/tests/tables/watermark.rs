//! Watermarks on a real server: what holds the safe time back, what does not, and what is refused.

use crate::cluster::{Cluster, TestDatabase, text};
use cdc::Tables;
use cdc::layout::OnBadRow;
use feed::{Feed, Framing, Options, Sample, Source, SourceError};
use fhir::ResourceType;
use std::sync::Arc;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

struct NoFrames;

impl Framing for NoFrames {
    fn begin(&self, _: &str, _: ResourceType, _: &mut Vec<u8>) {}

    fn end(&self, _: &mut Vec<u8>) {}
}

/// The tables of a database, as a replay has them.
pub(crate) struct Running {
    pub(crate) tables: Arc<Tables>,
    feed: Feed,
    publisher: tokio::sync::Mutex<feed::Publisher>,
    _shutdown: DropGuard,
    _directory: TempDir,
}

impl Running {
    /// All that was committed before this place has come in.
    pub(crate) async fn pass(&self, lsn: feed::Lsn) {
        let batch = feed::Batch { passed: Some(lsn), ..feed::Batch::default() };
        self.publisher.lock().await.publish(batch).await.unwrap();
    }
}

pub(crate) fn start(database: &TestDatabase, user: &str) -> Running {
    start_with(database, user, OnBadRow::Skip)
}

pub(crate) fn start_with(database: &TestDatabase, user: &str, on_bad_row: OnBadRow) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        directory: directory.path().join("journal"),
        retention_bytes: 1 << 30,
        retention_age: std::time::Duration::from_secs(3600),
        concurrent_pages: 4,
        held_bytes: 64 << 20,
        base_urls: fhir::BaseUrls::default(),
    };
    let (feed, publisher) = Feed::open(options, Arc::new(NoFrames)).unwrap();
    let shutdown = CancellationToken::new();
    let tables = Tables::start(&database.settings(user), feed.clone(), on_bad_row, shutdown.clone());
    Running {
        tables,
        feed,
        publisher: tokio::sync::Mutex::new(publisher),
        _shutdown: shutdown.drop_guard(),
        _directory: directory,
    }
}

async fn sample(running: &Running) -> Sample {
    running.tables.watermark().await.unwrap()
}

const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint::text";

/// Samples after a change of another session, and says whether that is safe.
async fn change_is_safe(running: &Running, database: &TestDatabase) -> bool {
    let client = database.client().await;
    client.batch_execute("select fhir.put('Basic', 'another', '{}')").await.unwrap();
    let clock: i64 = text(&client, CLOCK).await.parse().unwrap();
    sample(running).await.watermark.safe_time.unix_micros() >= clock
}

#[tokio::test]
async fn what_has_ended_is_safe_and_its_log_on_disk() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    let first = sample(&running).await;
    assert_eq!(running.feed.sample_base().floor, Some(first.watermark.safe_time), "the feed knows");
    let client = database.client().await;
    // An asynchronous commit is not on disk yet: the watermark waits for it, or forces it.
    client.batch_execute("set synchronous_commit = off; select fhir.put('Basic', 'x', '{}')").await.unwrap();
    let clock: i64 = text(&client, CLOCK).await.parse().unwrap();
    let second = sample(&running).await;
    assert!(
        second.watermark.fence_lsn > first.watermark.fence_lsn
            && second.watermark.safe_time.unix_micros() >= clock
    );
    let flushed = format!("select (pg_current_wal_flush_lsn() >= '{}')::text", second.watermark.fence_lsn);
    assert_eq!(text(&client, &flushed).await, "true");
    assert_eq!(second.tombstones_purged, None);
    assert_eq!(running.tables.clock_steps(), 0);
}

/// An idle database has little to write: not every tick closes a time.
#[tokio::test]
async fn without_a_change_a_tick_closes_no_time() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    sample(&running).await;
    let client = database.client().await;
    let closed = "select last_value::text from fhir.closed_time";
    let before = text(&client, closed).await;
    // The age that is told goes on, which shows that there were ticks.
    let visible = running.feed.status().visible_until;
    while running.feed.status().visible_until == visible {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(text(&client, closed).await, before);
}

#[tokio::test]
async fn an_open_writer_holds_w_and_is_named() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    sample(&running).await;
    let writer = database.client().await;
    writer.batch_execute("set application_name = 'the loader'; begin").await.unwrap();
    writer.batch_execute("select fhir.put('Basic', 'x', '{}')").await.unwrap();
    let stamp = "select (extract(epoch from last_updated) * 1000000)::bigint::text from fhir.resource";
    let stamp: i64 = text(&writer, stamp).await.parse().unwrap();
    // A little later it is still there: long enough behind to be told of.
    writer.batch_execute("select pg_sleep(2.5)").await.unwrap();
    assert!(sample(&running).await.watermark.safe_time.unix_micros() < stamp);
    assert!(!change_is_safe(&running, &database).await);
    let told = running.tables.holding_back().unwrap();
    assert!(told.contains("the loader") && told.contains("idle in transaction"), "{told}");
    writer.batch_execute("commit").await.unwrap();
    assert!(change_is_safe(&running, &database).await);
    assert_eq!(running.tables.holding_back(), None);
}

#[tokio::test]
async fn a_reader_that_writes_late_does_not_pull_w_back() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    let reader = database.client().await;
    reader.batch_execute("begin; select count(*) from fhir.resource").await.unwrap();
    assert!(change_is_safe(&running, &database).await, "who only reads holds nothing");
    let before = sample(&running).await;
    reader.batch_execute("select fhir.put('Basic', 'x', '{}')").await.unwrap();
    let held = sample(&running).await;
    assert_eq!(held.watermark.safe_time, running.feed.sample_base().floor.unwrap());
    assert!(held.watermark.safe_time >= before.watermark.safe_time);
    let stamp =
        "select (extract(epoch from last_updated) * 1000000)::bigint::text from fhir.resource where id = 'x'";
    assert!(held.watermark.safe_time.unix_micros() < text(&reader, stamp).await.parse().unwrap());
    reader.batch_execute("commit").await.unwrap();
}

#[tokio::test]
async fn a_prepared_transaction_holds_w_where_it_was_before_it() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    let before = sample(&running).await;
    let client = database.client().await;
    let gid = &database.name;
    let prepare = format!("begin; select fhir.put('Basic', 'x', '{{}}'); prepare transaction '{gid}'");
    client.batch_execute(&prepare).await.unwrap();
    let held = sample(&running).await;
    let again = sample(&running).await;
    assert!(held.watermark.safe_time >= before.watermark.safe_time);
    assert_eq!(again.watermark.safe_time, held.watermark.safe_time);
    let stamp_is_later = again.watermark.safe_time.unix_micros();

    // Who begins while it is there knows no safe time at all.
    let late = start(&database, "postgres");
    match late.tables.watermark().await {
        Err(SourceError::Unavailable(told)) => assert!(told.contains("prepared"), "{told}"),
        other => panic!("{other:?}"),
    }
    assert!(late.tables.holding_back().unwrap().contains("commit prepared"));

    client.batch_execute(&format!("commit prepared '{gid}'")).await.unwrap();
    let stamp =
        text(&client, "select (extract(epoch from last_updated) * 1000000)::bigint::text from fhir.resource");
    assert!(stamp.await.parse::<i64>().unwrap() > stamp_is_later);
    assert!(change_is_safe(&running, &database).await);
    assert!(change_is_safe(&late, &database).await);
}

#[tokio::test]
async fn who_does_not_say_since_when_holds_w_until_it_ends() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    let before = sample(&running).await;
    let client = database.client().await;
    client.batch_execute("set track_activities = off").await.unwrap();
    client.batch_execute("begin; select fhir.put('Basic', 'x', '{}')").await.unwrap();
    let held = sample(&running).await;
    let again = sample(&running).await;
    assert!(held.watermark.safe_time >= before.watermark.safe_time);
    assert_eq!(again.watermark.safe_time, held.watermark.safe_time);
    client.batch_execute("commit").await.unwrap();
    assert!(change_is_safe(&running, &database).await);
}

#[tokio::test]
async fn without_the_right_to_see_the_others_nothing_is_served() {
    let database = Cluster::database().await;
    let admin = database.client().await;
    let role = format!("blind_{}", database.name);
    admin
        .batch_execute(&format!(
            "create role {role} login; grant usage on schema fhir to {role};
             grant select on all tables in schema fhir to {role};
             grant execute on function fhir.close_time(timestamptz) to {role}"
        ))
        .await
        .unwrap();
    let running = start(&database, &role);
    match running.tables.watermark().await {
        Err(SourceError::Refused(told)) => assert!(told.contains("grant pg_read_all_stats"), "{told}"),
        other => panic!("{other:?}"),
    }
    // Granted, it serves, without a restart.
    admin.batch_execute(&format!("grant pg_read_all_stats to {role}")).await.unwrap();
    assert!(change_is_safe(&running, &database).await);
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_purges_are_seen() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    let before = sample(&running).await;
    let client = database.client().await;
    client
        .batch_execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where application_name = 'fhir-tail watermark' and datname = current_database();
             insert into fhir.purged (last_updated) values ('2020-01-01 00:00:00+00')",
        )
        .await
        .unwrap();
    // The first may still be asked of the connection that is gone.
    let after = match running.tables.watermark().await {
        Ok(sample) => sample,
        Err(SourceError::Unavailable(_)) => sample(&running).await,
        Err(other) => panic!("{other:?}"),
    };
    assert!(after.watermark.safe_time >= before.watermark.safe_time);
    let purged = after.tombstones_purged.map(|at| at.to_string());
    assert_eq!(purged.as_deref(), Some("2020-01-01T00:00:00.000000Z"));
}

#[tokio::test]
async fn those_who_ask_at_once_share_a_sample() {
    let database = Cluster::database().await;
    let running = start(&database, "postgres");
    sample(&running).await;
    let asked = (0..50).map(|_| running.tables.watermark());
    let samples = futures_util::future::try_join_all(asked).await.unwrap();
    let mut taken: Vec<_> = samples.iter().map(|sample| sample.taken).collect();
    taken.dedup();
    assert!(taken.len() <= 2, "{} samples for 50 replays", taken.len());
}
