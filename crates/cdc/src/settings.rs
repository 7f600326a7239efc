//! What to follow, as every part of this crate is told.

use crate::SlotName;
use crate::layout::Layout;
use pg::Database;
use std::sync::Arc;

/// What is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub database: Database,
    /// The slot, made if it is missing.
    pub slot: SlotName,
    /// The publication, made if it is missing and the role may.
    pub publication: String,
    /// What is known of the tables.
    pub layout: Arc<dyn Layout>,
    /// The database keeps at most this many bytes of log for us, about. Beyond that its disk comes first: the slot is
    /// given up, and what it held is not read any more, so that subscribers are reset.
    pub max_wal_held: u64,
    /// The URLs below which the resources of this database stand: an absolute reference that begins with one of them names
    /// one of them.
    pub base_urls: fhir::BaseUrls,
}
