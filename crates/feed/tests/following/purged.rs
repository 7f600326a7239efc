//! Deletions that can no longer be told.

use crate::fixtures::{Empty, instant, notice, numbers, open, row};
use feed::{Answer, Begin, Kind, Lsn, Notice, Page, PageRequest, PageRows, Sample, Source, Watermark};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn purged_deletions_are_a_reset_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    let watermark = Watermark { safe_time: instant(500), fence_lsn: Lsn::new(10) };
    feed.set_source(Arc::new(Empty { watermark, purged: Some(instant(300)) }));
    let mut late = feed.subscribe(Filter::everything(), Begin::Since(Some(instant(299))));
    assert!(matches!(notice(&mut late).await, Notice::ResetAll { .. }));
    let mut early = feed.subscribe(Filter::everything(), Begin::Since(Some(instant(300))));
    assert!(matches!(notice(&mut early).await, Notice::Live { .. }));
}

/// Tables of one type with two pages, whose tombstones may be purged at any time.
#[derive(Clone)]
pub(crate) struct TwoPages {
    /// Of its watermark.
    fence_lsn: Lsn,
    purged: Arc<std::sync::Mutex<Option<Instant>>>,
}

impl Default for TwoPages {
    fn default() -> Self {
        Self::with_fence(Lsn::new(10))
    }
}

impl TwoPages {
    pub(crate) fn with_fence(fence_lsn: Lsn) -> Self {
        Self { fence_lsn, purged: Arc::default() }
    }

    fn purged_up_to(&self, stamp: Instant) {
        *self.purged.lock().unwrap() = Some(stamp);
    }
}

impl Source for TwoPages {
    fn watermark(&self) -> Answer<'_, Sample> {
        let watermark = Watermark { safe_time: instant(500), fence_lsn: self.fence_lsn };
        let (taken, tombstones_purged) = (tokio::time::Instant::now(), *self.purged.lock().unwrap());
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged }) })
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

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        let purged = *self.purged.lock().unwrap();
        Box::pin(async move { Ok(purged) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        let n = if request.after.is_none() { 1 } else { 2 };
        row(rows, instant(400 + n), &n.to_string(), &format!("{n} row"));
        let next = (n == 1).then(|| (instant(400 + n), n.to_string().into()));
        Box::pin(async { Ok(Page { next, expected: Some(1), large: None }) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

/// Tombstones are purged while the pages are read, or between a cut and the coming back: what the purge has taken from the
/// client's span cannot be told, so that all of it comes, and what does not is to be dropped.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_purged_while_they_were_on_their_way_are_a_reset_of_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, _publisher) = open(directory.path(), 1 << 20).await;
    for (purged, all) in [(299, false), (300, false), (301, true), (450, true)] {
        for resumed in [false, true] {
            let source = TwoPages::default();
            feed.set_source(Arc::new(source.clone()));
            let since = Some(instant(300));
            let mut reader = feed.subscribe(Filter::everything(), Begin::Since(since));
            assert_eq!(numbers(&mut reader, 1).await, [1]);
            source.purged_up_to(instant(purged));
            if resumed {
                let after = Begin::After { id: Some(reader.id()), since };
                reader = feed.subscribe(Filter::everything(), after);
            }
            assert_eq!(numbers(&mut reader, 2).await, [2]);
            let told = notice(&mut reader).await;
            if all {
                assert!(matches!(told, Notice::ResetAll { .. }), "{purged}: {told:?}");
                assert_eq!(numbers(&mut reader, 2).await, [1, 2], "all of it again");
                assert!(matches!(notice(&mut reader).await, Notice::Live { .. }));
            } else {
                assert!(matches!(told, Notice::Live { .. }), "{purged}: {told:?}");
            }
        }
    }
}
