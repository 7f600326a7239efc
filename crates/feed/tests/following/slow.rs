//! Who does not read, or has nothing to read.

use crate::fixtures::{batch, instant, item, notice, numbers, open, row};
use feed::{
    Answer, Begin, Item, Kind, Lsn, Notice, Page, PageRequest, PageRows, Sample, Source, Subscription,
    Watermark,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;

/// Tables of one type, whose pages never end.
struct Endless;

impl Source for Endless {
    fn watermark(&self) -> Answer<'_, Sample> {
        sample()
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
            Ok(Page { next: Some((instant(150), "a".into())), expected: Some(1), large: None })
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
    // The time alone moves too: with a watermark whose fence LSN was passed, and not before.
    feed.note_watermark(
        feed.sample_base(),
        Watermark { safe_time: instant(3000), fence_lsn: Lsn::new(1015) },
    );
    assert_eq!(notice(&mut quiet).await, Notice::Position { transaction_time: instant(3000) });
    feed.note_watermark(
        feed.sample_base(),
        Watermark { safe_time: instant(4000), fence_lsn: Lsn::new(1016) },
    );
    let id = quiet.id();
    drop(quiet);
    publisher.publish(batch(2, ResourceType::GROUP)).await.unwrap();
    publisher.publish(batch(3, ResourceType::PATIENT)).await.unwrap();
    let mut resumed = feed.subscribe(patients, Begin::After { id: Some(id), since: None });
    assert_eq!(numbers(&mut resumed, 3).await, [3]);
}

/// Rows of about ten kilobytes, in pages of about as many bytes as are asked for.
struct Rows(usize);

impl Source for Rows {
    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn watermark(&self) -> Answer<'_, Sample> {
        sample()
    }

    fn present(
        &self,
        _: Option<Instant>,
        _: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(vec![(Kind::Upsert, ResourceType::PATIENT)]) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let first = request.after.map_or(0, |(_, id)| id.parse::<usize>().unwrap() + 1);
            let end = (first + 1 + request.bytes / 10_000).min(self.0);
            for n in first..end {
                row(rows, instant(150), &format!("{n}"), &format!("{n} {}", "x".repeat(10_000)));
            }
            let next = (end < self.0).then(|| (instant(150), format!("{}", end - 1).into()));
            Ok(Page { next, expected: Some(100), large: None })
        })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn sample() -> Answer<'static, Sample> {
    let watermark = Watermark { safe_time: instant(200), fence_lsn: Lsn::new(10) };
    let taken = tokio::time::Instant::now();
    Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
}

/// Many more subscribers than there is room for have taken something and read no more: others get all there is, from the
/// tables and from the journal, and when the stalled ones read on they miss nothing and get nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_subscribers_give_their_room_to_others_and_lose_nothing() {
    const STALLED: u64 = 30;
    const ROWS: u64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Rows(usize::try_from(ROWS).unwrap())));
    for n in ROWS..2 * ROWS {
        publisher.publish(batch(n, ResourceType::PATIENT)).await.unwrap();
    }
    let mut durable = publisher.durable();
    durable.wait_for(|lsn| *lsn > Lsn::new(1000 + (2 * ROWS - 1) * 10)).await.unwrap();

    let everything: Vec<_> = (0..2 * ROWS).collect();
    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
        // Some stand in the pages, others in the journal.
        let last = if n % 2 == 0 { n } else { ROWS + n };
        let mut heard = Vec::new();
        while heard.last().is_none_or(|heard| *heard < last) {
            heard.extend(some_numbers(&mut subscription).await);
        }
        stalled.push((subscription, heard));
    }
    let mut reading = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(numbers(&mut reading, 2 * ROWS - 1).await, everything);
    assert!(feed.status().reads_reclaimed > 0, "there was room for all");
    for (mut subscription, mut heard) in stalled {
        while heard.last() != everything.last() {
            heard.extend(some_numbers(&mut subscription).await);
        }
        assert_eq!(heard, everything);
    }
    assert_eq!(feed.status().replays_waiting + feed.status().journal_readers_waiting, 0);
}

/// The numbers of the next frames.
async fn some_numbers(subscription: &mut Subscription) -> Vec<u64> {
    loop {
        if let Item::Frames(frames) = item(subscription).await {
            let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
            return text.lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        }
    }
}
