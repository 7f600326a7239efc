//! A Group that is asked for by many at once.

use crate::fixtures::{Empty, batch, instant, item, open};
use feed::{
    Answer, Begin, Frames, GroupNow, Item, Kind, Lsn, Notice, Page, PageRequest, PageRows, Sample, Source,
    Watermark,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use futures_util::FutureExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::{Semaphore, watch};

/// A table with a Group whose n-th read, which the test lets through, finds the n-th patient as its member.
struct CountedGroup {
    tables: Empty,
    begun: watch::Sender<usize>,
    let_through: Semaphore,
    members: AtomicUsize,
    /// More text in the Group.
    padding: usize,
    /// So often the rows of some patients were asked for, and not everybody's.
    of_some: AtomicUsize,
}

impl CountedGroup {
    fn new(let_through: usize, padding: usize) -> Arc<Self> {
        let watermark = Watermark { safe_time: instant(1_000), fence_lsn: Lsn::new(1_000) };
        Arc::new(Self {
            tables: Empty { watermark, purged: None },
            begun: watch::Sender::new(0),
            let_through: Semaphore::new(let_through),
            members: AtomicUsize::new(0),
            padding,
            of_some: AtomicUsize::new(0),
        })
    }
}

impl Source for CountedGroup {
    fn watermark(&self) -> Answer<'_, Sample> {
        self.tables.watermark()
    }

    fn confirm(&self) -> Answer<'_, ()> {
        self.tables.confirm()
    }

    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        patients: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        self.of_some.fetch_add(usize::from(patients.is_some()), SeqCst);
        self.tables.present(since, types, patients)
    }

    fn are_most(&self, _: usize) -> Answer<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        self.tables.tombstones_purged()
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        self.tables.page(request, rows)
    }

    fn group<'a>(&'a self, _: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        Box::pin(async {
            self.begun.send_modify(|begun| *begun += 1);
            self.let_through.acquire().await.unwrap().forget();
            let n = self.members.fetch_add(1, SeqCst) + 1;
            let member = format!(r#"{{"entity":{{"reference":"Patient/p{n}"}}}}"#);
            let name = "x".repeat(self.padding);
            let group = r#"{"resourceType":"Group","type":"person","actual":true"#;
            Ok(Some(format!(r#"{group},"name":"{name}","member":[{member}]}}"#).into()))
        })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn member(found: GroupNow) -> String {
    match found {
        GroupNow::Members(members) => members.iter().collect(),
        other => panic!("{other:?}"),
    }
}

/// A read that has begun may not have seen what was committed since: it serves nobody who asks later.
#[tokio::test]
async fn one_read_of_a_group_serves_all_who_asked_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let tables = CountedGroup::new(0, 0);
    feed.set_source(tables.clone());
    let mut begun = tables.begun.subscribe();

    let mut first = Box::pin(feed.group("g"));
    assert!(first.as_mut().now_or_never().is_none());
    begun.wait_for(|begun| *begun == 1).await.unwrap();
    let mut later: Vec<_> = (0..1_000).map(|_| Box::pin(feed.group("g"))).collect();
    assert!(later.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    // Who gives up takes nothing from the others.
    later.truncate(500);
    tables.let_through.add_permits(1);
    assert_eq!(member(first.await.unwrap()), "p1");
    tables.let_through.add_permits(1);
    for one in later {
        assert_eq!(member(one.await.unwrap()), "p2");
    }
    assert_eq!(*begun.borrow(), 2);

    // Whom nobody waits for is not read.
    let mut running = Box::pin(feed.group("g"));
    assert!(running.as_mut().now_or_never().is_none());
    begun.wait_for(|begun| *begun == 3).await.unwrap();
    let mut given_up = Box::pin(feed.group("g"));
    assert!(given_up.as_mut().now_or_never().is_none());
    drop(given_up);
    tables.let_through.add_permits(2);
    assert_eq!(member(running.await.unwrap()), "p3");
    assert_eq!(member(feed.group("g").await.unwrap()), "p4");
    assert_eq!(*begun.borrow(), 4);
}

/// Of a Group of a hundred thousand members each stream would otherwise hold megabytes, for as long as its client takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_group_is_sent_in_pieces_from_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 16 << 20).await;
    feed.set_source(CountedGroup::new(Semaphore::MAX_PERMITS, 3 << 20));
    publisher.publish(batch(2_000, ResourceType::PATIENT)).await.unwrap();
    let filter = Filter::of_group([ResourceType::GROUP].into_iter().collect(), "g", None);
    let mut streams: Vec<_> = (0..20).map(|_| feed.subscribe(filter.clone(), Begin::Since(None))).collect();
    // All are in the middle of it at the same time.
    for stream in &mut streams {
        assert!(frames(item(stream).await).open);
        assert!(frames(item(stream).await).open);
    }
    assert!(feed.status().held_bytes <= 8 << 20);
    for mut stream in streams {
        let (mut text, mut last) = (0, false);
        while !last {
            let frames = frames(item(&mut stream).await);
            assert!(frames.bytes.len() <= 256 << 10);
            text += frames.bytes.len();
            last = !frames.open;
        }
        assert!(text > 2 << 20);
        assert!(matches!(item(&mut stream).await, Item::Notice(Notice::Live { .. })));
    }
}

/// Patient by patient it would take hours for a Group of most patients.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_after_the_group_reads_everybodys_rows_as_it_would_have() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let tables = CountedGroup::new(Semaphore::MAX_PERMITS, 0);
    feed.set_source(tables.clone());
    publisher.publish(batch(2_000, ResourceType::PATIENT)).await.unwrap();
    let types = [ResourceType::GROUP, ResourceType::PATIENT];
    let filter = Filter::of_group(types.into_iter().collect(), "g", None);
    let mut cut = feed.subscribe(filter.clone(), Begin::Since(None));
    assert!(!frames(item(&mut cut).await).open);
    let after = Begin::After { id: Some(cut.id()), since: None };
    drop(cut);
    let mut resumed = feed.subscribe(filter, after);
    assert!(matches!(item(&mut resumed).await, Item::Notice(Notice::Live { .. })));
    assert_eq!(tables.of_some.load(SeqCst), 0);
}

fn frames(item: Item) -> Frames {
    match item {
        Item::Frames(frames) => frames,
        other => panic!("{other:?}"),
    }
}
