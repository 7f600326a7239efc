//! What is to be written, in batches: each one transaction of the database.

use fhir::ResourceType;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;

/// A batch is full at so many operations ...
pub(super) const BATCH: usize = 1_000;

/// ... or at so many bytes.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Where in the input something stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    pub(super) file: Arc<str>,
    pub(super) line: u64,
    /// The number of the entry, in a Bundle that begins in that line.
    pub(super) entry: Option<usize>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        self.entry.map_or(Ok(()), |entry| write!(f, ": entry {entry}"))
    }
}

/// One resource to be written or deleted.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) origin: Origin,
    /// Operations with the same number stay together: those of one transaction Bundle.
    pub(super) unit: u64,
    pub(super) resource_type: ResourceType,
    pub(super) id: String,
    /// `None`: it is deleted.
    pub(super) content: Option<String>,
}

/// What tells a resource from all others.
pub(super) type Key<'a> = (ResourceType, &'a str);

impl Operation {
    pub(super) fn key(&self) -> Key<'_> {
        (self.resource_type, &self.id)
    }
}

/// A batch, or a piece of one that is too large to be sent whole.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) operations: Vec<Operation>,
    /// Whether the transaction ends with it.
    pub(super) last: bool,
}

/// The database takes nothing any more.
#[derive(Debug)]
pub(super) struct Gone;

/// Fills batches and hands them on. What is not complete when it is dropped is not written.
pub(super) struct Batches {
    sender: Sender<Piece>,
    operations: Vec<Operation>,
    bytes: usize,
    /// The number of the unit that is being read, counted from 1; each other operation is one by itself.
    unit: u64,
    in_unit: bool,
    /// Whether a piece of the transaction has been handed on.
    begun: bool,
}

impl Batches {
    pub(super) fn new(sender: Sender<Piece>) -> Self {
        Self { sender, operations: Vec::new(), bytes: 0, unit: 0, in_unit: false, begun: false }
    }

    /// Adds one; its unit is set here.
    pub(super) fn push(&mut self, mut operation: Operation) -> Result<(), Gone> {
        if !self.in_unit {
            self.unit += 1;
        }
        operation.unit = self.unit;
        self.bytes += operation.content.as_ref().map_or(0, String::len);
        self.operations.push(operation);
        if self.operations.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.hand_on(!self.in_unit)?;
        }
        Ok(())
    }

    /// What is pushed until [`end_unit`](Self::end_unit) stays in one transaction: so many operations at most.
    pub(super) fn begin_unit(&mut self, operations: usize) -> Result<(), Gone> {
        if !self.operations.is_empty() && self.operations.len() + operations > BATCH {
            self.hand_on(true)?;
        }
        self.unit += 1;
        self.in_unit = true;
        Ok(())
    }

    /// The unit is complete.
    pub(super) fn end_unit(&mut self) -> Result<(), Gone> {
        self.in_unit = false;
        // A transaction that has begun ends with what it was begun for.
        if self.begun { self.hand_on(true) } else { Ok(()) }
    }

    /// Hands on what is left.
    pub(super) fn finish(mut self) -> Result<(), Gone> {
        if self.operations.is_empty() { Ok(()) } else { self.hand_on(true) }
    }

    fn hand_on(&mut self, last: bool) -> Result<(), Gone> {
        self.bytes = 0;
        self.begun = !last;
        let piece = Piece { operations: std::mem::take(&mut self.operations), last };
        self.sender.blocking_send(piece).map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(content: usize) -> Operation {
        Operation {
            origin: Origin { file: Arc::from("f"), line: 1, entry: None },
            unit: 0,
            resource_type: ResourceType::PATIENT,
            id: "a".to_owned(),
            content: Some("x".repeat(content)),
        }
    }

    /// The pieces that come of this: how many operations each has, and whether it is the last.
    fn pieces(fill: impl FnOnce(&mut Batches)) -> Vec<(usize, bool)> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        let mut batches = Batches::new(sender);
        fill(&mut batches);
        batches.finish().unwrap();
        std::iter::from_fn(|| receiver.blocking_recv())
            .map(|piece| (piece.operations.len(), piece.last))
            .collect()
    }

    fn push(batches: &mut Batches, count: usize) {
        (0..count).for_each(|_| batches.push(operation(1)).unwrap());
    }

    #[test]
    fn a_batch_ends_at_a_number_or_a_size() {
        assert_eq!(pieces(|batches| push(batches, 2 * BATCH + 1)), [(BATCH, true), (BATCH, true), (1, true)]);
        assert_eq!(pieces(|batches| push(batches, BATCH)), [(BATCH, true)]);
        let large =
            |batches: &mut Batches| (0..3).for_each(|_| batches.push(operation(BATCH_BYTES / 2)).unwrap());
        assert_eq!(pieces(large), [(2, true), (1, true)]);
        assert_eq!(pieces(|_| {}), []);
    }

    #[test]
    fn a_unit_is_never_split_over_transactions() {
        let unit = |batches: &mut Batches, count: usize| {
            batches.begin_unit(count).unwrap();
            push(batches, count);
            batches.end_unit().unwrap();
        };
        assert_eq!(
            pieces(|batches| {
                unit(batches, 600);
                unit(batches, 600);
                unit(batches, 2 * BATCH + 5);
                push(batches, 3);
            }),
            [(600, true), (600, true), (BATCH, false), (BATCH, false), (5, true), (3, true)]
        );
        // The end falls on the end of a piece.
        assert_eq!(pieces(|batches| unit(batches, BATCH)), [(BATCH, false), (0, true)]);
        assert_eq!(pieces(|batches| unit(batches, 0)), []);
    }

    #[test]
    fn what_is_not_finished_is_not_handed_on() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let mut batches = Batches::new(sender);
        push(&mut batches, 5);
        drop(batches);
        assert!(receiver.blocking_recv().is_none());
    }
}
