//! What happens to a subscriber that is slow, quiet, or comes back with an id that cannot be continued.

// A test may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use feed::{
    Answer, Batch, Begin, Change, EventId, Feed, Framing, Item, Kind, Lsn, Mark, Notice, Options, Origin,
    Page, PageRequest, PageRows, Position, PublishError, Publisher, Sample, Source, Subscription,
    Transaction,
};
use fhir::{Filter, Instant, ResourceType, TypeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

struct Lines;

impl Framing for Lines {
    fn begin(&self, id: &str, _: ResourceType, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{id} ").as_bytes());
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

/// Tables without rows, and a mark.
struct Empty {
    mark: Mark,
    purged: Option<Instant>,
}

impl Source for Empty {
    fn mark(&self) -> Answer<'_, Sample> {
        let (mark, clock, taken) = (self.mark, self.mark.w, tokio::time::Instant::now());
        Box::pin(async move { Ok(Sample { mark, clock, taken, tombstones_purged: self.purged }) })
    }

    fn present(&self, _: Option<Instant>, _: TypeSet) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(self.purged) })
    }

    fn page<'a>(&'a self, _: PageRequest, _: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

/// Tables of one type, whose pages never end.
struct Endless;

impl Source for Endless {
    fn mark(&self) -> Answer<'_, Sample> {
        let mark = Mark { w: instant(200), l: Lsn::new(10) };
        let taken = tokio::time::Instant::now();
        Box::pin(async move { Ok(Sample { mark, clock: mark.w, taken, tombstones_purged: None }) })
    }

    fn present(&self, _: Option<Instant>, _: TypeSet) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(vec![(Kind::Upsert, ResourceType::PATIENT)]) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, _: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        // As a real one, it is not there at once.
        Box::pin(async {
            tokio::task::yield_now().await;
            row(rows, instant(150), "a", "1 row");
            Ok(Page { next: Some((instant(150), "a".into())), expected: Some(1) })
        })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn row(rows: &mut dyn PageRows, stamp: Instant, id: &str, data: &str) {
    rows.row(stamp, id, &mut |out| {
        out.extend_from_slice(data.as_bytes());
        true
    });
}

fn origin(system: u64) -> Origin {
    Origin { system, timeline: 1, identity: String::new() }
}

fn instant(micros: i64) -> Instant {
    Instant::from_unix_micros(micros)
}

fn options(directory: &Path, held_bytes: usize) -> Options {
    Options {
        directory: directory.to_owned(),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 2,
        held_bytes,
    }
}

async fn open(directory: &Path, held_bytes: usize) -> (Feed, Publisher) {
    let (feed, mut publisher) = Feed::open(options(directory, held_bytes), Arc::new(Lines)).unwrap();
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(100), false).await.unwrap();
    let mark = Mark { w: instant(200), l: Lsn::new(10) };
    feed.set_source(Arc::new(Empty { mark, purged: None }));
    (feed, publisher)
}

/// One transaction of one change.
fn batch(n: u64, resource_type: ResourceType) -> Batch {
    let commit_lsn = Lsn::new(1000 + n * 10);
    let stamp = instant(1000 + i64::try_from(n).unwrap());
    let change = Change {
        position: Position { commit_lsn, ordinal: 0, part: 0 },
        stamp,
        resource_type,
        kind: Kind::Upsert,
        data: format!("{n} {}", "x".repeat(1000)).into(),
    };
    let xid = u32::try_from(n).unwrap();
    let transactions = vec![Transaction { commit_lsn, xid, commit_time: stamp }];
    Batch { changes: vec![change], transactions, passed: Some(Lsn::new(1000 + n * 10 + 5)) }
}

async fn item(subscription: &mut Subscription) -> Item {
    // By the system's clock: a paused one runs ahead while the disk is at work.
    let begun = std::time::SystemTime::now();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await;
        let Ok(next) = next else {
            assert!(begun.elapsed().unwrap() < Duration::from_secs(60), "nothing came");
            continue;
        };
        match next.unwrap() {
            Item::Waiting(_) => {}
            item => return item,
        }
    }
}

async fn notice(subscription: &mut Subscription) -> Notice {
    match item(subscription).await {
        Item::Notice(notice) => notice,
        item => panic!("{item:?} instead of a notice"),
    }
}

/// Reads numbers until the last.
async fn numbers(subscription: &mut Subscription, last: u64) -> Vec<u64> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        if let Item::Frames(frames) = item(subscription).await {
            let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
            heard.extend(text.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()));
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lags_goes_on_in_the_journal() {
    // Once with room for the live, once with hardly any for anything.
    for held_bytes in [64 << 20, 4 << 10] {
        let directory = tempfile::tempdir().unwrap();
        let (feed, mut publisher) = open(directory.path(), held_bytes).await;
        let mut slow = feed.subscribe(Filter::everything(), Begin::Since(None));
        assert!(matches!(notice(&mut slow).await, Notice::Live { .. }));
        for n in 0..2000 {
            publisher.publish(batch(n, ResourceType::PATIENT)).await.unwrap();
        }
        assert_eq!(numbers(&mut slow, 1999).await, (0..2000).collect::<Vec<_>>());
        publisher.publish(batch(2000, ResourceType::PATIENT)).await.unwrap();
        assert_eq!(numbers(&mut slow, 2000).await, [2000]);
        drop(slow);
        assert_eq!(feed.status().held_bytes, 0, "what a subscriber held comes back when it is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_that_nobody_reads_keep_no_turn_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 64 << 20).await;
    feed.set_source(Arc::new(Endless));
    // More of them than pages may be read at once.
    let mut stalled = Vec::new();
    for _ in 0..5 {
        let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
        assert!(matches!(item(&mut subscription).await, Item::Frames(_)));
        stalled.push(subscription);
    }
    let mut reading = feed.subscribe(Filter::everything(), Begin::Since(None));
    for _ in 0..10 {
        assert!(matches!(item(&mut reading).await, Item::Frames(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_told_the_position_and_resumes_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let patients = Filter { types: [ResourceType::PATIENT].into_iter().collect() };
    let mut quiet = feed.subscribe(patients.clone(), Begin::Since(None));
    assert!(matches!(notice(&mut quiet).await, Notice::Live { .. }));
    publisher.publish(batch(1, ResourceType::GROUP)).await.unwrap();
    assert_eq!(notice(&mut quiet).await, Notice::Position);
    let id = quiet.id();
    drop(quiet);
    publisher.publish(batch(2, ResourceType::GROUP)).await.unwrap();
    publisher.publish(batch(3, ResourceType::PATIENT)).await.unwrap();
    let mut resumed = feed.subscribe(patients, Begin::After { id: Some(id), since: None });
    assert_eq!(numbers(&mut resumed, 3).await, [3]);
}

async fn reset_reason(feed: &Feed, filter: Filter, id: Option<EventId>) -> Notice {
    reset_reason_since(feed, filter, id, None).await
}

async fn reset_reason_since(
    feed: &Feed,
    filter: Filter,
    id: Option<EventId>,
    since: Option<Instant>,
) -> Notice {
    notice(&mut feed.subscribe(filter, Begin::After { id, since })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_cannot_be_continued_is_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    numbers(&mut reader, 1).await;
    let id = reader.id();
    // Nothing says what the client may have: without a time to go back to it cannot be told what is gone.
    assert!(matches!(reset_reason(&feed, Filter::everything(), None).await, Notice::ResetAll { .. }));
    let since = Some(instant(150));
    let unreadable = reset_reason_since(&feed, Filter::everything(), None, since).await;
    assert!(matches!(unreadable, Notice::Reset { .. }));

    // It is good until the journal begins anew, and whoever is connected is told as well.
    let resumed = reset_reason(&feed, Filter::everything(), Some(id.clone())).await;
    assert!(matches!(resumed, Notice::Live { .. }));
    while !matches!(item(&mut reader).await, Item::Notice(Notice::Live { .. })) {}
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), false).await.unwrap();
    assert!(matches!(notice(&mut reader).await, Notice::Reset { .. }));
    assert!(matches!(notice(&mut reader).await, Notice::Live { .. }));
    let reset = reset_reason(&feed, Filter::everything(), Some(id.clone())).await;
    assert!(matches!(reset, Notice::Reset { .. }));

    // After a fork what the client has may never have been.
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), true).await.unwrap();
    assert!(matches!(
        reset_reason(&feed, Filter::everything(), Some(id.clone())).await,
        Notice::ResetAll { .. }
    ));

    // Another cluster knows nothing of it.
    publisher.begin_epoch(origin(2), Lsn::new(10), instant(150), false).await.unwrap();
    assert!(matches!(reset_reason(&feed, Filter::everything(), Some(id)).await, Notice::ResetAll { .. }));
}

/// The journal is lost, or so many epochs old that it has forgotten: nothing says that there was no fork.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_an_epoch_that_nobody_remembers_is_a_reset_of_everything() {
    let [lost, new] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (feed, mut publisher) = open(lost.path(), 1 << 20).await;
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(notice(&mut reader).await, Notice::Live { transaction_time: instant(200) });
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    numbers(&mut reader, 1).await;
    let (id, since) = (reader.id(), Some(instant(150)));
    drop((reader, feed, publisher));

    // The same cluster, from the same place on, and far beyond the id.
    let (feed, mut publisher) = open(new.path(), 1 << 20).await;
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    let told = reset_reason_since(&feed, Filter::everything(), Some(id), since).await;
    assert!(matches!(told, Notice::ResetAll { .. }), "{told:?}");

    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    while !matches!(item(&mut reader).await, Item::Notice(Notice::Live { .. })) {}
    let id = reader.id();
    drop(reader);
    let mut epochs = 0;
    let forgotten = loop {
        match reset_reason_since(&feed, Filter::everything(), Some(id.clone()), since).await {
            Notice::Live { .. } => assert_eq!(epochs, 0, "it goes on in another epoch"),
            Notice::Reset { .. } => assert!(epochs > 0),
            told => break told,
        }
        assert!(epochs < 1_000, "it remembers for ever");
        publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), false).await.unwrap();
        epochs += 1;
    };
    assert!(matches!(forgotten, Notice::ResetAll { .. }) && epochs > 10, "{forgotten:?} after {epochs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_deletions_are_a_reset_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let mark = Mark { w: instant(500), l: Lsn::new(10) };
    feed.set_source(Arc::new(Empty { mark, purged: Some(instant(300)) }));
    let mut late = feed.subscribe(Filter::everything(), Begin::Since(Some(instant(299))));
    assert!(matches!(notice(&mut late).await, Notice::ResetAll { .. }));
    let mut early = feed.subscribe(Filter::everything(), Begin::Since(Some(instant(300))));
    assert!(matches!(notice(&mut early).await, Notice::Live { .. }));
}

/// Tables of one type with two pages, whose tombstones may be purged at any time.
#[derive(Clone, Default)]
struct Purged(Arc<std::sync::Mutex<Option<Instant>>>);

impl Purged {
    fn up_to(&self, stamp: Instant) {
        *self.0.lock().unwrap() = Some(stamp);
    }
}

impl Source for Purged {
    fn mark(&self) -> Answer<'_, Sample> {
        let mark = Mark { w: instant(500), l: Lsn::new(10) };
        let (taken, tombstones_purged) = (tokio::time::Instant::now(), *self.0.lock().unwrap());
        Box::pin(async move { Ok(Sample { mark, clock: mark.w, taken, tombstones_purged }) })
    }

    fn present(&self, _: Option<Instant>, _: TypeSet) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(vec![(Kind::Upsert, ResourceType::PATIENT)]) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        let purged = *self.0.lock().unwrap();
        Box::pin(async move { Ok(purged) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        let n = if request.after.is_none() { 1 } else { 2 };
        row(rows, instant(400 + n), &n.to_string(), &format!("{n} row"));
        let next = (n == 1).then(|| (instant(400 + n), n.to_string().into()));
        Box::pin(async { Ok(Page { next, expected: Some(1) }) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

/// Tombstones are purged while the pages are read, or between a cut and the coming back: what the purge has taken from the
/// client's span cannot be told, so that all of it comes, and what does not is to be dropped.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_purged_while_they_were_on_their_way_are_a_reset_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    for (purged, all) in [(299, false), (300, false), (301, true), (450, true)] {
        for resumed in [false, true] {
            let source = Purged::default();
            feed.set_source(Arc::new(source.clone()));
            let since = Some(instant(300));
            let mut reader = feed.subscribe(Filter::everything(), Begin::Since(since));
            assert_eq!(numbers(&mut reader, 1).await, [1]);
            source.up_to(instant(purged));
            if resumed {
                let after = Begin::After { id: Some(reader.id()), since };
                reader = feed.subscribe(Filter::everything(), after);
            }
            assert_eq!(numbers(&mut reader, 2).await, [2]);
            let told = notice(&mut reader).await;
            if all {
                assert!(matches!(told, Notice::ResetAll { .. }), "{purged}: {told:?}");
                assert_eq!(numbers(&mut reader, 2).await, [1, 2], "all of it again");
                assert!(matches!(notice(&mut reader).await, Notice::Live { .. }));
            } else {
                assert!(matches!(told, Notice::Live { .. }), "{purged}: {told:?}");
            }
        }
    }
}

/// Opens a journal that follows a database already; who held it may still be letting go.
async fn reopen(directory: &Path, l: u64) -> (Feed, Publisher) {
    let options = options(directory, 1 << 20);
    let locked_until = tokio::time::Instant::now() + Duration::from_secs(20);
    let (feed, publisher) = loop {
        match Feed::open(options.clone(), Arc::new(Lines)) {
            Ok(opened) => break opened,
            Err(error) if tokio::time::Instant::now() > locked_until => panic!("{error:?}"),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(publisher.origin(), Some(origin(1)));
    let mark = Mark { w: instant(200), l: Lsn::new(l) };
    feed.set_source(Arc::new(Empty { mark, purged: None }));
    (feed, publisher)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_ahead_of_the_head_is_waited_for_unless_the_database_never_wrote_it() {
    let [before, crashed, old] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (feed, mut publisher) = open(before.path(), 1 << 20).await;
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    let mut durable = publisher.durable();
    durable.wait_for(|lsn| *lsn >= Lsn::new(1015)).await.unwrap();
    drop((feed, publisher));
    let (feed, mut publisher) = reopen(before.path(), 10).await;
    // What a crash leaves: the journal as it was before the last changes.
    copy(before.path(), crashed.path());
    copy(before.path(), old.path());
    for n in 2..=3 {
        publisher.publish(batch(n, ResourceType::PATIENT)).await.unwrap();
    }
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    numbers(&mut reader, 3).await;
    let id = reader.id();
    drop((reader, feed, publisher));

    let (feed, mut publisher) = reopen(crashed.path(), 1_000_000).await;
    let mut resumed =
        feed.subscribe(Filter::everything(), Begin::After { id: Some(id.clone()), since: None });
    assert!(matches!(notice(&mut resumed).await, Notice::Live { .. }));
    for n in 2..=4 {
        publisher.publish(batch(n, ResourceType::PATIENT)).await.unwrap();
    }
    assert_eq!(numbers(&mut resumed, 4).await, [4], "what it had does not come again");

    let (feed, _publisher) = reopen(old.path(), 1020).await;
    assert!(matches!(reset_reason(&feed, Filter::everything(), Some(id)).await, Notice::ResetAll { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_overtook_ours_without_having_it_is_a_fork() {
    let directory = tempfile::tempdir().unwrap();
    let (_feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    // From beyond what was published nothing has to come again ...
    publisher.resume(Lsn::new(1015));
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    // ... from before it the last transaction has to, and does ...
    publisher.resume(Lsn::new(1000));
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    // ... or does not.
    publisher.resume(Lsn::new(1000));
    let forked = publisher.publish(batch(3, ResourceType::PATIENT)).await;
    assert_eq!(forked, Err(PublishError::Fork(Lsn::new(1020))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_since_ahead_of_the_clock_keeps_its_distance_from_w() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let far = Some(instant(i64::MAX / 2));
    let mut live_only = feed.subscribe(Filter::everything(), Begin::Since(far));
    let said = notice(&mut live_only).await;
    assert_eq!(said, Notice::Live { transaction_time: instant(200) });
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    assert_eq!(numbers(&mut live_only, 1).await, [1]);
    let id = live_only.id();
    // The reset goes back to W, not to the far instant: the tables are read.
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), false).await.unwrap();
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: far });
    assert!(matches!(notice(&mut resumed).await, Notice::Reset { .. }));
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(200) });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_right_where_the_log_ended_for_the_mark_is_told_by_the_feed() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    // Its rows are in the log, and its commit will be the next record.
    let open_transaction = batch(1, ResourceType::PATIENT);
    let l = open_transaction.transactions[0].commit_lsn;
    feed.set_source(Arc::new(Empty { mark: Mark { w: instant(200), l }, purged: None }));
    publisher.publish(Batch { passed: Some(l), ..Batch::default() }).await.unwrap();
    publisher.publish(open_transaction).await.unwrap();
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    publisher.durable().wait_for(|lsn| *lsn >= Lsn::new(1025)).await.unwrap();
    // Its mark was taken before all that.
    let live_only = Begin::Since(Some(instant(i64::MAX / 2)));
    assert_eq!(numbers(&mut feed.subscribe(Filter::everything(), live_only), 2).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_commits_right_where_the_slot_begins_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = Feed::open(options(directory.path(), 1 << 20), Arc::new(Lines)).unwrap();
    let first = batch(1, ResourceType::PATIENT);
    let start = first.transactions[0].commit_lsn;
    publisher.begin_epoch(origin(1), start, instant(100), false).await.unwrap();
    feed.set_source(Arc::new(Empty { mark: Mark { w: instant(200), l: start }, purged: None }));
    let mut early = feed.subscribe(Filter::everything(), Begin::Since(None));
    while notice(&mut early).await != (Notice::Live { transaction_time: instant(200) }) {}
    publisher.publish(first).await.unwrap();
    assert_eq!(numbers(&mut early, 1).await, [1]);
    publisher.durable().wait_for(|lsn| *lsn >= start).await.unwrap();
    let mut late = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(numbers(&mut late, 1).await, [1]);
}

/// The fork comes while a reset that was told before it waits for its mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_after_a_reset_was_told_is_told_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(notice(&mut subscription).await, Notice::Live { transaction_time: instant(200) });
    let id = subscription.id();
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(1_000), false).await.unwrap();
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert!(matches!(notice(&mut resumed).await, Notice::Reset { .. }));
    assert!(matches!(resumed.next().await, Ok(Item::Waiting(_))));
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), true).await.unwrap();
    assert!(matches!(notice(&mut resumed).await, Notice::ResetAll { .. }));
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(200) });
}

/// Another epoch, in which the clock stands before what the id says was safe.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_from_ahead_of_the_clock_is_one_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(notice(&mut subscription).await, Notice::Live { transaction_time: instant(200) });
    let id = subscription.id();
    publisher.begin_epoch(origin(1), Lsn::new(20), instant(120), false).await.unwrap();
    let mark = Mark { w: instant(150), l: Lsn::new(20) };
    feed.set_source(Arc::new(Empty { mark, purged: None }));
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert!(matches!(notice(&mut resumed).await, Notice::Reset { .. }));
    assert!(matches!(notice(&mut resumed).await, Notice::ResetAll { .. }));
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(150) });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_before_any_mark_was_passed_is_told_when_the_journal_began() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert!(matches!(notice(&mut subscription).await, Notice::Live { .. }));
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    let Item::Frames(frames) = item(&mut subscription).await else { panic!("no frames") };
    // A client has the id of the frame, which all who listen share, not what this subscription knows.
    let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
    let id = text.split(' ').next().unwrap().parse::<EventId>().unwrap();
    let after = Begin::After { id: Some(id), since: None };
    let mut resumed = feed.subscribe(Filter::everything(), after);
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(100) });
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
