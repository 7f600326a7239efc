//! Ids and instants ahead of what is there.

use crate::fixtures::{Empty, Lines, batch, instant, notice, numbers, open, options, origin};
use crate::resets::reset_reason;
use feed::{Begin, Feed, Item, Lsn, Notice, Publisher, Watermark};
use fhir::{Filter, ResourceType};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens a journal that follows a database already; who held it may still be letting go.
pub(crate) async fn reopen(directory: &Path, fence_lsn: u64) -> (Feed, Publisher) {
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
    let watermark = Watermark { safe_time: instant(200), fence_lsn: Lsn::new(fence_lsn) };
    feed.set_source(Arc::new(Empty { watermark, purged: None }));
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
    let waiting = resumed.next().await.unwrap();
    assert!(matches!(waiting, Item::Waiting(_)), "{waiting:?} before what it has has come again");
    for n in 2..=4 {
        publisher.publish(batch(n, ResourceType::PATIENT)).await.unwrap();
    }
    assert_eq!(numbers(&mut resumed, 4).await, [4], "what it had does not come again");

    let (feed, _publisher) = reopen(old.path(), 1020).await;
    assert!(matches!(reset_reason(&feed, Filter::everything(), Some(id)).await, Notice::ResetAll { .. }));
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
    // The reset goes back to the safe time, not to the far instant: the tables are read.
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), false).await.unwrap();
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: far });
    assert!(matches!(notice(&mut resumed).await, Notice::Reset { .. }));
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(200) });
}

pub(crate) fn copy(from: &Path, to: &Path) {
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
