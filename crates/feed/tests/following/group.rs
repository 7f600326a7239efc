//! A stream of a Group where one leaves: what he had and what is changed meanwhile.

use crate::fixtures::{instant, item, open, row};
use feed::{
    Answer, Batch, Before, Begin, Change, Feed, Item, Kind, Lsn, Notice, Page, PageRequest, PageRows,
    Position, Publisher, Sample, Source, SourceError, Subscription, Transaction, Watermark,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Tables in which the newest change is visible before the feed has it.
#[derive(Default)]
struct Ahead {
    /// `r1` is somebody else's now, with a stamp after every watermark.
    changed: AtomicBool,
    /// Who leaves was looked for.
    listed: AtomicBool,
    /// Whose a resource was is not in the log any more.
    untold: AtomicBool,
    /// So many Groups are nested in the Group.
    nested: usize,
    watermarks: AtomicUsize,
}

fn group(members: &[&str]) -> bytes::Bytes {
    let members: Vec<_> = members.iter().map(|id| format!("Patient/{id}")).collect();
    group_of(&members.iter().map(String::as_str).collect::<Vec<_>>())
}

fn group_of(members: &[&str]) -> bytes::Bytes {
    let member = |reference: &&str| format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#);
    let members = members.iter().map(member).collect::<Vec<_>>().join(",");
    format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{members}]}}"#)
        .into()
}

impl Source for Ahead {
    fn watermark(&self) -> Answer<'_, Sample> {
        self.watermarks.fetch_add(1, SeqCst);
        let fence_lsn = if self.listed.load(SeqCst) { 3_000 } else { 2_000 };
        let (watermark, taken) = (
            Watermark { safe_time: instant(1_500), fence_lsn: Lsn::new(fence_lsn) },
            tokio::time::Instant::now(),
        );
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
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

    fn knows_patients(&self) -> Answer<'_, ()> {
        let untold = self.untold.load(SeqCst);
        let answer = if untold { Err(SourceError::Refused("run migrate".into())) } else { Ok(()) };
        Box::pin(async { answer })
    }

    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        let nested: Vec<_> =
            (0..if id == "g" { self.nested } else { 0 }).map(|n| format!("Group/n{n}")).collect();
        let members: Vec<_> =
            ["Patient/a", "Patient/c"].into_iter().chain(nested.iter().map(String::as_str)).collect();
        let group = group_of(&members);
        Box::pin(async { Ok(Some(group)) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        let changed = self.changed.load(SeqCst);
        self.listed.fetch_or(changed, SeqCst);
        let wants = request.scope.unwrap().wants;
        for (id, whose) in [("r1", "a"), ("r2", "a"), ("r3", "c")] {
            if !(changed && id == "r1") && wants(id, &Patients::from_ids([whose])) {
                let data = format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#);
                row(rows, instant(1_000), id, &data);
            }
        }
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn change(lsn: u64, stamp: i64, resource_type: ResourceType, data: bytes::Bytes) -> Change {
    Change {
        position: Position::first_at(Lsn::new(lsn)),
        stamp: instant(stamp),
        resource_type,
        kind: Kind::Upsert,
        patients: Patients::none(),
        before: Before::Patients(Patients::none()),
        group_before: None,
        tick: None,
        data,
    }
}

async fn publish(publisher: &mut Publisher, change: Option<Change>, passed: u64) {
    let transactions = change.iter().map(|change| Transaction {
        commit_lsn: change.position.commit_lsn,
        xid: 7,
        commit_time: change.stamp,
    });
    let transactions = transactions.collect();
    let changes = change.into_iter().collect();
    publisher.publish(Batch { changes, transactions, passed: Some(Lsn::new(passed)) }).await.unwrap();
}

/// Whether frames name a resource, as it is or as gone. Event ids are random letters, in which any two may stand.
fn names(text: &str, id: &str) -> bool {
    text.contains(&format!("\"{id}\"")) || text.contains(&format!("Patient/{id}\""))
}

/// What comes up to a notice, and the notice.
async fn heard(stream: &mut Subscription) -> (String, Notice) {
    let mut text = String::new();
    loop {
        match item(stream).await {
            Item::Frames(frames) => text.push_str(std::str::from_utf8(&frames.bytes).unwrap()),
            Item::Notice(notice) => return (text, notice),
            Item::Waiting(_) => {}
        }
    }
}

fn subscribe(feed: &Feed, begin: Begin) -> Subscription {
    feed.subscribe(Filter::of_group([ResourceType::PATIENT].into_iter().collect(), "g", None), begin)
}

/// The list of what leaves is read of the tables, which are ahead of the feed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_before_the_leavers_were_listed_is_taken_back_too() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    let tables = Arc::new(Ahead::default());
    feed.set_source(tables.clone());
    publish(&mut publisher, None, 2_000).await;
    let mut stream = subscribe(&feed, Begin::Since(None));
    let (text, notice) = heard(&mut stream).await;
    assert!(matches!(notice, Notice::Live { .. }));
    assert!(["r1", "r2", "r3"].iter().all(|id| names(&text, id)), "{text}");

    tables.changed.store(true, SeqCst);
    let left = Change {
        group_before: Some(group(&["a", "c"])),
        ..change(2_100, 1_400, ResourceType::GROUP, group(&["c"]))
    };
    publish(&mut publisher, Some(left), 2_110).await;
    let (text, notice) = heard(&mut stream).await;
    assert_eq!(notice, Notice::Members { joined: 0, left: 1 }, "{text}");
    assert!(text.contains("Patient/r2\"") && !names(&text, "r1") && !names(&text, "r3"), "{text}");
    let id = stream.id();

    // The change that the tables had already.
    let r1 = change(2_900, 2_500, ResourceType::PATIENT, r#"{"resourceType":"Patient","id":"r1"}"#.into());
    let r1 = Change { before: Before::Patients(Patients::from_ids(["a"])), ..r1 };
    publish(&mut publisher, Some(r1.clone()), 3_000).await;
    let mut resumed = subscribe(&feed, Begin::After { id: Some(id), since: None });
    for stream in [&mut stream, &mut resumed] {
        let Item::Frames(frames) = item(stream).await else { panic!("no frames") };
        let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
        assert!(text.contains("out-of-scope") && text.contains("Patient/r1\""), "{text}");
    }
    // Afterwards he is nobody's.
    let again = Change { position: Position::first_at(Lsn::new(3_100)), ..r1 };
    publish(&mut publisher, Some(again), 3_200).await;
    let last = change(3_300, 2_700, ResourceType::PATIENT, r#"{"resourceType":"Patient","id":"r3"}"#.into());
    let last = Change { patients: Patients::from_ids(["c"]), ..last };
    publish(&mut publisher, Some(last), 3_400).await;
    let Item::Frames(frames) = item(&mut stream).await else { panic!("no frames") };
    let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
    assert!(text.contains("\"r3\"") && !names(&text, "r1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_gone_ends_the_stream_and_one_that_says_the_same_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Ahead::default()));
    publish(&mut publisher, None, 2_000).await;
    let mut stream = subscribe(&feed, Begin::Since(None));
    assert!(matches!(heard(&mut stream).await.1, Notice::Live { .. }));
    let of_group = |lsn, data| Change {
        group_before: Some(group(&["a", "c"])),
        ..change(lsn, 1_400, ResourceType::GROUP, data)
    };
    publish(&mut publisher, Some(of_group(2_100, group(&["c", "a"]))), 2_110).await;
    let r1 = change(2_200, 2_500, ResourceType::PATIENT, r#"{"resourceType":"Patient","id":"r9"}"#.into());
    let r1 = Change { patients: Patients::from_ids(["a"]), ..r1 };
    publish(&mut publisher, Some(r1), 2_210).await;
    let Item::Frames(frames) = item(&mut stream).await else { panic!("no frames") };
    assert!(names(std::str::from_utf8(&frames.bytes).unwrap(), "r9"));
    let bundle = r#"{"entry":[{"request":{"method":"DELETE","url":"Group/g"}}]}"#;
    let gone = Change { kind: Kind::Deletion, ..of_group(2_300, bundle.into()) };
    publish(&mut publisher, Some(gone), 2_310).await;
    let ended = loop {
        if let Err(error) = stream.next().await {
            break error;
        }
    };
    assert!(matches!(&ended, feed::SourceError::Gone(why) if why.contains("deleted")), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_to_drop_what_he_has_while_nothing_can_be_sent_instead() {
    let patients = [ResourceType::PATIENT].into_iter().collect();
    let of_one = fhir::Compartment::Patients(Patients::from_ids(["a"]));
    for filter in [Filter::of_group(patients, "g", None), Filter::of_patients(patients, of_one)] {
        let directory = tempfile::tempdir().unwrap();
        let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
        let tables = Arc::new(Ahead::default());
        feed.set_source(tables.clone());
        publish(&mut publisher, None, 2_000).await;
        let mut stream = feed.subscribe(filter, Begin::Since(None));
        assert!(matches!(heard(&mut stream).await.1, Notice::Live { .. }));
        tables.untold.store(true, SeqCst);
        let r1 =
            change(2_100, 2_500, ResourceType::PATIENT, r#"{"resourceType":"Patient","id":"r1"}"#.into());
        publish(&mut publisher, Some(Change { before: Before::Unknown, ..r1 }), 2_110).await;
        let ended = loop {
            match stream.next().await {
                Ok(Item::Notice(notice)) => panic!("{notice:?}"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, SourceError::Refused(_)), "{ended}");
    }
}

/// To know that the feed has passed a place takes a moment, however many Groups are asked for there.
#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_nested_in_one_are_asked_for_together() {
    let mut watermarks = Vec::new();
    for nested in [1, 100] {
        let directory = tempfile::tempdir().unwrap();
        let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
        let tables = Arc::new(Ahead { nested, ..Ahead::default() });
        feed.set_source(tables.clone());
        publish(&mut publisher, None, 2_000).await;
        let mut stream = subscribe(&feed, Begin::Since(None));
        assert!(matches!(heard(&mut stream).await.1, Notice::Live { .. }));
        watermarks.push(tables.watermarks.load(SeqCst));
    }
    assert_eq!(watermarks[0], watermarks[1]);
}

/// A change of a Group from members to members.
fn members_change(lsn: u64, stamp: i64, before: &[&str], after: &[&str]) -> Change {
    Change { group_before: Some(group(before)), ..change(lsn, stamp, ResourceType::GROUP, group(after)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn since_brings_who_joined_whole_and_of_the_others_what_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Ahead::default()));
    let r2 = change(1_100, 1_200, ResourceType::PATIENT, r#"{"resourceType":"Patient","id":"r2"}"#.into());
    let r2 = Change {
        patients: Patients::from_ids(["a"]),
        before: Before::Patients(Patients::from_ids(["a"])),
        ..r2
    };
    publish(&mut publisher, Some(r2), 1_110).await;
    publish(&mut publisher, Some(members_change(1_300, 1_300, &["a"], &["a", "c"])), 1_310).await;
    publish(&mut publisher, None, 2_000).await;
    let joined = Notice::Members { joined: 1, left: 0 };
    for (since, changed, whole) in [(1_150, true, true), (1_250, false, true), (1_350, false, false)] {
        let mut stream = subscribe(&feed, Begin::Since(Some(instant(since))));
        let (mut text, mut notice) = heard(&mut stream).await;
        if whole {
            assert_eq!(notice, joined, "{since}: {text}");
            let more;
            (more, notice) = heard(&mut stream).await;
            text.push_str(&more);
        }
        assert!(matches!(notice, Notice::Live { .. }), "{since}: {notice:?}");
        assert_eq!(["r1", "r2", "r3"].map(|id| names(&text, id)), [false, changed, whole], "{since}: {text}");
    }
    // From before the journal.
    let mut stream = subscribe(&feed, Begin::Since(Some(instant(50))));
    assert!(matches!(heard(&mut stream).await.1, Notice::ResetAll { reason } if reason.contains("_since")));
    let (text, notice) = heard(&mut stream).await;
    assert!(matches!(notice, Notice::Live { .. }));
    assert!(["r1", "r2", "r3"].iter().all(|id| names(&text, id)), "{text}");
}

/// With the instant of a safe time a client may have what was sent before it was told of that.
#[tokio::test(flavor = "multi_thread")]
async fn since_takes_back_what_is_of_somebody_who_came_and_went() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Ahead::default()));
    publish(&mut publisher, Some(members_change(1_200, 1_200, &["a"], &["a", "c"])), 1_210).await;
    publish(&mut publisher, Some(members_change(1_300, 1_300, &["a", "c"], &["a"])), 1_310).await;
    publish(&mut publisher, None, 2_000).await;
    let mut stream = subscribe(&feed, Begin::Since(Some(instant(1_150))));
    let (text, notice) = heard(&mut stream).await;
    assert_eq!(notice, Notice::Members { joined: 0, left: 0 });
    assert!(text.contains("out-of-scope") && text.contains("Patient/r3\""), "{text}");
    assert!(!["r1", "r2"].iter().any(|id| names(&text, id)), "{text}");
    // The same after it was cut off there: until the feed has passed the end of the log as of then.
    let mut resumed = subscribe(&feed, Begin::After { id: Some(stream.id()), since: None });
    publish(&mut publisher, None, 3_100).await;
    for stream in [&mut stream, &mut resumed] {
        let (text, notice) = heard(stream).await;
        assert!(matches!(notice, Notice::Live { .. }) && text.is_empty(), "{text}");
    }
}

/// Cut off again and again with the notice it would be told so for ever.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_to_drop_everything_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Ahead::default()));
    publish(&mut publisher, None, 2_000).await;
    let since = Some(instant(50));
    let patients = [ResourceType::PATIENT].into_iter().collect();
    let of_one = fhir::Compartment::Patients(Patients::from_ids(["a"]));
    for filter in [Filter::of_group(patients, "g", None), Filter::of_patients(patients, of_one)] {
        let begin = |id| Begin::After { id, since };
        let mut stream = feed.subscribe(filter.clone(), begin(None));
        assert!(matches!(heard(&mut stream).await.1, Notice::ResetAll { .. }));
        let id = stream.id();
        for _ in 0..2 {
            // All of it, not only what is younger than the request's `_since`.
            let mut resumed = feed.subscribe(filter.clone(), begin(Some(id.clone())));
            let (text, notice) = heard(&mut resumed).await;
            assert!(matches!(notice, Notice::Live { .. }), "{notice:?}");
            assert!(names(&text, "r1"), "{text}");
        }
        // Of another request it says nothing.
        let all_types = Filter::of_group(TypeSet::all(), "g", None);
        let mut other = feed.subscribe(all_types, begin(Some(id)));
        assert!(matches!(heard(&mut other).await.1, Notice::ResetAll { .. }));
    }
}

/// Publishes changes in one batch, so that a subscriber finds them all in one transition.
async fn publish_at_once(publisher: &mut Publisher, changes: Vec<Change>, passed: u64) {
    let transaction = |change: &Change| Transaction {
        commit_lsn: change.position.commit_lsn,
        xid: 7,
        commit_time: change.stamp,
    };
    let transactions = changes.iter().map(transaction).collect();
    publisher.publish(Batch { changes, transactions, passed: Some(Lsn::new(passed)) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_who_left_and_came_back_do_not_count_as_removed_for_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 1 << 20).await;
    feed.set_source(Arc::new(Ahead::default()));
    publish(&mut publisher, None, 2_000).await;
    let mut stream = subscribe(&feed, Begin::Since(None));
    assert!(matches!(heard(&mut stream).await.1, Notice::Live { .. }));

    let flap =
        vec![members_change(2_100, 1_400, &["a", "c"], &[]), members_change(2_200, 1_410, &[], &["a", "c"])];
    publish_at_once(&mut publisher, flap, 2_210).await;
    let (text, notice) = heard(&mut stream).await;
    assert_eq!(notice, Notice::Members { joined: 2, left: 2 }, "{text}");
    assert!(["r1", "r2", "r3"].iter().all(|id| text.contains(&format!("\"id\":\"{id}\""))), "{text}");

    // The same members leave for good.
    let gone = vec![members_change(2_300, 1_420, &["a", "c"], &[])];
    publish_at_once(&mut publisher, gone, 3_010).await;
    let (_, notice) = heard(&mut stream).await;
    assert!(matches!(notice, Notice::ResetAll { reason } if reason.contains("most members")), "{notice:?}");
}
