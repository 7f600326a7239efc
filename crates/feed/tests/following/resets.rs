//! Ids that cannot be continued, and what their clients are told.

use crate::fixtures::{Empty, batch, instant, item, notice, numbers, open, origin};
use feed::{Begin, EventId, Feed, Item, Lsn, Notice, PublishError, Watermark};
use fhir::{Filter, Instant, ResourceType};
use std::sync::Arc;

pub(crate) async fn reset_reason(feed: &Feed, filter: Filter, id: Option<EventId>) -> Notice {
    reset_reason_since(feed, filter, id, None).await
}

pub(crate) async fn reset_reason_since(
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
        assert!(epochs < 2_000, "it remembers for ever");
        publisher.begin_epoch(origin(1), Lsn::new(10), instant(150), false).await.unwrap();
        epochs += 1;
    };
    assert!(matches!(forgotten, Notice::ResetAll { .. }) && epochs > 10, "{forgotten:?} after {epochs}");
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

/// The fork comes while a reset that was told before it waits for its watermark.
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
    let watermark = Watermark { safe_time: instant(150), fence_lsn: Lsn::new(20) };
    feed.set_source(Arc::new(Empty { watermark, purged: None }));
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert!(matches!(notice(&mut resumed).await, Notice::Reset { .. }));
    assert!(matches!(notice(&mut resumed).await, Notice::ResetAll { .. }));
    assert_eq!(notice(&mut resumed).await, Notice::Live { transaction_time: instant(150) });
}
