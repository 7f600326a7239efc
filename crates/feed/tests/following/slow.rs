//! Who does not read, or has nothing to read.

use crate::fixtures::{batch, instant, item, notice, numbers, open, row};
use feed::{Answer, Begin, Item, Kind, Lsn, Mark, Notice, Page, PageRequest, PageRows, Sample, Source};
use fhir::{Filter, Instant, ResourceType, TypeSet};
use std::sync::Arc;

/// Tables of one type, whose pages never end.
struct Endless;

impl Source for Endless {
    fn mark(&self) -> Answer<'_, Sample> {
        let mark = Mark { w: instant(200), l: Lsn::new(10) };
        let taken = tokio::time::Instant::now();
        Box::pin(async move { Ok(Sample { mark, clock: mark.w, taken, tombstones_purged: None }) })
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
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
    let patients = Filter::of_types([ResourceType::PATIENT].into_iter().collect());
    let mut quiet = feed.subscribe(patients.clone(), Begin::Since(None));
    assert!(matches!(notice(&mut quiet).await, Notice::Live { .. }));
    publisher.publish(batch(1, ResourceType::GROUP)).await.unwrap();
    assert_eq!(notice(&mut quiet).await, Notice::Position { transaction_time: instant(200) });
    // The time alone moves too: with a mark whose L was passed, and not before.
    feed.mark(feed.marking(), Mark { w: instant(3000), l: Lsn::new(1015) });
    assert_eq!(notice(&mut quiet).await, Notice::Position { transaction_time: instant(3000) });
    feed.mark(feed.marking(), Mark { w: instant(4000), l: Lsn::new(1016) });
    let id = quiet.id();
    drop(quiet);
    publisher.publish(batch(2, ResourceType::GROUP)).await.unwrap();
    publisher.publish(batch(3, ResourceType::PATIENT)).await.unwrap();
    let mut resumed = feed.subscribe(patients, Begin::After { id: Some(id), since: None });
    assert_eq!(numbers(&mut resumed, 3).await, [3]);
}
