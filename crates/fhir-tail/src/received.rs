//! How many changes came in, by type: counted where rows become changes, for the metrics.

use cdc::layout::{LayoutError, RowDecoder};
use feed::{Change, Position};
use fhir::{RESOURCE_TYPES, ResourceType};
use pg::Encoding;
use pg::pgoutput::{Relation, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters. What is decoded again after a lost connection counts again: it was received again.
#[derive(Clone)]
pub(crate) struct Received(Arc<[AtomicU64; RESOURCE_TYPES]>);

impl Received {
    pub(crate) fn new() -> Self {
        Self(Arc::new([const { AtomicU64::new(0) }; RESOURCE_TYPES]))
    }

    /// The types that were seen, with their numbers.
    pub(crate) fn by_type(&self) -> Vec<(ResourceType, u64)> {
        ResourceType::all()
            .map(|of| (of, self.0[of.index()].load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// A decoder whose changes are counted.
pub(crate) struct Counting<D> {
    decoder: D,
    received: Received,
}

impl<D> Counting<D> {
    pub(crate) fn new(decoder: D, received: Received) -> Self {
        Self { decoder, received }
    }
}

impl<D: RowDecoder> RowDecoder for Counting<D> {
    fn encoding(&mut self, encoding: Arc<Encoding>) {
        self.decoder.encoding(encoding);
    }

    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        self.decoder.relation(relation)
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let before = out.len();
        let result = self.decoder.row(row, position, out);
        for change in out.iter().skip(before) {
            self.received.0[change.resource_type.index()].fetch_add(1, Relaxed);
        }
        result
    }

    fn truncated(&mut self, relation_ids: &[u32]) -> Result<(), LayoutError> {
        self.decoder.truncated(relation_ids)
    }

    fn commit(&mut self) -> Result<(), LayoutError> {
        self.decoder.commit()
    }

    fn restart(&mut self) {
        self.decoder.restart();
    }
}
