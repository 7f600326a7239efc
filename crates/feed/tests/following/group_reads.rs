//! A Group that is asked for by many at once.

use crate::fixtures::{Empty, instant, open};
use feed::{Answer, GroupNow, Kind, Lsn, Mark, Page, PageRequest, PageRows, Sample, Source};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use futures_util::FutureExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::{Semaphore, watch};

/// A table with a Group whose n-th read, which the test lets through, finds the n-th patient as its member.
struct Counted {
    tables: Empty,
    begun: watch::Sender<usize>,
    let_through: Semaphore,
    members: AtomicUsize,
}

impl Source for Counted {
    fn mark(&self) -> Answer<'_, Sample> {
        self.tables.mark()
    }

    fn confirm(&self) -> Answer<'_, ()> {
        self.tables.confirm()
    }

    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        patients: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        self.tables.present(since, types, patients)
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        self.tables.tombstones_purged()
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        self.tables.page(request, rows)
    }

    fn group<'a>(&'a self, _: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        Box::pin(async {
            self.begun.send_modify(|begun| *begun += 1);
            self.let_through.acquire().await.unwrap().forget();
            let n = self.members.fetch_add(1, SeqCst) + 1;
            let member = format!(r#"{{"entity":{{"reference":"Patient/p{n}"}}}}"#);
            let group = r#"{"resourceType":"Group","type":"person","actual":true,"member":["#;
            Ok(Some(format!("{group}{member}]}}").into()))
        })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn member(found: GroupNow) -> String {
    match found {
        GroupNow::Members(members) => members.iter().collect(),
        other => panic!("{other:?}"),
    }
}

/// A read that has begun may not have seen what was committed since: it serves nobody who asks later.
#[tokio::test]
async fn one_read_of_a_group_serves_all_who_asked_before_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let mark = Mark { w: instant(1_000), l: Lsn::new(1_000) };
    let tables = Arc::new(Counted {
        tables: Empty { mark, purged: None },
        begun: watch::Sender::new(0),
        let_through: Semaphore::new(0),
        members: AtomicUsize::new(0),
    });
    feed.set_source(tables.clone());
    let mut begun = tables.begun.subscribe();

    let mut first = Box::pin(feed.group("g"));
    assert!(first.as_mut().now_or_never().is_none());
    begun.wait_for(|begun| *begun == 1).await.unwrap();
    let mut later: Vec<_> = (0..1_000).map(|_| Box::pin(feed.group("g"))).collect();
    assert!(later.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
    // Who gives up takes nothing from the others.
    later.truncate(500);
    tables.let_through.add_permits(1);
    assert_eq!(member(first.await.unwrap()), "p1");
    tables.let_through.add_permits(1);
    for one in later {
        assert_eq!(member(one.await.unwrap()), "p2");
    }
    assert_eq!(*begun.borrow(), 2);

    // Whom nobody waits for is not read.
    let mut running = Box::pin(feed.group("g"));
    assert!(running.as_mut().now_or_never().is_none());
    begun.wait_for(|begun| *begun == 3).await.unwrap();
    let mut given_up = Box::pin(feed.group("g"));
    assert!(given_up.as_mut().now_or_never().is_none());
    drop(given_up);
    tables.let_through.add_permits(2);
    assert_eq!(member(running.await.unwrap()), "p3");
    assert_eq!(member(feed.group("g").await.unwrap()), "p4");
    assert_eq!(*begun.borrow(), 4);
}
