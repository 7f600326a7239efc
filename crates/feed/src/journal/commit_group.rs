//! The batches that share one fsync.

use super::{BlockBuilder, Packed, State, is_large};
use crate::delivery::budget::Reservation;
use crate::{Anchor, Batch, Change};
use fhir::Instant;

const BLOCK_BYTES: usize = 64 << 10;

/// What is written with one fsync.
///
/// Each block is packed when it is full, not all of them before the fsync: a long run of work must not
/// keep the reader of the log off the processor.
pub(super) struct CommitGroup {
    pub(super) state: State,
    /// The hash of the transaction of the state's head.
    pub(super) head_transaction: u32,
    pub(super) blocks: Vec<Packed>,
    pub(super) builder: Option<BlockBuilder>,
    /// Of entries, as they came.
    pub(super) bytes: usize,
    /// The places in the queue of what is large.
    pub(super) places: Vec<Reservation>,
}

impl CommitGroup {
    pub(super) fn new(state: State) -> Self {
        let head_transaction = state.head_anchor().transaction;
        Self { state, head_transaction, blocks: Vec::new(), builder: None, bytes: 0, places: Vec::new() }
    }

    pub(super) fn add(&mut self, batch: &Batch, safe_time: Option<Instant>) {
        let mut transactions = batch.transactions.iter().peekable();
        let mut hash = 0;
        for (index, change) in batch.changes.iter().enumerate() {
            let commit_lsn = change.position.commit_lsn;
            while let Some(transaction) = transactions.next_if(|next| next.commit_lsn <= commit_lsn) {
                hash = transaction.hash32();
                if transaction.commit_lsn >= self.state.head.commit_lsn {
                    self.state.transaction = Some(*transaction);
                }
            }
            if change.position <= self.state.head {
                continue;
            }
            let safe_time = safe_time.unwrap_or(self.state.head_safe_time).max(self.state.head_safe_time);
            let commit_time =
                self.state.transaction.map_or(Instant::MIN, |transaction| transaction.commit_time);
            let large = is_large(change);
            if large {
                self.close();
            }
            let state = &self.state;
            let head = Anchor { position: state.head, transaction: self.head_transaction };
            let new = |room| BlockBuilder::new(head, state.running_max, state.offset, safe_time, room);
            if large {
                let room = BlockBuilder::length_of(change) - change.data.len();
                let block = new(room).large(change, hash, commit_time);
                self.add_block(block);
            } else {
                let builder = self.builder.get_or_insert_with(|| new(room(&batch.changes[index..])));
                builder.push(change, hash, commit_time);
            }
            (self.state.head, self.head_transaction) = (change.position, hash);
            self.state.head_safe_time = safe_time;
            self.state.running_max = self.state.running_max.max(change.stamp);
            if self.builder.as_ref().is_some_and(|builder| builder.len() >= BLOCK_BYTES) {
                self.close();
            }
        }
        if let Some(passed) = batch.passed {
            self.state.durable_lsn = self.state.durable_lsn.max(passed);
        }
    }

    fn add_block(&mut self, block: Packed) {
        self.bytes += block.header.length as usize;
        self.state.offset = block.header.offset;
        self.blocks.push(block);
    }

    /// Ends the block that is being built.
    pub(super) fn close(&mut self) {
        if let Some(block) = self.builder.take().and_then(BlockBuilder::finish) {
            self.add_block(block);
            // Only here is there a pause in what is done in one go: the log's reader may wait for the processor.
            std::thread::yield_now();
        }
    }
}

/// Bytes of a block that these changes fill, or end up in.
fn room(changes: &[Change]) -> usize {
    let mut room = 0;
    for change in changes {
        room += BlockBuilder::length_of(change);
        if room >= BLOCK_BYTES {
            break;
        }
    }
    room
}
