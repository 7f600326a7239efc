//! What the publisher, the subscribers and the streams of Groups have in common.

use crate::delivery::budget::Budget;
use crate::delivery::count_guard::CountGuard;
use crate::delivery::subscription::ItemSender;
use crate::freshness::Freshness;
use crate::group::{GroupReads, MemberSets, SharedTransitions};
use crate::hub::Hub;
use crate::journal::{Durable, PastRuns, Reader};
use crate::replay::page_frames::BufferPool;
use crate::replay::page_permits::PagePermits;
use crate::replay::spill::Spills;
use crate::{Framing, Lsn, Pressure, Source, Watermark};
use fhir::{BaseUrls, Instant};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::watch;

/// Reported for a client that waits until the journal can be written again.
pub(crate) const UNWRITABLE: &str = "the journal cannot be written";

/// What publisher and subscribers share.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) journal: Reader,
    pub(crate) framing: Arc<dyn Framing>,
    pub(crate) base_urls: Arc<BaseUrls>,
    pub(crate) member_sets: MemberSets,
    pub(crate) group_reads: GroupReads,
    pub(crate) shared_transitions: SharedTransitions,
    /// For what comes from the hub and the journal ...
    pub(crate) budget: Budget,
    /// ... and for pages of the tables, so that slow replays keep nobody from following.
    pub(crate) page_budget: Budget,
    pub(crate) durable: watch::Receiver<Durable>,
    pub(crate) source: watch::Sender<Option<Arc<dyn Source>>>,
    /// Memory for the pages' frames.
    pub(crate) pool: BufferPool,
    /// Limits how many pages of the tables are read at the same time.
    pub(crate) page_permits: PagePermits,
    /// Large rows of the tables.
    pub(crate) spills: Spills,
    /// On those who hold what others wait for.
    pub(crate) pressure: Pressure,
    /// The runs that have ended.
    pub(crate) past: PastRuns,
    pub(crate) watermarks: watch::Sender<Option<(u64, Watermark)>>,
    pub(crate) freshness: Mutex<Freshness>,
    /// The greatest fence LSN of a watermark that pages wait for, with the run that they are read in.
    pub(crate) paged: watch::Sender<(u64, Lsn)>,
    /// Replays that wait for the journal, which cannot be written.
    pub(crate) waiting_for_journal: AtomicUsize,
    /// See [`crate::Feed::visible_until`]; with the epoch.
    pub(crate) visible_until: Mutex<Option<(u64, Instant)>>,
    /// False while another process follows the database.
    pub(crate) is_leader: watch::Sender<bool>,
}

impl Shared {
    /// Waits until everything that was committed before the LSN is in the journal, on disk.
    pub(crate) async fn until_durable(&self, fence_lsn: Lsn) {
        let mut durable = self.durable.clone();
        if durable.wait_for(|durable| durable.lsn >= fence_lsn).await.is_err() {
            // The journal's thread has ended: the process ends, too.
            std::future::pending::<()>().await;
        }
    }

    /// Has the journal record that pages are read up to this fence LSN, and waits until that is on disk.
    /// After a restart it proves that an id with this LSN is of this history. Returns false if the run
    /// has ended meanwhile: then no page may be sent in it.
    pub(crate) async fn record_pages(&self, out: &ItemSender, run: u64, fence_lsn: Lsn) -> bool {
        self.paged.send_if_modified(|(of, greatest)| {
            // A run that has ended must not replace the record that a newer run waits for.
            let more = self.durable.borrow().run == run && (*of != run || *greatest < fence_lsn);
            if more {
                (*of, *greatest) = (run, fence_lsn);
            }
            more
        });
        let mut durable = self.durable.clone();
        let mut waiting = None;
        loop {
            let Durable { run: current, paged, failing, .. } = *durable.borrow_and_update();
            if current != run || paged >= fence_lsn {
                return current == run;
            }
            if failing && waiting.is_none() {
                waiting = Some(CountGuard::new(&self.waiting_for_journal));
                out.report_waiting(UNWRITABLE.into()).await;
            }
            if durable.changed().await.is_err() {
                // The journal's thread has ended: the process ends, too.
                std::future::pending::<()>().await;
            }
        }
    }
}
