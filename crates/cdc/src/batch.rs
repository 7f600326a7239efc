//! Messages of pgoutput into batches of changes.
//!
//! A batch ends where the input is drained or where it is large, in the middle of a transaction if need
//! be, so that memory does not grow with the transaction. Positions are counted here, before any mapping.

use crate::layout::{LayoutError, RowDecoder};
use feed::{Batch, Change, Lsn, Position, Transaction};
use fhir::Instant;
use pg::Encoding;
use pg::pgoutput::{DecodeError, Message};
use pg::replication::Event;
use std::sync::Arc;

/// A batch of this many bytes or changes is published before more is read ...
const FULL_BYTES: usize = 256 * 1024;
const FULL_CHANGES: usize = 1_000;
/// ... and nothing else is kept waiting for longer than this many messages, whatever they yield.
const FULL_MESSAGES: usize = 4_000;

/// What came in cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("the stream of changes cannot be read")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the stream of changes has {0}")]
    Order(&'static str),
}

/// Makes batches.
pub(crate) struct Assembler {
    layout: Box<dyn RowDecoder>,
    open: Option<Open>,
    batch: Batch,
    bytes: usize,
    messages: usize,
    /// The last place that a batch has said to be passed.
    passed: Lsn,
}

/// The transaction whose messages come in.
struct Open {
    transaction: Transaction,
    /// How many row messages it has had.
    ordinal: u64,
    /// Whether it had a tick. Another would say the same, and anybody may write millions.
    ticked: bool,
}

impl Assembler {
    pub(crate) fn new(layout: Box<dyn RowDecoder>) -> Self {
        Self { layout, open: None, batch: Batch::default(), bytes: 0, messages: 0, passed: Lsn::ZERO }
    }

    /// Text is in this encoding from now on.
    pub(crate) fn encoding(&mut self, encoding: Arc<Encoding>) {
        self.layout.encoding(encoding);
    }

    /// Forgets the transaction that was cut off: a new stream sends it again from its start.
    pub(crate) fn restart(&mut self) {
        self.open = None;
        self.passed = Lsn::ZERO;
        self.layout.restart();
        drop(self.take());
    }

    /// Takes in what the stream yields.
    pub(crate) fn push(&mut self, event: &Event) -> Result<(), BatchError> {
        self.messages += 1;
        match event {
            Event::Message(bytes) => self.message(Message::decode(bytes)?),
            // In the middle of a transaction the server may have read beyond its end already.
            Event::Keepalive(lsn) => {
                if self.open.is_none() {
                    self.pass(*lsn);
                }
                Ok(())
            }
        }
    }

    fn message(&mut self, message: Message<'_>) -> Result<(), BatchError> {
        match message {
            Message::Begin(begin) => {
                if self.open.is_some() {
                    return Err(BatchError::Order("a transaction that begins within another"));
                }
                let transaction = Transaction {
                    commit_lsn: begin.commit_lsn,
                    xid: begin.xid,
                    commit_time: Instant::from_postgres(begin.commit_time.0),
                };
                self.open = Some(Open { transaction, ordinal: 0, ticked: false });
            }
            Message::Commit(commit) => {
                let open = self.open.take();
                if open.is_none_or(|open| open.transaction.commit_lsn != commit.commit_lsn) {
                    return Err(BatchError::Order("an end of a transaction that did not begin"));
                }
                self.layout.commit()?;
                self.pass(commit.end_lsn);
            }
            Message::Row(row) => {
                let (position, transaction) = self.next_position()?;
                let before = self.batch.changes.len();
                self.layout.row(&row, position, &mut self.batch.changes)?;
                let changes = self.batch.changes.get(before..).unwrap_or_default();
                if !changes.is_empty() {
                    self.bytes += changes.iter().map(|change| change.data.len()).sum::<usize>();
                    if self.batch.transactions.last() != Some(&transaction) {
                        self.batch.transactions.push(transaction);
                    }
                }
            }
            Message::Truncate(truncate) => {
                self.next_position()?;
                tracing::error!(
                    tables = truncate.relation_ids.len(),
                    "a published table was truncated: no subscriber can be told what is gone; \
                     delete rows instead"
                );
                self.layout.truncated(&truncate.relation_ids)?;
            }
            Message::Relation(relation) => self.layout.relation(&relation)?,
            Message::Emitted(emitted) if crate::tick::is_tick(&emitted) => {
                if self.open.as_mut().is_some_and(|open| std::mem::replace(&mut open.ticked, true)) {
                    return Ok(());
                }
                let (position, transaction) = self.next_position()?;
                // Its own text is of anybody who may write to the log; when a transaction was committed only the server says.
                self.batch.changes.push(Change::tick(position, transaction.commit_time));
                if self.batch.transactions.last() != Some(&transaction) {
                    self.batch.transactions.push(transaction);
                }
            }
            Message::Origin(_) | Message::Type(_) | Message::Emitted(_) => {}
        }
        Ok(())
    }

    /// The position of the row message that has just come, and its transaction.
    fn next_position(&mut self) -> Result<(Position, Transaction), BatchError> {
        let open = self.open.as_mut().ok_or(BatchError::Order("a row outside of any transaction"))?;
        let position = Position { commit_lsn: open.transaction.commit_lsn, ordinal: open.ordinal, part: 0 };
        open.ordinal += 1;
        Ok((position, open.transaction))
    }

    fn pass(&mut self, lsn: Lsn) {
        if lsn > self.passed {
            self.passed = lsn;
            self.batch.passed = Some(lsn);
        }
    }

    /// Whether the batch has to go before more is read.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES || self.batch.changes.len() >= FULL_CHANGES || self.messages >= FULL_MESSAGES
    }

    /// How many messages were taken in since the last batch.
    pub(crate) const fn messages(&self) -> usize {
        self.messages
    }

    /// The batch, if there is anything to publish.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        self.bytes = 0;
        self.messages = 0;
        let batch = std::mem::take(&mut self.batch);
        (!batch.changes.is_empty() || batch.passed.is_some()).then_some(batch)
    }
}

#[cfg(test)]
mod tests;
