//! Database and journal were restored from copies: an id of the history that was lost is never continued silently.

use crate::ahead::{copy, reopen};
use crate::fixtures::{batch, instant, item, notice, numbers, open, origin};
use crate::purged::TwoPages;
use crate::resets::reset_reason;
use feed::{Batch, Begin, EventId, Feed, Item, Lsn, Noted, Notice, Publisher, Subscription, note_restored};
use fhir::{Filter, ResourceType};
use std::sync::Arc;
use tempfile::TempDir;

/// Far beyond all that is published here.
const WRITTEN: u64 = 1_000_000;

/// A journal of one change and its copy; then more changes, and the ids of each.
struct Copied {
    directory: TempDir,
    copy: TempDir,
    kept: EventId,
    lost: Vec<EventId>,
}

/// The same change as [`batch`] makes, of another transaction.
fn another(n: u64) -> Batch {
    let mut batch = batch(n, ResourceType::PATIENT);
    batch.transactions[0].xid += 7;
    batch
}

async fn publish(publisher: &mut Publisher, batch: Batch) {
    let passed = batch.passed.unwrap();
    publisher.publish(batch).await.unwrap();
    publisher.durable().wait_for(|lsn| *lsn >= passed).await.unwrap();
}

/// `restarted`: whether the service was restarted between the copy and what was lost.
async fn copied(restarted: bool) -> Copied {
    let [directory, saved] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (mut feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publish(&mut publisher, batch(1, ResourceType::PATIENT)).await;
    let mut reader = live(&feed).await;
    let kept = reader.id();
    copy(directory.path(), saved.path());
    if restarted {
        drop((reader, feed, publisher));
        (feed, publisher) = reopen(directory.path(), WRITTEN).await;
        reader = feed.subscribe(Filter::everything(), Begin::After { id: Some(kept.clone()), since: None });
    }
    let mut lost = Vec::new();
    for n in 2..=4 {
        publish(&mut publisher, batch(n, ResourceType::PATIENT)).await;
        numbers(&mut reader, n).await;
        lost.push(reader.id());
    }
    drop((reader, feed, publisher));
    Copied { directory, copy: saved, kept, lost }
}

async fn live(feed: &Feed) -> Subscription {
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(None));
    while !matches!(item(&mut reader).await, Item::Notice(Notice::Live { .. })) {}
    reader
}

async fn told(feed: &Feed, id: &EventId) -> Notice {
    reset_reason(feed, Filter::everything(), Some(id.clone())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_compared_with_the_transaction_that_the_journal_has() {
    for restarted in [false, true] {
        let Copied { copy, kept, lost, .. } = copied(restarted).await;
        let (feed, mut publisher) = reopen(copy.path(), WRITTEN).await;
        for n in 2..=5 {
            publish(&mut publisher, another(n)).await;
        }
        for id in &lost {
            assert!(matches!(told(&feed, id).await, Notice::ResetAll { .. }), "{restarted}");
        }
        // What lies before the copy is of both histories.
        let after = Begin::After { id: Some(kept), since: None };
        let mut exact = feed.subscribe(Filter::everything(), after);
        assert_eq!(numbers(&mut exact, 5).await, [2, 3, 4, 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_ahead_is_compared_when_the_feed_passes_it() {
    let Copied { copy, lost, .. } = copied(false).await;
    let (feed, mut publisher) = reopen(copy.path(), WRITTEN).await;
    let mut clients: Vec<_> = lost
        .into_iter()
        .map(|id| feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None }))
        .collect();
    for client in &mut clients {
        assert!(matches!(client.next().await, Ok(Item::Waiting(_))));
    }
    // The first is another transaction, in place of the second nothing comes, and the third is passed within a batch.
    publish(&mut publisher, another(2)).await;
    assert!(matches!(notice(&mut clients[0]).await, Notice::ResetAll { .. }));
    publish(&mut publisher, Batch { passed: Some(Lsn::new(1035)), ..Batch::default() }).await;
    assert!(matches!(notice(&mut clients[1]).await, Notice::ResetAll { .. }));
    publish(&mut publisher, another(5)).await;
    assert!(matches!(notice(&mut clients[2]).await, Notice::ResetAll { .. }));
}

/// It comes with an id of what was lost after a further epoch has begun, of which the journal has no more than its runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_any_more_is_a_reset_unless_its_run_proves_it() {
    for restarted in [false, true] {
        let Copied { directory, copy, kept, lost } = copied(restarted).await;
        for (place, was_lost) in [(&directory, false), (&copy, true)] {
            let (feed, mut publisher) = reopen(place.path(), WRITTEN).await;
            publish(&mut publisher, another(5)).await;
            publisher.begin_epoch(origin(1), Lsn::new(2000), instant(150), false).await.unwrap();
            assert!(matches!(told(&feed, &kept).await, Notice::Reset { .. }));
            for id in &lost {
                let told = told(&feed, id).await;
                assert_eq!(matches!(told, Notice::ResetAll { .. }), was_lost, "{restarted}: {told:?}");
            }
        }
    }
}

/// A change that was not there when everything before a later place had come.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_from_before_what_was_received_is_a_fork() {
    let directory = tempfile::tempdir().unwrap();
    let (_feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publish(&mut publisher, batch(1, ResourceType::PATIENT)).await;
    publish(&mut publisher, Batch { passed: Some(Lsn::new(1200)), ..Batch::default() }).await;
    publisher.resume(Lsn::new(1100));
    let forked = publisher.publish(batch(11, ResourceType::PATIENT)).await;
    assert_eq!(forked, Err(feed::PublishError::Fork(Lsn::new(1110))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_says_is_kept_until_the_next_epoch() {
    let Copied { directory, kept, lost, .. } = copied(false).await;
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(note_restored(empty.path()).unwrap(), Noted::NoJournal);
    assert_eq!(note_restored(&empty.path().join("none")).unwrap(), Noted::NoJournal);
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none(), "it made a journal");

    assert_eq!(note_restored(directory.path()).unwrap(), Noted::Now);
    assert_eq!(note_restored(directory.path()).unwrap(), Noted::Before);
    let (feed, mut publisher) = reopen(directory.path(), WRITTEN).await;
    assert!(publisher.tainted());
    // Nothing is continued meanwhile, and nothing begun.
    let ids = [kept, lost[0].clone()];
    let mut clients: Vec<_> = ids
        .into_iter()
        .map(|id| feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None }))
        .chain([feed.subscribe(Filter::everything(), Begin::Since(None))])
        .collect();
    for client in &mut clients {
        assert!(matches!(client.next().await, Ok(Item::Waiting(_))));
    }
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), true).await.unwrap();
    assert!(!publisher.tainted());
    publish(&mut publisher, Batch { passed: Some(Lsn::new(WRITTEN)), ..Batch::default() }).await;
    let told = [notice(&mut clients[0]).await, notice(&mut clients[1]).await, notice(&mut clients[2]).await];
    assert!(
        matches!(told, [Notice::ResetAll { .. }, Notice::ResetAll { .. }, Notice::Live { .. }]),
        "{told:?}"
    );
    drop((clients, feed, publisher));
    let (_feed, publisher) = reopen(directory.path(), WRITTEN).await;
    assert!(!publisher.tainted());
}

/// The process may end between the end of a history and the beginning of the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_remembered_until_its_epoch_begins() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publish(&mut publisher, batch(1, ResourceType::PATIENT)).await;
    let mut reader = live(&feed).await;
    publisher.taint().await.unwrap();
    // What follows keeps it.
    publish(&mut publisher, batch(2, ResourceType::PATIENT)).await;
    let id = reader.id();
    assert_eq!(numbers(&mut reader, 2).await, [2]);
    drop((reader, feed, publisher));
    let (feed, mut publisher) = reopen(directory.path(), WRITTEN).await;
    assert!(publisher.tainted());
    let mut client = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert!(matches!(client.next().await, Ok(Item::Waiting(_))));
    publisher.begin_epoch(origin(1), Lsn::new(2000), instant(150), publisher.tainted()).await.unwrap();
    assert!(matches!(notice(&mut client).await, Notice::ResetAll { .. }));
    assert!(!publisher.tainted());
    drop((client, feed, publisher));
    assert!(!reopen(directory.path(), WRITTEN).await.1.tainted());
}

/// A page shows what was committed before its watermark's fence LSN, which the journal has to know before it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn pages_are_resumed_after_a_restart_and_not_after_a_restore() {
    let [directory, saved] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    publish(&mut publisher, batch(1, ResourceType::PATIENT)).await;
    copy(directory.path(), saved.path());
    let source = || Arc::new(TwoPages::with_fence(Lsn::new(1016)));
    feed.set_source(source());
    let mut reader = feed.subscribe(Filter::everything(), Begin::Since(Some(instant(300))));
    assert_eq!(numbers(&mut reader, 1).await, [1]);
    let after = Begin::After { id: Some(reader.id()), since: None };
    drop((reader, feed, publisher));
    for (place, was_restored) in [(&directory, false), (&saved, true)] {
        let (feed, _publisher) = reopen(place.path(), WRITTEN).await;
        feed.set_source(source());
        let mut resumed = feed.subscribe(Filter::everything(), after.clone());
        if was_restored {
            assert!(matches!(notice(&mut resumed).await, Notice::ResetAll { .. }));
        }
        let expected: &[u64] = if was_restored { &[1, 2] } else { &[2] };
        assert_eq!(numbers(&mut resumed, 2).await, expected);
    }
}
