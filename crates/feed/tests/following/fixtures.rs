//! A feed with numbered changes, tables without rows, and how a subscriber is read.

use feed::{
    Answer, Batch, Before, Change, Feed, Framing, Item, Kind, Lsn, Notice, Options, Origin, Page,
    PageRequest, PageRows, Position, Publisher, Sample, Source, Subscription, Transaction, Watermark,
};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Lines;

impl Framing for Lines {
    fn begin(&self, id: &str, _: ResourceType, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{id} ").as_bytes());
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

/// Tables without rows, and a watermark.
pub(crate) struct Empty {
    pub(crate) watermark: Watermark,
    pub(crate) purged: Option<Instant>,
}

impl Source for Empty {
    fn watermark(&self) -> Answer<'_, Sample> {
        let (watermark, taken) = (self.watermark, tokio::time::Instant::now());
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: self.purged }) })
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
        Box::pin(async { Ok(Vec::new()) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(self.purged) })
    }

    fn page<'a>(&'a self, _: PageRequest, _: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

pub(crate) fn row(rows: &mut dyn PageRows, stamp: Instant, id: &str, data: &str) {
    rows.row(stamp, id, &mut |out| {
        out.extend_from_slice(data.as_bytes());
        true
    });
}

pub(crate) fn origin(system: u64) -> Origin {
    Origin { system, timeline: 1, identity: String::new() }
}

pub(crate) fn instant(micros: i64) -> Instant {
    Instant::from_unix_micros(micros)
}

pub(crate) fn options(directory: &Path, held_bytes: usize) -> Options {
    Options {
        directory: directory.to_owned(),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 2,
        held_bytes,
        base_urls: fhir::BaseUrls::default(),
    }
}

pub(crate) async fn open(directory: &Path, held_bytes: usize) -> (Feed, Publisher) {
    let (feed, mut publisher) = Feed::open(options(directory, held_bytes), Arc::new(Lines)).unwrap();
    publisher.begin_epoch(origin(1), Lsn::new(10), instant(100), false).await.unwrap();
    let watermark = Watermark { safe_time: instant(200), fence_lsn: Lsn::new(10) };
    feed.set_source(Arc::new(Empty { watermark, purged: None }));
    (feed, publisher)
}

/// One transaction of one change.
pub(crate) fn batch(n: u64, resource_type: ResourceType) -> Batch {
    let commit_lsn = Lsn::new(1000 + n * 10);
    let stamp = instant(1000 + i64::try_from(n).unwrap());
    let change = Change {
        position: Position { commit_lsn, ordinal: 0, part: 0 },
        stamp,
        resource_type,
        kind: Kind::Upsert,
        patients: Patients::none(),
        before: Before::Nothing,
        group_before: None,
        tick: None,
        data: format!("{n} {}", "x".repeat(1000)).into(),
    };
    let xid = u32::try_from(n).unwrap();
    let transactions = vec![Transaction { commit_lsn, xid, commit_time: stamp }];
    Batch { changes: vec![change], transactions, passed: Some(Lsn::new(1000 + n * 10 + 5)) }
}

/// The next item but for what is said of the log's end, which most tests do not look at.
pub(crate) async fn item(subscription: &mut Subscription) -> Item {
    loop {
        match any_item(subscription).await {
            Item::Notice(Notice::Stale { .. } | Notice::Fresh { .. }) => {}
            item => return item,
        }
    }
}

/// The next item.
pub(crate) async fn any_item(subscription: &mut Subscription) -> Item {
    // By the system's clock: a paused one runs ahead while the disk is at work.
    let begun = std::time::SystemTime::now();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(1), subscription.next()).await;
        let Ok(next) = next else {
            assert!(begun.elapsed().unwrap() < Duration::from_secs(60), "nothing came");
            continue;
        };
        match next.unwrap() {
            Item::Waiting(_) => {}
            item => return item,
        }
    }
}

pub(crate) async fn notice(subscription: &mut Subscription) -> Notice {
    match item(subscription).await {
        Item::Notice(notice) => notice,
        item => panic!("{item:?} instead of a notice"),
    }
}

/// Reads numbers until the last.
pub(crate) async fn numbers(subscription: &mut Subscription, last: u64) -> Vec<u64> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        if let Item::Frames(frames) = item(subscription).await {
            let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
            heard.extend(text.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()));
        }
    }
    heard
}
