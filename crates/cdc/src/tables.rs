//! The tables as a replay sees them: watermarks and pages, behind [`feed::Source`].

use crate::Settings;
use crate::check::Finding;
use crate::layout::{BadRows, OnBadRow, Pages, RowContext};
use crate::pages::PageContext;
use crate::wal_flush::WalFlush;
use crate::watermark::Watermarks;
use bytes::Bytes;
use feed::{Answer, Kind, Large, LargeRow, Page, PageRequest, PageRows, Sample, Source, SourceError};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The tables of a layout.
pub struct Tables {
    watermarks: Watermarks,
    pages: Box<dyn Pages>,
    rows: RowContext,
}

impl Tables {
    /// Begins to sample watermarks, every second until `shutdown`, and feeds them to `feed`. Never fails: while the database is
    /// away, or refuses, those who ask are told so.
    pub fn start(
        settings: &Settings,
        feed: feed::Feed,
        on_bad_row: OnBadRow,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let rows = RowContext {
            bad_rows: Arc::new(BadRows::new(on_bad_row)),
            base_urls: settings.base_urls.clone(),
            ..RowContext::default()
        };
        let wal_flush = WalFlush::default();
        let watermarks = Watermarks::start(
            settings.clone(),
            feed,
            wal_flush.clone(),
            Arc::clone(&rows.before_images),
            shutdown,
        );
        let context = PageContext { database: settings.database.clone(), wal_flush, rows: rows.clone() };
        Arc::new(Self { watermarks, pages: settings.layout.pages(context), rows })
    }

    /// What the decoder of the log shares with the pages: what cannot be streamed, and what the log lacks.
    pub fn context(&self) -> RowContext {
        self.rows.clone()
    }

    /// The rows that could not be streamed.
    pub fn bad_rows(&self) -> Arc<BadRows> {
        Arc::clone(&self.rows.bad_rows)
    }

    /// Why no replay can begin now, in a sentence for people: it may pass by itself.
    pub fn obstacle(&self) -> Option<String> {
        self.watermarks.failure()
    }

    /// Why no watermark can be taken until somebody mends it, in a sentence for people.
    pub fn refusal(&self) -> Option<String> {
        self.watermarks.refusal()
    }

    /// The facts that fail on which a complete replay depends, as they were when last looked at.
    pub fn failing_facts(&self) -> Vec<Finding> {
        self.watermarks.failing()
    }

    /// What streams of patients and Groups need and is lacking, as it was when last looked at: without it they are refused.
    pub fn lacking_for_patients(&self) -> Vec<Finding> {
        self.watermarks.lacking_for_patients()
    }

    /// Passes an answer on. A refusal may come of a fact that has begun to fail: that is looked at now, not in a minute.
    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let answer = answer.await;
        if matches!(answer, Err(SourceError::Refused(_))) {
            self.watermarks.suspect();
        }
        answer
    }

    /// How often the database's clock was seen to step back by more than 100 ms.
    pub fn clock_steps(&self) -> u64 {
        self.watermarks.clock_steps()
    }
}

impl Source for Tables {
    fn watermark(&self) -> Answer<'_, Sample> {
        Box::pin(self.watermarks.take())
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(self.watermarks.confirm())
    }

    fn estimates(&self, types: TypeSet) -> Answer<'_, Vec<(ResourceType, u64)>> {
        // Nothing depends on it: a refusal is no reason to suspect anything.
        self.pages.estimates(types)
    }

    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        mentions: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(self.answer(self.pages.present(since, types, mentions)))
    }

    fn knows_patients(&self) -> Answer<'_, ()> {
        Box::pin(self.watermarks.knows_patients())
    }

    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Bytes>> {
        Box::pin(self.answer(self.pages.group(id)))
    }

    fn are_most(&self, patients: usize) -> Answer<'_, bool> {
        Box::pin(self.answer(self.pages.are_most(patients)))
    }

    fn tick(&self) -> Answer<'_, ()> {
        Box::pin(self.answer(self.pages.tick()))
    }

    fn stored(&self, patients: Patients) -> Answer<'_, Patients> {
        Box::pin(self.answer(self.pages.stored(patients)))
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(self.answer(self.pages.tombstones_purged()))
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(self.answer(self.pages.page(request, rows)))
    }

    fn large(&self, resource_type: ResourceType, row: LargeRow) -> Answer<'_, Option<Large>> {
        Box::pin(self.answer(self.pages.large(resource_type, row)))
    }

    fn holding_back(&self) -> Option<String> {
        self.watermarks.holding_back()
    }
}
