//! A follower of a test's own: `run_into` with a sink that remembers, in place of the feed.

use super::{LONG, eventually};
use cdc::layout::{Layout, LayoutError, Pages, RowContext, RowDecoder, Stamps};
use cdc::pages::PageContext;
use cdc::{Epoch, LogEnds, RunError, Settings, Sink, SourceStatus, TableName, run_into};
use feed::{Batch, Before, Change, Kind, Lsn, Origin, Position, PublishError};
use fhir::{Instant, Patients, ResourceType};
use pg::pgoutput::{Column, Relation, Row};
use pg::{Database, Encoding};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the journal would hold: kept from one run to the next.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) epochs: Vec<Epoch>,
    /// What has come, once each, with the epoch that it came in.
    pub(crate) changes: Vec<Change>,
    pub(crate) batches: usize,
    pub(crate) largest_batch: usize,
    acknowledged: Lsn,
    /// Everything before it has come.
    pub(crate) passed: Lsn,
    /// Where the log ended when that was last looked at.
    pub(crate) log_ended: Lsn,
    /// Whether subscribers are served.
    pub(crate) leads: bool,
    /// What was published may not exist any more: `fhir-tail restored` was run, or a fork was seen.
    pub(crate) tainted: bool,
    /// Errors to be returned by the next publishings.
    pub(crate) errors: Vec<PublishError>,
    /// Errors to be returned by the next beginnings of epochs.
    pub(crate) epoch_errors: Vec<PublishError>,
}

/// A sink like the feed.
pub(crate) struct Remembering {
    journal: Arc<Mutex<Journal>>,
    durable: watch::Sender<Lsn>,
    /// Publishing waits while there are no permits.
    gate: Arc<Semaphore>,
    /// Whether what is published becomes durable.
    syncs: bool,
}

impl Remembering {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap()
    }
}

impl Sink for Remembering {
    fn origin(&self) -> Option<Origin> {
        self.journal().epochs.last().map(|epoch| epoch.origin.clone())
    }

    fn tainted(&self) -> bool {
        self.journal().tainted
    }

    async fn taint(&mut self) -> Result<(), PublishError> {
        let mut journal = self.journal();
        journal.tainted |= !journal.epochs.is_empty();
        Ok(())
    }

    fn durable_lsn(&self) -> Lsn {
        self.journal().acknowledged
    }

    fn reached(&self) -> Lsn {
        let journal = self.journal();
        let head = journal.changes.last().map_or(Lsn::ZERO, |change| change.position.commit_lsn);
        head.max(journal.passed)
    }

    fn durable(&self) -> watch::Receiver<Lsn> {
        self.durable.subscribe()
    }

    fn log_ends(&self) -> LogEnds {
        let journal = self.journal.clone();
        Box::new(move |_, end| journal.lock().unwrap().log_ended = end)
    }

    fn set_leader(&mut self, leads: bool) {
        self.journal().leads = leads;
    }

    fn resume(&mut self, _: Lsn) {}

    async fn reopened(&self) {
        std::future::pending::<()>().await;
    }

    async fn writable(&self) {
        drop(self.gate.acquire().await.unwrap());
    }

    async fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), PublishError> {
        let mut journal = self.journal();
        if let Some(error) = journal.epoch_errors.pop() {
            return Err(error);
        }
        journal.tainted = false;
        journal.acknowledged = epoch.start;
        journal.passed = epoch.start;
        self.durable.send_replace(epoch.start);
        journal.epochs.push(epoch);
        Ok(())
    }

    async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        let mut journal = self.journal();
        if let Some(error) = journal.errors.pop() {
            return Err(error);
        }
        journal.batches += 1;
        journal.largest_batch = journal.largest_batch.max(batch.changes.len());
        for change in batch.changes {
            assert!(
                batch.transactions.iter().any(|named| named.commit_lsn == change.position.commit_lsn),
                "a change of a transaction that the batch does not name"
            );
            // As the feed does: what comes again is dropped.
            if journal.changes.last().is_none_or(|last| last.position < change.position) {
                assert!(change.position.commit_lsn >= journal.passed, "a change from before what was passed");
                journal.changes.push(change);
            }
        }
        if let Some(passed) = batch.passed {
            journal.passed = journal.passed.max(passed);
            if self.syncs {
                journal.acknowledged = journal.passed;
                self.durable.send_replace(journal.passed);
            }
        }
        Ok(())
    }
}

/// Rows of `t.doc` as changes: `id body`, the operation in front.
struct Docs;

/// One table, of which only the log is followed.
#[derive(Debug)]
struct DocTable([TableName; 1]);

impl Layout for DocTable {
    type Decoder = Docs;

    fn tables(&self) -> &[TableName] {
        &self.0
    }

    fn decoder(&self, _: RowContext) -> Docs {
        Docs
    }

    fn pages(&self, _: PageContext) -> Box<dyn Pages> {
        unreachable!("nothing is replayed")
    }

    fn stamps(&self) -> &dyn Stamps {
        unreachable!("no watermark is taken")
    }

    fn service_role(&self) -> &str {
        "postgres"
    }
}

impl RowDecoder for Docs {
    fn encoding(&mut self, _: Arc<Encoding>) {}

    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        match relation.columns.iter().any(|column| column.name == "body") {
            true => Ok(()),
            false => Err(LayoutError::Table(format!("table {} has no column body: add it", relation.name))),
        }
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let tuple = row.new.or(row.old).unwrap();
        let mut data = format!("{:?}", row.op).into_bytes();
        for column in tuple.columns() {
            data.push(b' ');
            match column {
                Column::Text(text) => data.extend_from_slice(text),
                other => data.extend_from_slice(format!("{other:?}").as_bytes()),
            }
        }
        out.push(Change {
            position,
            stamp: Instant::MIN,
            resource_type: ResourceType::BUNDLE,
            kind: Kind::Upsert,
            patients: Patients::none(),
            before: Before::Nothing,
            group_before: None,
            tick: None,
            data: data.into(),
        });
        Ok(())
    }

    fn truncated(&mut self, _: &[u32]) -> Result<(), LayoutError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LayoutError> {
        Ok(())
    }

    fn restart(&mut self) {}
}

/// A run of `run_into`.
pub(crate) struct Follower {
    pub(crate) journal: Arc<Mutex<Journal>>,
    pub(crate) status: watch::Receiver<SourceStatus>,
    pub(crate) gate: Arc<Semaphore>,
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), RunError>>,
}

impl Follower {
    /// Follows `t.doc` into a new journal.
    pub(crate) fn new(database: Database) -> Self {
        Self::resume(database, Arc::default())
    }

    /// Follows into a journal that there is.
    pub(crate) fn resume(database: Database, journal: Arc<Mutex<Journal>>) -> Self {
        Self::spawn(database, journal, true, u64::MAX)
    }

    /// Follows into a journal on a disk that never syncs.
    pub(crate) fn without_sync(database: Database) -> Self {
        Self::spawn(database, Arc::default(), false, u64::MAX)
    }

    /// As without sync, where the database may keep this much log for it.
    pub(crate) fn without_sync_and_with_at_most(max_wal_held: u64, database: Database) -> Self {
        Self::spawn(database, Arc::default(), false, max_wal_held)
    }

    fn spawn(database: Database, journal: Arc<Mutex<Journal>>, syncs: bool, max_wal_held: u64) -> Self {
        let settings = Settings {
            database,
            slot: "fhir_tail".parse().unwrap(),
            publication: "docs".to_owned(),
            layout: Arc::new(DocTable([TableName::new("t", "doc")])),
            max_wal_held,
            base_urls: fhir::BaseUrls::default(),
        };
        let acknowledged = journal.lock().unwrap().acknowledged;
        let gate = Arc::new(Semaphore::new(1));
        let mut sink = Remembering {
            journal: journal.clone(),
            durable: watch::Sender::new(acknowledged),
            gate: gate.clone(),
            syncs,
        };
        let (sender, status) = watch::channel(SourceStatus::default());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let run =
            tokio::spawn(async move { run_into(settings, Box::new(Docs), &mut sink, sender, token).await });
        Self { journal, status, gate, shutdown, run }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap()
    }

    /// Waits until the stream has begun.
    pub(crate) async fn connected(&mut self) {
        self.wait("a connection", |status| status.connected).await;
    }

    /// Waits for a status.
    pub(crate) async fn wait(&mut self, what: &str, done: impl FnMut(&SourceStatus) -> bool) -> SourceStatus {
        let waiting = async { self.status.wait_for(done).await.map(|status| status.clone()) };
        match tokio::time::timeout(LONG, waiting).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => panic!("ended before {what}: {:?}", self.status.borrow().clone()),
            Err(_) => panic!("never came: {what}; {:?}", self.status.borrow().clone()),
        }
    }

    /// Waits until as many changes have come, and returns what they say.
    pub(crate) async fn changes(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} changes"), || async {
            let journal = self.journal();
            (journal.changes.len() >= count).then(|| {
                journal
                    .changes
                    .iter()
                    .map(|change| String::from_utf8_lossy(&change.data).into_owned())
                    .collect()
            })
        })
        .await
    }

    /// Stops it in good order, and gives back the journal.
    pub(crate) async fn stop(self) -> Arc<Mutex<Journal>> {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.run).await.expect("it does not stop").unwrap().unwrap();
        self.journal
    }

    /// Waits until it gives up.
    pub(crate) async fn given_up(self) -> RunError {
        tokio::time::timeout(LONG, self.run).await.expect("it goes on").unwrap().unwrap_err()
    }
}
