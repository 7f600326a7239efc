//! Resources that are larger than anything held in memory for a subscriber: in pieces, from the journal and from the tables.

use crate::fixtures::{batch, instant, item, notice, open};
use feed::{
    Answer, Begin, Frames, Item, Kind, LARGE_BYTES, Large, LargeRow, Lsn, Notice, Page, PageRequest,
    PageRows, Sample, Source, Subscription, Watermark, WriteResource,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn text(n: u64) -> String {
    format!("{n} {}", format!("{n:07}").repeat(LARGE_BYTES / 2))
}

/// What comes up to the end of a frame, and how many pieces that was; what a subscriber's id says in between is the place
/// before the frame.
async fn whole_frame(subscription: &mut Subscription) -> (String, usize) {
    let (mut bytes, mut pieces, before) = (Vec::new(), 0, subscription.id());
    loop {
        let Item::Frames(Frames { bytes: piece, open, counts }) = item(subscription).await else {
            panic!("something within a frame")
        };
        assert!(piece.len() <= 64 << 10, "{} bytes at once", piece.len());
        bytes.extend_from_slice(&piece);
        pieces += 1;
        assert_eq!(counts.total(), u64::from(!open));
        if !open {
            assert_ne!(subscription.id(), before);
            let text = String::from_utf8(bytes).unwrap();
            let (id, data) = text.trim_end_matches('\n').split_once(' ').unwrap();
            assert_eq!(id, subscription.id().to_string());
            return (data.to_owned(), pieces);
        }
        assert_eq!(subscription.id(), before);
    }
}

/// Small and large ones, in one transaction too, live and resumed, also with hardly any memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_change_comes_in_pieces_to_the_live_and_the_resumed() {
    for held_bytes in [64 << 20, 128 << 10] {
        let directory = tempfile::tempdir().unwrap();
        let (feed, mut publisher) = open(directory.path(), held_bytes).await;
        let mut live = feed.subscribe(Filter::everything(), Begin::Since(None));
        assert!(matches!(notice(&mut live).await, Notice::Live { .. }));
        let start = live.id();
        let mut all = batch(1, ResourceType::PATIENT);
        let change = all.changes[0].clone();
        for (ordinal, n) in [(1, 2), (2, 3)] {
            let mut change = change.clone();
            change.position.ordinal = ordinal;
            change.data = text(n).into();
            all.changes.push(change);
        }
        let mut small = change.clone();
        small.position.ordinal = 3;
        all.changes.push(small);
        publisher.publish(all).await.unwrap();

        let resumed =
            || feed.subscribe(Filter::everything(), Begin::After { id: Some(start.clone()), since: None });
        for mut subscription in [live, resumed(), resumed()] {
            assert!(whole_frame(&mut subscription).await.0.starts_with("1 x"));
            for n in [2, 3] {
                let (data, pieces) = whole_frame(&mut subscription).await;
                assert!(data == text(n), "another text");
                assert!(pieces > 50);
                // Within the transaction, right after it.
                let after = Begin::After { id: Some(subscription.id()), since: None };
                let mut next = feed.subscribe(Filter::everything(), after);
                let next = whole_frame(&mut next).await.0;
                assert!(
                    next == if n == 2 { text(3) } else { String::from_utf8(change.data.to_vec()).unwrap() }
                );
            }
            assert!(whole_frame(&mut subscription).await.0.starts_with("1 x"));
        }
        assert_eq!(feed.status().held_bytes, 0);
    }
}

/// Tables of five rows, of which two are large; one of those is gone when it is asked for.
#[derive(Default)]
struct Tables {
    reads: AtomicUsize,
}

impl Source for Tables {
    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn watermark(&self) -> Answer<'_, Sample> {
        let watermark = Watermark { safe_time: instant(200), fence_lsn: Lsn::new(10) };
        let taken = tokio::time::Instant::now();
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
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
            let small = |rows: &mut dyn PageRows, n: u64| {
                crate::fixtures::row(rows, instant(150), &format!("r{n}"), &format!("{n} x"));
            };
            let large =
                |version: i64| LargeRow { stamp: instant(150), id: format!("r{version}").into(), version };
            let next = |n: u64| Some((instant(150), format!("r{n}").into()));
            let page = |n: u64, large| Page { next: next(n), expected: None, large };
            Ok(match request.after.as_ref().map(|(_, id)| &**id) {
                None => {
                    small(rows, 1);
                    page(2, Some(large(2)))
                }
                Some("r1") => page(2, Some(large(2))),
                Some("r2") => page(3, Some(large(3))),
                _ => {
                    small(rows, 4);
                    Page::default()
                }
            })
        })
    }

    fn large(&self, _: ResourceType, row: LargeRow) -> Answer<'_, Option<Large>> {
        self.reads.fetch_add(1, SeqCst);
        let write: WriteResource = Box::new(|out| out.write_all(text(2).as_bytes()));
        Box::pin(async move { Ok((row.version == 2).then(|| Large { patients: Patients::none(), write })) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_row_is_read_once_for_all_replays_that_send_it() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let tables = Arc::new(Tables::default());
    feed.set_source(tables.clone());
    let mut replays: Vec<_> =
        (0..10).map(|_| feed.subscribe(Filter::everything(), Begin::Since(None))).collect();
    // All of them are within the large row at once.
    for replay in &mut replays {
        assert_eq!(whole_frame(replay).await.0, "1 x");
        let Item::Frames(Frames { open: true, .. }) = item(replay).await else { panic!("no frame begins") };
        let Item::Frames(Frames { open: true, .. }) = item(replay).await else { panic!("it does not go on") };
    }
    assert_eq!(tables.reads.load(SeqCst), 1);
    // A client that is cut off within it gets it from its beginning, and then what follows; what is gone is passed over.
    let after = Begin::After { id: Some(replays[0].id()), since: None };
    let mut resumed = feed.subscribe(Filter::everything(), after);
    assert!(whole_frame(&mut resumed).await.0 == text(2), "another text");
    assert_eq!(whole_frame(&mut resumed).await.0, "4 x");
    for mut replay in replays {
        while let Item::Frames(Frames { open: true, .. }) = item(&mut replay).await {}
        assert_eq!(whole_frame(&mut replay).await.0, "4 x");
        assert!(matches!(notice(&mut replay).await, Notice::Live { .. }));
    }
    drop(resumed);
    assert_eq!(feed.status().held_bytes, 0);
}
