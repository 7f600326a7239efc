//! Which steps are possible in a state, but for those of the world around.

use super::database::{Row, Transaction};
use super::subscriber::{self, Server};
use super::watermark::Sampler;
use super::{History, State, Step};
use crate::Bug;

impl History {
    /// Whether a page that was read may be sent: what it saw will not be undone.
    fn page_holds(&self, state: &State, page: subscriber::Page) -> bool {
        state.database.flushed >= page.seen
            || matches!(self.bug, Some(Bug::PageBeforeLogIsOnDisk | Bug::NothingWaitsForDisk))
    }

    /// Whether an insert that was stamped before it waited finds its key taken, or deleted since.
    fn refuses(&self, state: &State, row: Row) -> bool {
        self.early
            && state.database.visible(row.key).is_some_and(|(_, there)| {
                !there.deleted || (there.stamp >= row.stamp && !self.has_bug(Bug::DeletedBehindStamp))
            })
    }

    pub(super) fn transaction_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let transactions = &state.database.transactions;
        for (number, transaction) in transactions.iter().enumerate().take(self.transactions) {
            let free = |key: u8| state.database.free(key);
            let writes = |steps: &mut Vec<Step>, step: fn(usize, u8, bool) -> Step, locked: bool| {
                for key in (0..self.keys).filter(|key| locked || free(*key)) {
                    steps.push(step(number, key, false));
                    if self.deletions && state.database.visible(key).is_some_and(|(_, row)| !row.deleted) {
                        steps.push(step(number, key, true));
                    }
                }
            };
            match transaction {
                Transaction::Idle if number > 0 && transactions[number - 1] == Transaction::Idle => {}
                Transaction::Idle if self.slow => steps.push(Step::Begin(number)),
                Transaction::Idle => {
                    writes(steps, Step::Write, false);
                    if self.early {
                        steps.extend((0..self.keys).map(|key| Step::Stamp(number, key, false)));
                    }
                }
                Transaction::Begun if self.has_bug(Bug::StampBeforeTransactionId) => {
                    writes(steps, Step::Stamp, true);
                }
                Transaction::Begun => steps.push(Step::Identify(number)),
                Transaction::Identified if self.has_bug(Bug::StampBeforeLock) => {
                    writes(steps, Step::Stamp, true);
                }
                Transaction::Identified => writes(steps, Step::Write, false),
                Transaction::Stamped { row, .. } if free(row.key) && self.refuses(state, *row) => {
                    steps.push(Step::Refuse(number));
                }
                Transaction::Stamped { row, .. } if free(row.key) => {
                    steps.push(Step::Write(number, row.key, row.deleted));
                }
                Transaction::Written { .. } => steps.push(Step::Commit(number)),
                Transaction::Committed { lsn, .. } => {
                    if self.asynchronous || *lsn < state.database.flushed {
                        steps.push(Step::Appear(number));
                    }
                }
                Transaction::Stamped { .. } | Transaction::Visible { .. } | Transaction::Lost => {}
            }
        }
    }

    pub(super) fn sampler_steps(&self, state: &State, steps: &mut Vec<Step>) {
        match state.sampler {
            Sampler::Idle => {
                if state.feed.begins.is_some()
                    && (state.watermarks > 0 || state.subscriber.waits_for_watermark())
                {
                    let first = if self.has_bug(Bug::WritersBeforeClosing) {
                        Step::SampleWriters
                    } else {
                        Step::CloseTime
                    };
                    steps.push(first);
                    if self.lazy && state.feed.watermark.is_some() {
                        steps.push(Step::SampleWriters);
                    }
                }
            }
            Sampler::Closed { .. } => steps.push(Step::SampleWriters),
            Sampler::Writers { .. } => steps.push(Step::CloseTime),
            Sampler::Safe { .. } => steps.push(Step::SamplePlace),
            Sampler::Place { watermark } => {
                if state.database.flushed >= watermark.fence_lsn || self.has_bug(Bug::NothingWaitsForDisk) {
                    steps.push(Step::WatermarkHolds);
                }
            }
        }
    }

    pub(super) fn subscriber_steps(&self, state: &State, steps: &mut Vec<Step>) {
        match state.subscriber.server {
            // Before an epoch is known no id is judged.
            Server::Away if state.feed.begins.is_some() => {
                steps.push(Step::Connect);
                if self.since && state.subscriber.time.is_some() {
                    steps.push(Step::ConnectSince);
                }
            }
            Server::Pages { page: None, .. } => steps.push(Step::ReadPage),
            Server::Pages { page: Some(page), rounds, .. } if self.page_holds(state, page) => {
                steps.push(Step::SendPage(false));
                if page.row.is_none() && rounds > 0 {
                    steps.push(Step::SendPage(true));
                }
            }
            _ if state.subscriber.can_follow(&state.feed, self.bug) && state.feed.begins.is_some() => {
                steps.push(Step::Follow);
            }
            _ => {}
        }
        if state.cuts > 0 && state.subscriber.server != Server::Away {
            steps.push(Step::Cut);
        }
    }
}
