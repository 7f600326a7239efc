//! Where replay and feed meet.

use crate::fixtures::{Empty, Lines, batch, instant, item, notice, numbers, open, options, origin};
use feed::{Batch, Begin, EventId, Feed, Item, Lsn, Notice, Watermark};
use fhir::{Filter, ResourceType};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn commit_exactly_at_the_fence_lsn_comes_from_the_feed() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    // Its rows are in the log, and its commit will be the next record.
    let open_transaction = batch(1, ResourceType::PATIENT);
    let fence_lsn = open_transaction.transactions[0].commit_lsn;
    feed.set_source(Arc::new(Empty {
        watermark: Watermark { safe_time: instant(200), fence_lsn },
        purged: None,
    }));
    publisher.publish(Batch { passed: Some(fence_lsn), ..Batch::default() }).await.unwrap();
    publisher.publish(open_transaction).await.unwrap();
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    publisher.durable().wait_for(|lsn| *lsn >= Lsn::new(1025)).await.unwrap();
    // Its watermark was taken before all that.
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
    feed.set_source(Arc::new(Empty {
        watermark: Watermark { safe_time: instant(200), fence_lsn: start },
        purged: None,
    }));
    let mut early = feed.subscribe(Filter::everything(), Begin::Since(None));
    while notice(&mut early).await != (Notice::Live { transaction_time: instant(200) }) {}
    publisher.publish(first).await.unwrap();
    assert_eq!(numbers(&mut early, 1).await, [1]);
    publisher.durable().wait_for(|lsn| *lsn >= start).await.unwrap();
    let mut late = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(numbers(&mut late, 1).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_before_any_watermark_was_passed_tells_when_the_journal_began() {
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
