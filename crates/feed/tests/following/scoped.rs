//! Streams of some patients: what is not known, what is large, and ids of another scope.

use crate::fixtures::{Empty, batch, instant, item, notice, open};
use feed::{Before, Begin, Change, Feed, Item, LARGE_BYTES, Lsn, Notice, Subscription, Watermark};
use fhir::{Compartment, Filter, Patients, ResourceType, TypeSet};
use std::sync::Arc;

fn patients(ids: &[&str]) -> Patients {
    Patients::from_ids(ids.iter().copied())
}

fn of(id: &str) -> Filter {
    Filter::of_patients(TypeSet::all(), Compartment::Patients(patients(&[id])))
}

/// The change of a resource, with its patients after and before it.
fn change(n: u64, after: &[&str], before: Before, length: usize) -> feed::Batch {
    let batch = batch(n, ResourceType::PATIENT);
    let data = format!(r#"{{"resourceType":"Patient","id":"r{n}","x":"{}"}}"#, "x".repeat(length));
    let change = |change: Change| Change {
        patients: patients(after),
        before: before.clone(),
        data: data.clone().into(),
        ..change
    };
    feed::Batch { changes: batch.changes.into_iter().map(change).collect(), ..batch }
}

async fn live(feed: &Feed, filter: Filter) -> Subscription {
    let mut subscription = feed.subscribe(filter, Begin::Since(None));
    assert!(matches!(notice(&mut subscription).await, Notice::Live { .. }));
    subscription
}

/// From now on replays find in the tables what the first change left.
fn later_watermarks(feed: &Feed) {
    let watermark = Watermark { safe_time: instant(1001), fence_lsn: Lsn::new(1015) };
    feed.set_source(Arc::new(Empty { watermark, purged: None }));
}

/// The text of the next frames.
async fn text(subscription: &mut Subscription) -> String {
    match item(subscription).await {
        Item::Frames(frames) => String::from_utf8(frames.bytes.to_vec()).unwrap(),
        other => panic!("{other:?} instead of frames"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_hears_of_its_own_and_of_what_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let (mut a, mut b) = (live(&feed, of("a")).await, live(&feed, of("b")).await);
    let mut any = live(&feed, Filter::of_patients(TypeSet::all(), Compartment::AnyPatient)).await;
    let start = a.id();
    for change in [
        change(1, &["a"], Before::Nothing, 1),
        change(2, &["b"], Before::Patients(patients(&["a", "b"])), 1),
        change(3, &[], Before::Nothing, 1),
        change(4, &[], Before::Patients(patients(&["a"])), 1),
    ] {
        publisher.publish(change).await.unwrap();
    }
    let leaves =
        |text: &str, n: u64| text.contains("out-of-scope") && text.contains(&format!("Patient/r{n}\""));
    assert!(text(&mut a).await.contains(r#""id":"r1""#));
    assert!(leaves(&text(&mut a).await, 2));
    assert!(leaves(&text(&mut a).await, 4));
    assert!(text(&mut b).await.contains(r#""id":"r2""#));
    assert!(text(&mut any).await.contains(r#""id":"r1""#));
    assert!(text(&mut any).await.contains(r#""id":"r2""#));
    assert!(leaves(&text(&mut any).await, 4));
    // The same from the journal.
    let mut resumed = feed.subscribe(of("a"), Begin::After { id: Some(start), since: None });
    let mut heard = String::new();
    while heard.lines().count() < 3 {
        heard.push_str(&text(&mut resumed).await);
    }
    let lines: Vec<_> = heard.lines().collect();
    assert!(lines[0].contains(r#""id":"r1""#) && leaves(lines[1], 2) && leaves(lines[2], 4), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_does_not_say_whose_it_was_who_may_have_had_it_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let (mut a, mut b) = (live(&feed, of("a")).await, live(&feed, of("b")).await);
    let mut all = live(&feed, Filter::everything()).await;
    let start = b.id();
    later_watermarks(&feed);
    publisher.publish(change(1, &["a"], Before::Unknown, 1)).await.unwrap();
    assert!(text(&mut a).await.contains(r#""id":"r1""#));
    assert!(text(&mut all).await.contains(r#""id":"r1""#));
    assert!(matches!(notice(&mut b).await, Notice::ResetAll { .. }));
    assert!(matches!(notice(&mut b).await, Notice::Live { .. }));
    let mut resumed = feed.subscribe(of("b"), Begin::After { id: Some(start), since: None });
    assert!(matches!(notice(&mut resumed).await, Notice::ResetAll { .. }));
    // After that as before.
    publisher.publish(change(2, &["b"], Before::Nothing, 1)).await.unwrap();
    assert!(text(&mut b).await.contains(r#""id":"r2""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_and_leaves_is_told_of_in_a_few_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut a = live(&feed, of("a")).await;
    let start = a.id();
    publisher.publish(change(1, &["b"], Before::Patients(patients(&["a"])), LARGE_BYTES)).await.unwrap();
    let mut resumed = feed.subscribe(of("a"), Begin::After { id: Some(start), since: None });
    for reader in [&mut a, &mut resumed] {
        let told = text(reader).await;
        assert!(told.len() < 1000 && told.contains("Patient/r1"), "{}", told.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_another_scope_is_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let mut a = live(&feed, of("a")).await;
    publisher.publish(change(1, &["a"], Before::Nothing, 1)).await.unwrap();
    text(&mut a).await;
    later_watermarks(&feed);
    let since = Some(instant(150));
    let after = |filter: Filter| feed.subscribe(filter, Begin::After { id: Some(a.id()), since });
    let mut same = after(of("a"));
    assert!(matches!(notice(&mut same).await, Notice::Live { .. }));
    // Of what has left a scope there is no list.
    assert!(matches!(notice(&mut after(of("b"))).await, Notice::ResetAll { .. }));
    assert!(matches!(notice(&mut after(Filter::everything())).await, Notice::Reset { .. }));
    let of_everything = live(&feed, Filter::everything()).await.id();
    let mut other = feed.subscribe(of("a"), Begin::After { id: Some(of_everything), since });
    assert!(matches!(notice(&mut other).await, Notice::ResetAll { .. }));
}
