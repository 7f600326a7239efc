//! A change of members, told to many who follow one Group: it is read once.

use crate::fixtures::{instant, item, open, row};
use feed::{
    Answer, Batch, Before, Begin, Change, Feed, Item, Kind, Lsn, Notice, Page, PageRequest, PageRows,
    Position, Publisher, Sample, Source, Subscription, Transaction, Watermark,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Tables in which some patients have a resource each, of some size.
struct Tables {
    size: usize,
    pages: AtomicUsize,
    groups: AtomicUsize,
}

const ALL: [&str; 3] = ["a", "b", "c"];
/// Of one patient's resource so many rows.
const ROWS: usize = 40;

fn group(members: &[&str]) -> bytes::Bytes {
    let member = |id: &&str| format!(r#"{{"entity":{{"reference":"Patient/{id}"}}}}"#);
    let members = members.iter().map(member).collect::<Vec<_>>().join(",");
    format!(r#"{{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{members}]}}"#)
        .into()
}

impl Source for Tables {
    fn watermark(&self) -> Answer<'_, Sample> {
        let (watermark, taken) = (
            Watermark { safe_time: instant(1_500), fence_lsn: Lsn::new(2_000) },
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

    fn group<'a>(&'a self, _: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        self.groups.fetch_add(1, SeqCst);
        Box::pin(async { Ok(Some(group(&["a"]))) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        self.pages.fetch_add(1, SeqCst);
        let wants = request.scope.unwrap().wants;
        for patient in ALL {
            for n in 0..ROWS {
                let id = format!("{patient}{n:02}");
                let comes = request.after.as_ref().is_none_or(|(_, after)| *id > **after);
                if comes && wants(&id, &Patients::from_ids([patient])) {
                    let text = "x".repeat(self.size);
                    row(rows, instant(1_000), &id, &format!(r#"{{"id":"{id}","text":"{text}"}}"#));
                }
            }
        }
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

async fn publish(publisher: &mut Publisher, lsn: u64, members: &[&str], before: &[&str]) {
    let change = Change {
        position: Position::first_at(Lsn::new(lsn)),
        stamp: instant(1_400),
        resource_type: ResourceType::GROUP,
        kind: Kind::Upsert,
        patients: Patients::none(),
        before: Before::Patients(Patients::none()),
        group_before: Some(group(before)),
        tick: None,
        data: group(members),
    };
    let transactions = vec![Transaction { commit_lsn: Lsn::new(lsn), xid: 7, commit_time: change.stamp }];
    let batch = Batch { changes: vec![change], transactions, passed: Some(Lsn::new(lsn + 10)) };
    publisher.publish(batch).await.unwrap();
}

/// The resources that came up to a notice, in order, and the notice.
async fn heard(stream: &mut Subscription) -> (Vec<String>, Notice) {
    let mut came = Vec::new();
    loop {
        match item(stream).await {
            Item::Frames(frames) => {
                let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
                came.extend(text.lines().map(|line| {
                    let read = &line[line.find('{').unwrap()..];
                    let read: serde_json::Value = serde_json::from_str(read).unwrap();
                    let url = read["entry"][0]["request"]["url"].as_str();
                    url.or(read["id"].as_str()).unwrap().to_owned()
                }));
            }
            Item::Notice(notice) => return (came, notice),
            Item::Waiting(_) => {}
        }
    }
}

fn subscribe(feed: &Feed, begin: Begin) -> Subscription {
    feed.subscribe(Filter::of_group([ResourceType::PATIENT].into_iter().collect(), "g", None), begin)
}

/// So many hear of one who joins, some later than others; how often the tables were asked meanwhile.
async fn one_joins(subscribers: usize, size: usize) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path(), 64 << 20).await;
    let tables = Arc::new(Tables { size, pages: AtomicUsize::new(0), groups: AtomicUsize::new(0) });
    feed.set_source(tables.clone());
    publisher.publish(Batch { passed: Some(Lsn::new(2_000)), ..Batch::default() }).await.unwrap();
    let mut streams: Vec<_> = (0..subscribers).map(|_| subscribe(&feed, Begin::Since(None))).collect();
    for stream in &mut streams {
        let (came, notice) = heard(stream).await;
        assert!(matches!(notice, Notice::Live { .. }) && came.len() == ROWS, "{notice:?} {came:?}");
    }
    let before = tables.pages.load(SeqCst);
    publish(&mut publisher, 2_100, &["a", "b"], &["a"]).await;
    let wanted: Vec<String> = (0..ROWS).map(|n| format!("b{n:02}")).collect();
    // The first has all of it before the others have read anything.
    for stream in &mut streams {
        let (came, notice) = heard(stream).await;
        assert_eq!((came, notice), (wanted.clone(), Notice::Members { joined: 1, left: 0 }));
    }
    // Whoever comes back with an id from there, has it.
    let id = streams[0].id();
    publish(&mut publisher, 2_200, &["b"], &["a", "b"]).await;
    let wanted: Vec<String> = (0..ROWS).map(|n| format!("Patient/a{n:02}")).collect();
    let again = subscribe(&feed, Begin::After { id: Some(id), since: None });
    for stream in streams.iter_mut().chain([again].iter_mut()) {
        let (came, notice) = heard(stream).await;
        assert_eq!((came, notice), (wanted.clone(), Notice::Members { joined: 0, left: 1 }));
    }
    tables.pages.load(SeqCst) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_serves_all() {
    assert_eq!(one_joins(50, 10).await, one_joins(1, 10).await);
}

/// More than is kept for others: who comes late reads the rest himself, and has all of it once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_for_others_each_reads_himself() {
    let alone = one_joins(1, 400_000).await;
    assert!(one_joins(3, 400_000).await > alone);
}
