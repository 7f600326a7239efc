//! A journal that fails: while an epoch begins, before the epoch is on disk and after; when a replay begins; and when the
//! service starts.

use super::*;
use crate::journal::{GroupChange, JournalError, JournalReader, Packed, PastRun, Visit};
use crate::shared::UNWRITABLE;
use crate::{
    Anchor, Answer, Batch, Before, Change, Item, Kind, Notice, Origin, Page, PageRequest, PageRows,
    PublishError, Sample, Transaction,
};
use fhir::{Patients, ResourceType, TypeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const WORKS: u8 = 0;
/// Nothing is written, and it cannot be opened again.
const FULL: u8 = 1;
/// The next epoch is written, and an error comes all the same; then as `FULL`.
const FULL_AFTER_EPOCH: u8 = 2;

/// A journal whose disk may be full.
struct Failing {
    journal: Segments,
    how: AtomicU8,
}

impl Failing {
    fn check(&self) -> Result<(), JournalError> {
        match self.how.load(Ordering::SeqCst) {
            FULL => Err(fjall::Error::Poisoned.into()),
            _ => Ok(()),
        }
    }
}

impl JournalReader for Failing {
    fn load(&self) -> Result<Option<State>, JournalError> {
        self.journal.load()
    }

    fn blocks_after(&self, position: Position, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        self.journal.blocks_after(position, visit)
    }

    fn part(&self, position: Position, number: u32) -> Result<Option<Vec<u8>>, JournalError> {
        self.journal.part(position, number)
    }

    fn group_at(&self, id: &str, at: Position) -> Result<Option<GroupChange>, JournalError> {
        self.journal.group_at(id, at)
    }

    fn group_after(&self, id: &str, after: Position) -> Result<Option<GroupChange>, JournalError> {
        self.journal.group_after(id, after)
    }

    fn tick_at(&self, at: Position) -> Result<Option<Instant>, JournalError> {
        self.journal.tick_at(at)
    }

    fn tick_after(&self, after: Position) -> Result<Option<Position>, JournalError> {
        self.journal.tick_after(after)
    }

    fn seek(&self, watermark: Watermark) -> Result<Option<Anchor>, JournalError> {
        self.journal.seek(watermark)
    }
}

impl JournalWriter for Failing {
    fn past(&self) -> Result<Vec<PastRun>, JournalError> {
        self.journal.past()
    }

    fn write_runs(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError> {
        self.check()?;
        self.journal.write_runs(state, past)
    }

    fn append(&self, blocks: Vec<Packed>, state: &State) -> Result<(), JournalError> {
        self.check()?;
        self.journal.append(blocks, state)
    }

    fn begin(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError> {
        self.check()?;
        self.journal.begin(state, past)?;
        if self.how.compare_exchange(FULL_AFTER_EPOCH, FULL, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return self.check();
        }
        Ok(())
    }

    fn purge(&self, retention: Retention, state: &mut State) -> Result<bool, JournalError> {
        self.journal.purge(retention, state)
    }

    fn bytes(&self) -> u64 {
        self.journal.bytes()
    }

    fn reopen(&self) -> Result<(), JournalError> {
        self.check()?;
        self.journal.reopen()
    }
}

struct Lines;

impl Framing for Lines {
    fn begin(&self, _: &str, _: ResourceType, _: &mut Vec<u8>) {}

    fn end(&self, _: &mut Vec<u8>) {}
}

/// Tables without rows, and a watermark up to a place in the log.
struct Empty {
    fence_lsn: Lsn,
}

impl Source for Empty {
    fn watermark(&self) -> Answer<'_, Sample> {
        let (watermark, taken) =
            (Watermark { safe_time: instant(500), fence_lsn: self.fence_lsn }, tokio::time::Instant::now());
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn present(
        &self,
        _: Option<Instant>,
        _: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, _: PageRequest, _: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

const fn instant(micros: i64) -> Instant {
    Instant::from_unix_micros(micros)
}

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 1,
        held_bytes: 1 << 20,
        base_urls: fhir::BaseUrls::default(),
    }
}

fn batch(lsn: u64) -> Batch {
    let (commit_lsn, stamp) = (Lsn::new(lsn), instant(1000));
    let position = Position { commit_lsn, ordinal: 0, part: 0 };
    let data = format!("{lsn};").into();
    let resource_type = ResourceType::PATIENT;
    Batch {
        changes: vec![Change {
            position,
            stamp,
            resource_type,
            kind: Kind::Upsert,
            patients: Patients::none(),
            before: Before::Nothing,
            group_before: None,
            tick: None,
            data,
        }],
        transactions: vec![Transaction { commit_lsn, xid: 1, commit_time: stamp }],
        passed: Some(Lsn::new(lsn + 5)),
    }
}

async fn next(subscription: &mut Subscription) -> Item {
    loop {
        let item = tokio::time::timeout(Duration::from_secs(60), subscription.next());
        match item.await.expect("something comes").unwrap() {
            Item::Waiting(_) => {}
            item => return item,
        }
    }
}

async fn hears(subscription: &mut Subscription, text: &str) {
    match next(subscription).await {
        Item::Frames(frames) => assert_eq!(frames.bytes, text.as_bytes()),
        item => panic!("{item:?} instead of {text}"),
    }
}

async fn hears_live(subscription: &mut Subscription) {
    let item = next(subscription).await;
    assert!(matches!(item, Item::Notice(Notice::Live { .. })), "{item:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_begins_although_the_journal_fails_meanwhile() {
    for how in [FULL, FULL_AFTER_EPOCH] {
        let directory = tempfile::tempdir().unwrap();
        let journal = failing(directory.path());
        let (feed, mut publisher) =
            Feed::on(journal.clone(), options(directory.path()), Arc::new(Lines)).unwrap();
        feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
        let origin = Origin { system: 1, timeline: 1, identity: String::new() };
        publisher.begin_epoch(origin.clone(), Lsn::new(10), instant(100), false).await.unwrap();
        let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
        hears_live(&mut reader).await;
        publisher.publish(batch(100)).await.unwrap();
        hears(&mut reader, "100;").await;
        let before = feed.sample_base().epoch;

        journal.how.store(how, Ordering::SeqCst);
        let begun = tokio::spawn(async move {
            let begun = publisher.begin_epoch(origin.clone(), Lsn::new(10), instant(200), false).await;
            (publisher, origin, begun)
        });
        let mut durable = feed.shared.durable.clone();
        durable.wait_for(|durable| durable.failing).await.unwrap();
        journal.how.store(WORKS, Ordering::SeqCst);
        let (mut publisher, origin, begun) = begun.await.unwrap();
        durable.wait_for(|durable| !durable.failing).await.unwrap();
        match begun {
            Ok(()) => assert_eq!(how, FULL_AFTER_EPOCH),
            // Whoever begins an epoch does so again when it begins its next session.
            Err(error) => {
                assert_eq!(error, PublishError::Reopened);
                publisher.begin_epoch(origin, Lsn::new(10), instant(200), false).await.unwrap();
            }
        }
        assert_ne!(feed.sample_base().epoch, before);
        let reset = next(&mut reader).await;
        assert!(matches!(reset, Item::Notice(Notice::Reset { .. })), "{reset:?}");
        hears_live(&mut reader).await;
        publisher.publish(batch(600)).await.unwrap();
        hears(&mut reader, "600;").await;
        let on_disk = publisher.durable().wait_for(|lsn| *lsn >= Lsn::new(605)).await.map(|lsn| *lsn);
        assert_eq!(on_disk.ok(), Some(Lsn::new(605)));
    }
}

/// A service that is stopped while its first slot waits for a transaction, or is that of another database.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_written_before_any_epoch_is_new() {
    let directory = tempfile::tempdir().unwrap();
    Segments::open(directory.path()).unwrap().append(Vec::new(), &State::unknown()).unwrap();
    let (feed, mut publisher) = Feed::open(options(directory.path()), Arc::new(Lines)).unwrap();
    assert_eq!(publisher.origin(), None);
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin.clone(), Lsn::new(10), instant(100), false).await.unwrap();
    hears_live(&mut feed.subscribe(Filter::everything(), Begin::Since(None))).await;
    assert_eq!(publisher.origin(), Some(origin));
}

async fn waits(subscription: &mut Subscription) -> String {
    let item = tokio::time::timeout(Duration::from_secs(60), subscription.next());
    match item.await.expect("something comes").unwrap() {
        Item::Waiting(reason) => reason,
        item => panic!("{item:?} instead of a wait"),
    }
}

fn failing(directory: &Path) -> Arc<Failing> {
    Arc::new(Failing { journal: Segments::open(directory).unwrap(), how: AtomicU8::new(WORKS) })
}

/// A page whose watermark is not on disk could not be told, after a crash, from one of a history that was lost.
#[tokio::test(flavor = "multi_thread")]
async fn pages_wait_until_the_journal_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let journal = failing(directory.path());
    let (feed, mut publisher) =
        Feed::on(journal.clone(), options(directory.path()), Arc::new(Lines)).unwrap();
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(50) }));
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin, Lsn::new(10), instant(100), false).await.unwrap();
    publisher.publish(Batch { passed: Some(Lsn::new(40)), ..Batch::default() }).await.unwrap();
    journal.how.store(FULL, Ordering::SeqCst);
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(waits(&mut reader).await, UNWRITABLE);
    assert_eq!(feed.status().replays_waiting, 1);
    journal.how.store(WORKS, Ordering::SeqCst);
    let mut durable = feed.shared.durable.clone();
    let noted = durable.wait_for(|durable| durable.paged == Lsn::new(50)).await.map(|durable| durable.run);
    // The pages are of the log up to there: a database that stands before it has another history.
    assert_eq!(publisher.reached(), Lsn::new(50));
    publisher.publish(Batch::default()).await.unwrap_err();
    publisher.publish(Batch { passed: Some(Lsn::new(60)), ..Batch::default() }).await.unwrap();
    hears_live(&mut reader).await;
    assert_eq!(feed.status().replays_waiting, 0);
    // What a run that has ended still asks for takes the place of nothing.
    let (run, shared) = (noted.unwrap(), feed.shared.clone());
    let mut ended = Subscription::new(EventId::beginning(), |out| async move {
        assert!(!shared.record_pages(&out, run.wrapping_add(1), Lsn::new(1)).await);
        SourceError::Unavailable("its run has ended".into())
    });
    ended.next().await.unwrap_err();
    assert_eq!(*feed.shared.paged.borrow(), (run, Lsn::new(50)));
}

/// An id of a run that is not on disk could not be told, after a crash, from one of a history that was lost. And the run
/// before it is not forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_before_the_journal_has_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let journal = failing(directory.path());
    let start = || Feed::on(journal.clone(), options(directory.path()), Arc::new(Lines)).unwrap();
    let after = |reader: &Subscription| Begin::After { id: Some(reader.id()), since: None };

    let (feed, mut publisher) = start();
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin, Lsn::new(10), instant(100), false).await.unwrap();
    let mut first = feed.subscribe(Filter::everything(), Begin::Since(None));
    hears_live(&mut first).await;
    publisher.publish(batch(100)).await.unwrap();
    hears(&mut first, "100;").await;
    publisher.durable().wait_for(|lsn| *lsn >= Lsn::new(105)).await.unwrap();
    drop((feed, publisher));

    journal.how.store(FULL, Ordering::SeqCst);
    let (feed, mut publisher) = start();
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
    let mut second = feed.subscribe(Filter::everything(), after(&first));
    assert_eq!(waits(&mut second).await, UNWRITABLE);
    assert!(!feed.status().journal_ok);
    journal.how.store(WORKS, Ordering::SeqCst);
    hears_live(&mut second).await;
    assert_eq!(publisher.publish(batch(200)).await, Err(PublishError::Reopened));
    publisher.publish(batch(200)).await.unwrap();
    hears(&mut second, "200;").await;
    publisher.durable().wait_for(|lsn| *lsn >= Lsn::new(205)).await.unwrap();
    drop((feed, publisher));

    let (feed, _publisher) = start();
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
    for (reader, missed) in [(&first, Some("200;")), (&second, None)] {
        let mut reader = feed.subscribe(Filter::everything(), after(reader));
        if let Some(missed) = missed {
            hears(&mut reader, missed).await;
        }
        hears_live(&mut reader).await;
    }
}

/// Somebody else follows the database: nobody is served here until we do again.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_follow_ends_its_streams() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = Feed::open(options(directory.path()), Arc::new(Lines)).unwrap();
    feed.set_source(Arc::new(Empty { fence_lsn: Lsn::new(10) }));
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin, Lsn::new(10), instant(100), false).await.unwrap();
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    hears_live(&mut reader).await;
    feed.set_leader(false);
    let ended = tokio::time::timeout(Duration::from_secs(60), reader.next()).await.expect("it ends");
    assert!(matches!(ended, Err(crate::SourceError::Unavailable(_))), "{ended:?}");
    let after = || Begin::After { id: Some(reader.id()), since: None };
    assert!(feed.subscribe(Filter::everything(), after()).next().await.is_err());
    feed.set_leader(true);
    hears_live(&mut feed.subscribe(Filter::everything(), after())).await;
}

/// No other task has to run for it: the acknowledgement would wait for that task on a busy runtime.
#[tokio::test]
async fn durable_lsn_is_announced_by_the_journals_thread_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = Feed::open(options(directory.path()), Arc::new(Lines)).unwrap();
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin, Lsn::new(10), instant(100), false).await.unwrap();
    let mut announced = publisher.durable();
    publisher.publish(batch(100)).await.unwrap();
    // No await: no task of this runtime runs meanwhile.
    while publisher.durable_lsn() < Lsn::new(105) {
        std::thread::yield_now();
    }
    assert_eq!(*announced.borrow_and_update(), Lsn::new(105));

    drop((feed, publisher));
    let closed = async { while announced.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("the journal's thread ends");
}
