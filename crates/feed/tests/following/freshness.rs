//! What is told of a feed that is behind the database's log. The clock of these tests is paused, and so runs as fast as they do.

use crate::fixtures::{Empty, any_item, batch, instant, notice, numbers, open};
use feed::{Begin, Feed, Item, Lsn, Notice, Subscription, Watermark};
use fhir::{Filter, ResourceType};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const STALE: Notice = Notice::Stale { transaction_time: instant_200() };
const FRESH: Notice = Notice::Fresh { transaction_time: instant_200() };

const fn instant_200() -> fhir::Instant {
    fhir::Instant::from_unix_micros(200)
}

async fn any_notice(subscription: &mut Subscription) -> Notice {
    match any_item(subscription).await {
        Item::Notice(notice) => notice,
        item => panic!("{item:?} instead of a notice"),
    }
}

/// The log ends where it was received to.
fn caught_up(feed: &Feed) {
    feed.log_ended(Instant::now(), feed.status().received_lsn);
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_is_told_within_thirty_seconds_and_again_when_it_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    caught_up(&feed);
    let mut patients =
        feed.subscribe(Filter::of_types([ResourceType::PATIENT].into_iter().collect()), Begin::Since(None));
    assert!(matches!(notice(&mut patients).await, Notice::Live { .. }));
    publisher.publish(batch(1, ResourceType::GROUP)).await.unwrap();
    // While the disk was at work the clock may have run on.
    while feed.status().stale || feed.status().age > Duration::from_secs(1) {
        caught_up(&feed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lost = Instant::now();
    loop {
        let notice = any_notice(&mut patients).await;
        if lost.elapsed() > Duration::from_secs(20) {
            assert_eq!(notice, STALE);
            break;
        }
    }
    assert!(lost.elapsed() <= Duration::from_secs(30), "{:?}", lost.elapsed());
    assert!(feed.status().stale);

    // Its id is that of what was passed: nothing of it comes again, and nothing is missed.
    let id = patients.id();
    publisher.publish(batch(2, ResourceType::PATIENT)).await.unwrap();
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert_eq!(numbers(&mut resumed, 2).await, [2]);

    assert_eq!(numbers(&mut patients, 2).await, [2]);
    caught_up(&feed);
    assert_eq!(any_notice(&mut patients).await, FRESH);
    assert!(!feed.status().stale);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_while_it_is_stale_is_told_before_and_after_live() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let mut first = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert!(matches!(notice(&mut first).await, Notice::Live { .. }));
    assert_eq!(any_notice(&mut first).await, STALE);
    let mut second = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(any_notice(&mut second).await, STALE);
    assert!(matches!(any_notice(&mut second).await, Notice::Live { .. }));
    assert_eq!(any_notice(&mut second).await, STALE);
    caught_up(&feed);
    assert_eq!(any_notice(&mut first).await, FRESH);
    assert_eq!(any_notice(&mut second).await, FRESH);
}

/// Between the pages and `live` a stream waits for the feed: outside of the channels, and perhaps for long.
#[tokio::test(start_paused = true)]
async fn who_waits_for_the_feed_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let watermark = Watermark { safe_time: instant(200), fence_lsn: Lsn::new(1015) };
    feed.set_source(Arc::new(Empty { watermark, purged: None }));
    caught_up(&feed);
    let mut waiting = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert_eq!(any_notice(&mut waiting).await, STALE);
    let id = waiting.id();
    publisher.publish(batch(1, ResourceType::PATIENT)).await.unwrap();
    assert_eq!(numbers(&mut waiting, 1).await, [1]);
    // Told once more, as `live` alone would look as if all were well.
    assert!(matches!(notice(&mut waiting).await, Notice::Live { .. }));
    assert_eq!(any_notice(&mut waiting).await, STALE);
    let mut resumed = feed.subscribe(Filter::everything(), Begin::After { id: Some(id), since: None });
    assert_eq!(numbers(&mut resumed, 1).await, [1]);
}

/// Where the log's end is known and not received, it is not the connection that matters.
#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_received_makes_it_stale() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert!(matches!(notice(&mut subscription).await, Notice::Live { .. }));
    let looks = {
        let feed = feed.clone();
        tokio::spawn(async move {
            let begun = feed.status().received_lsn;
            feed.log_ended(Instant::now(), begun);
            loop {
                feed.log_ended(Instant::now(), Lsn::new(2000));
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        })
    };
    assert_eq!(any_notice(&mut subscription).await, STALE);
    publisher.publish(batch(100, ResourceType::PATIENT)).await.unwrap();
    assert_eq!(numbers(&mut subscription, 100).await, [100]);
    assert_eq!(any_notice(&mut subscription).await, FRESH);
    looks.abort();
}

/// A new epoch resets clients, and makes nothing fresh.
#[tokio::test(start_paused = true)]
async fn a_new_epoch_is_as_stale_as_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    assert!(matches!(notice(&mut subscription).await, Notice::Live { .. }));
    assert_eq!(any_notice(&mut subscription).await, STALE);
    publisher.begin_epoch(crate::fixtures::origin(1), Lsn::new(10), instant(100), false).await.unwrap();
    assert!(matches!(notice(&mut subscription).await, Notice::Reset { .. } | Notice::ResetAll { .. }));
    assert!(matches!(notice(&mut subscription).await, Notice::Live { .. }));
    assert_eq!(any_notice(&mut subscription).await, STALE);
}
