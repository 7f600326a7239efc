//! Slow and absent clients: what they cost, what they miss (nothing), and what they keep from others (nothing).

use crate::wire::{EVENTS, frames, says};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use tests::sse::{Frame, Parser};
use tests::{Case, Client, Context, Reader, SOON, Site, Subscribe, What, cases, http, sse, until, within};
use tokio::time::{Instant, sleep};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once a_reader_that_sleeps_costs_little_and_misses_nothing,
        once who_takes_too_little_is_let_go_of_and_who_is_slow_is_not,
        once a_crowd_that_comes_back_leaves_the_tables_alone,
        once replays_wait_for_their_turn_with_heartbeats,
        once a_replay_holds_no_transaction_for_a_slow_reader,
    ]
}

/// How many events there are to be: `FHIR_TAIL_TEST_EVENTS`, in a test that goes on for as long as it takes.
pub(crate) fn events(unless_given: i64) -> Result<i64> {
    let given = std::env::var("FHIR_TAIL_TEST_EVENTS").ok();
    given.map_or(Ok(unless_given), |events| events.parse().context("FHIR_TAIL_TEST_EVENTS is not a number"))
}

/// Inserts resources with `n` from `first` on, a thousand in a statement.
pub(crate) async fn pass(site: &Site, first: i64, count: i64) -> Result<()> {
    for from in (first..first + count).step_by(1_000) {
        let to = (from + 999).min(first + count - 1);
        let insert = format!(
            "insert into fhir.resource (resource_type, id, content) select 'Basic', 'e' || i, \
             format('{{\"resourceType\":\"Basic\",\"n\":%s,\"a\":\"%s\"}}', i, repeat('x', 300))::json \
             from generate_series({from}, {to}) i"
        );
        site.sql.batch_execute(&insert).await?;
    }
    Ok(())
}

/// When so many events are no longer waited for: a machine that does a thousand of them in a second is a slow one.
fn limit(events: i64) -> Duration {
    SOON * 4 + Duration::from_millis(events.unsigned_abs())
}

/// Waits until the service has everything that was written, so many events, on its disk.
async fn passed(site: &Site, watcher: &mut Reader, id: &str, events: i64) -> Result<()> {
    site.put("Patient", id).await?;
    watcher.hear("what came last", limit(events), |reader| reader.heard_of(id)).await
}

#[allow(clippy::print_stderr, reason = "a figure for whoever runs it")]
async fn a_reader_that_sleeps_costs_little_and_misses_nothing(context: Context) -> Result<()> {
    const SLEEPERS: usize = 40;
    const MEGABYTE: u64 = 1 << 20;
    let events = events(10_000)?;
    let mut site = Site::prepare(&context, &[], &["--client-timeout", "1h"]).await?;
    site.server.start().await?;
    let mut watcher = site.live(Subscribe::with(Client::Raw, "_type=Patient")).await?;
    // What the service takes for the events themselves it has then: the journal's memory, and its caches.
    let warm = events.min(100_000);
    pass(&site, 0, warm).await?;
    passed(&site, &mut watcher, "warm", warm).await?;
    let mut sleepers = Vec::new();
    let future = "_type=Basic&_since=2999-01-01T00:00:00Z";
    for _ in 0..SLEEPERS {
        sleepers.push(site.live(Subscribe::with(Client::Raw, future)).await?);
    }
    let before = site.server.memory()?;
    pass(&site, warm, events).await?;
    passed(&site, &mut watcher, "passed", events).await?;
    let after = site.server.memory()?;
    let each = after.saturating_sub(before) / SLEEPERS as u64;
    eprintln!(
        "{events} events passed {SLEEPERS} sleeping readers: {} MB before, {} MB after, {} KB for each; held: {} bytes",
        before / MEGABYTE,
        after / MEGABYTE,
        each / 1024,
        site.metric("fhir_tail_held_bytes").await?
    );
    ensure!(each < MEGABYTE, "{before} bytes before, {after} after: {each} for each");
    sleepers.truncate(2);
    for mut sleeper in sleepers {
        let end = warm + events;
        let last = format!("e{}", end - 1);
        let began = sleeper.heard.len();
        let mut looked = began;
        let enough = |reader: &Reader| {
            let found =
                reader.heard[looked..].iter().any(|heard| heard.what.key().is_some_and(|key| key.id == last));
            looked = reader.heard.len();
            found
        };
        let begun = Instant::now();
        sleeper.hear("everything", limit(events), enough).await?;
        eprintln!("one caught up with {events} events in {:.1} s", begun.elapsed().as_secs_f64());
        let heard: Vec<i64> = sleeper.heard[began..]
            .iter()
            .filter_map(|heard| match &heard.what {
                What::Resource { n, .. } => *n,
                _ => None,
            })
            .collect();
        ensure!(heard.iter().copied().eq(warm..end), "a gap, or something twice: {} heard", heard.len());
        ensure!(!sleeper.noticed("reset") && sleeper.connections == 1, "{}", sleeper.tail());
    }
    Ok(())
}

/// Resources of 100 KB, which are more than fits into the buffers of a connection.
pub(crate) async fn fill(site: &Site, count: usize) -> Result<()> {
    let insert = format!(
        "insert into fhir.resource (resource_type, id, content) select 'Basic', 'b' || i, \
         format('{{\"resourceType\":\"Basic\",\"a\":\"%s\"}}', repeat('x', 100000))::json from generate_series(1, {count}) i"
    );
    site.sql.batch_execute(&insert).await?;
    site.settle().await
}

/// Reads so many bytes of a stream, or up to its notice `live`, or to its end.
async fn take(response: &mut http::Response, parser: &mut Parser, bytes: usize) -> Result<Taken> {
    let mut taken = Taken::default();
    while taken.bytes < bytes {
        let Ok(Some(more)) = within("bytes", SOON, response.next()).await else {
            taken.ended = true;
            break;
        };
        taken.bytes += more.len();
        parser.push(&more);
        taken.frames.extend(std::iter::from_fn(|| parser.next_item()).filter_map(|item| match item {
            sse::Item::Frame(frame) => Some(frame),
            sse::Item::Comment(_) => None,
        }));
        // Nothing more than heartbeats may come after this.
        if taken.frames.iter().any(|frame| says(frame, "live")) {
            break;
        }
    }
    Ok(taken)
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    frames: Vec<Frame>,
    ended: bool,
}

/// A client is let go of when nothing could be written to it for the time that is set; one that takes little, but
/// steadily, is not, although it takes all of the time several times over.
async fn who_takes_too_little_is_let_go_of_and_who_is_slow_is_not(context: Context) -> Result<()> {
    const RESOURCES: usize = 40;
    let mut site = Site::prepare(&context, &[], &["--client-timeout", "5s"]).await?;
    site.server.start().await?;
    // A megabyte of what a sender may have on its way would take more than the time that is set.
    fill(&site, RESOURCES).await?;
    let at = site.server.listening()?;
    let open = async || site.metric("fhir_tail_streams_open").await;
    let mut slow = http::get(at, "/fhir/$export", EVENTS).await?;
    let mut trickling = http::get(at, "/fhir/$export", EVENTS).await?;
    let _absent = http::get(at, "/fhir/$export", EVENTS).await?;
    until("three streams", SOON, || async { Ok((open().await? == 3.0).then_some(())) }).await?;

    let (mut parser, mut frames) = (Parser::default(), Vec::new());
    let mut trickled = 0;
    let mut live = false;
    while !live {
        let taken = take(&mut slow, &mut parser, 50_000).await?;
        live = taken.frames.iter().any(|frame| says(frame, "live"));
        ensure!(!taken.ended, "the slow one was let go of after {} frames", frames.len());
        frames.extend(taken.frames);
        // The pace of its reading: about 200 KB a second.
        sleep(Duration::from_millis(250)).await;
        // The other one takes a byte, while there are any.
        trickled += usize::from(matches!(within("a byte", SOON, trickling.take_byte()).await, Ok(true)));
    }
    let resources = frames.iter().filter(|frame| frame.get("event").as_deref() == Some("Basic"));
    ensure!(resources.count() == RESOURCES && trickled > 0, "some are missing, or it took {trickled} bytes");
    until("the others to be let go of", SOON, || async { Ok((open().await? == 1.0).then_some(())) }).await?;
    Ok(())
}

/// How often the tables of the native layout were read, by whomever.
const SCANS: &str = "select sum(seq_scan + coalesce(idx_scan, 0))::bigint from pg_stat_user_tables \
    where relname in ('resource', 'tombstone')";

/// Waits until nobody but us is connected: what a process has counted is added up when it ends.
async fn alone(site: &Site) -> Result<()> {
    let others = "select count(*) from pg_stat_activity where datname = 'fhir' and pid <> pg_backend_pid()";
    until("the others to be gone", SOON, || async {
        Ok((site.sql.query_one(others, &[]).await?.try_get::<_, i64>(0)? == 0).then_some(()))
    })
    .await
}

async fn a_crowd_that_comes_back_leaves_the_tables_alone(context: Context) -> Result<()> {
    const READERS: usize = 2_000;
    let mut site = Site::prepare(&context, &["autovacuum = off"], &[]).await?;
    site.server.start().await?;
    let writer = std::mem::replace(&mut site.sql, site.cluster.connect().await?);
    let mut first = site.live(Subscribe::all(Client::Raw)).await?;
    for n in 0..50 {
        tests::put(&writer, "Patient", &format!("p{n}"), n).await?;
    }
    first.hear("the last", SOON, |reader| reader.heard_of("p49")).await?;
    let ids: Vec<String> = first.heard.iter().map(|heard| heard.event_id.clone()).collect();
    let ids = &ids[ids.len() - 50..];
    site.server.terminate(SOON).await?;
    tests::put(&writer, "Patient", "meanwhile", 1).await?;
    drop(writer);
    alone(&site).await?;
    let scans: i64 = site.sql.query_one(SCANS, &[]).await?.try_get(0)?;

    site.server.start().await?;
    let at = site.server.listening()?;
    let mut tasks = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let from = reader % ids.len();
        let resume = format!("{EVENTS}Last-Event-ID: {}\r\n", ids[from]);
        tasks.spawn(async move {
            let mut response = http::get(at, "/fhir/$export", &resume).await?;
            let last = |frame: &Frame| frame.get("data").is_some_and(|data| data.contains("\"meanwhile\""));
            let (_, frames) = frames(&mut response, last).await?;
            let changes =
                frames.iter().filter(|frame| frame.get("event").as_deref() == Some("Patient")).count();
            let reset = frames.iter().any(|frame| says(frame, "reset") || says(frame, "reset-all"));
            ensure!(!reset && changes == 50 - from, "{changes} changes after event {from}, reset: {reset}");
            Ok(response)
        });
    }
    // All are there at once.
    let mut open = Vec::new();
    while let Some(response) = tasks.join_next().await {
        open.push(response??);
    }
    ensure!(site.metric("fhir_tail_streams_open").await? == READERS as f64, "some were let go of");
    drop(open);
    site.server.terminate(SOON).await?;
    alone(&site).await?;
    let now: i64 = site.sql.query_one(SCANS, &[]).await?.try_get(0)?;
    // The service itself looks for stamps ahead of the clock, when it connects and once a minute: a few steps along the
    // indexes. Were it one in a hundred of the readers there would be more.
    ensure!(now - scans < i64::try_from(READERS)? / 100, "the tables were read {} times", now - scans);
    // And the counters count: whoever begins reads them.
    site.server.start().await?;
    site.live(Subscribe::all(Client::Raw)).await?;
    site.server.terminate(SOON).await?;
    alone(&site).await?;
    let then: i64 = site.sql.query_one(SCANS, &[]).await?.try_get(0)?;
    ensure!(then > now, "reading the tables is not counted");
    Ok(())
}

/// Pages that are being read, or wait for a lock.
const READING: &str =
    "select count(*) from pg_stat_activity where application_name = 'fhir-tail pages' and state = 'active'";

async fn replays_wait_for_their_turn_with_heartbeats(context: Context) -> Result<()> {
    const REPLAYS: usize = 100;
    let site = Site::start(&context).await?;
    for n in 0..20 {
        site.put("Patient", &format!("p{n}")).await?;
    }
    site.settle().await?;
    let mut locker = site.cluster.connect().await?;
    let lock = locker.transaction().await?;
    lock.batch_execute("lock table fhir.resource in access exclusive mode").await?;
    let at = site.server.listening()?;
    let mut replays = Vec::new();
    for _ in 0..REPLAYS {
        replays.push(http::get(at, "/fhir/$export?_since=2000-01-01T00:00:00Z&_heartbeat=2", EVENTS).await?);
    }
    // Each is told that it is not forgotten, while a few at a time wait for the database.
    let mut parsers = Vec::new();
    for replay in &mut replays {
        let (mut parser, mut comments) = (Parser::default(), 0);
        while comments < 2 {
            let more = within("a heartbeat", SOON, replay.next()).await?.context("the stream ended")?;
            parser.push(&more);
            while let Some(item) = parser.next_item() {
                match item {
                    sse::Item::Comment(_) => comments += 1,
                    sse::Item::Frame(frame) => {
                        ensure!(says(&frame, "start"), "nothing was to come yet: {frame:?}");
                    }
                }
            }
        }
        parsers.push(parser);
        let reading: i64 = site.sql.query_one(READING, &[]).await?.try_get(0)?;
        ensure!((1..=4).contains(&reading), "{reading} pages are read at once");
    }
    lock.rollback().await?;
    for (replay, mut parser) in replays.iter_mut().zip(parsers) {
        let mut frames: Vec<Frame> = Vec::new();
        while !frames.iter().any(|frame| says(frame, "live")) {
            let taken = take(replay, &mut parser, 1).await?;
            ensure!(!taken.ended, "it was let go of");
            frames.extend(taken.frames);
        }
        let patients = frames.iter().filter(|frame| frame.get("event").as_deref() == Some("Patient")).count();
        ensure!(patients == 20, "{patients} of 20");
    }
    Ok(())
}

/// Who of the service is in a transaction, or holds back what vacuum may take away.
const IN_TRANSACTION: &str = "select coalesce(string_agg(application_name || ': ' || state || ' ' || query, '; '), '') \
    from pg_stat_activity where usename = 'fhir_tail' and backend_type = 'client backend' \
    and (xact_start is not null or backend_xmin is not null)";

async fn a_replay_holds_no_transaction_for_a_slow_reader(context: Context) -> Result<()> {
    const RESOURCES: usize = 100;
    // One of the two takes nothing for as long as the other takes, on a machine of any speed.
    let mut site = Site::prepare(&context, &[], &["--client-timeout", "1h"]).await?;
    site.server.start().await?;
    fill(&site, RESOURCES).await?;
    let at = site.server.listening()?;
    let mut slow = http::get(at, "/fhir/$export", EVENTS).await?;
    let mut absent = http::get(at, "/fhir/$export", EVENTS).await?;
    let (mut parser, mut frames) = (Parser::default(), Vec::new());
    // 100 KB a second for a while; each time nobody else takes anything until nothing is held.
    for second in 0..4 {
        let taken = take(&mut slow, &mut parser, 100_000).await?;
        ensure!(!taken.ended, "it was let go of");
        frames.extend(taken.frames);
        sleep(Duration::from_secs(1)).await;
        until(&format!("no transaction of ours, in second {second}"), SOON, || async {
            let held: String = site.sql.query_one(IN_TRANSACTION, &[]).await?.try_get(0)?;
            Ok(held.is_empty().then_some(()))
        })
        .await?;
    }
    // Neither was near its end.
    ensure!(!frames.iter().any(|frame| says(frame, "live")), "it was all there at once");
    for (response, mut parser, mut frames) in
        [(&mut slow, parser, frames), (&mut absent, Parser::default(), Vec::new())]
    {
        while !frames.iter().any(|frame| says(frame, "live")) {
            let taken = take(response, &mut parser, 1).await?;
            ensure!(!taken.ended, "it was let go of");
            frames.extend(taken.frames);
        }
        let resources = frames.iter().filter(|frame| frame.get("event").as_deref() == Some("Basic")).count();
        ensure!(resources == RESOURCES, "{resources} of {RESOURCES}");
    }
    Ok(())
}
