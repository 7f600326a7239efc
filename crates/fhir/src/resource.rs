//! The text of a resource as it is streamed: the stored text with `id`, `meta.versionId` and
//! `meta.lastUpdated` set, spliced in as text, so that no decimal and no order of keys changes.

use crate::{Instant, ResourceType};

/// What the row's columns say of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The column `resource_type`.
    pub resource_type: ResourceType,
    /// The column `id`.
    pub id: &'a str,
    /// The column `version_id`.
    pub version_id: i64,
    /// The column `last_updated`.
    pub last_updated: Instant,
}

/// The row cannot be streamed. Says what is wrong, never what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadResource {
    /// The content is no JSON object.
    #[error("the content is not a JSON object")]
    NotAnObject,
    /// The content's `resourceType` is missing or is not the column's.
    #[error("the content's resourceType is not that of the row")]
    OtherType,
    /// The id breaks FHIR's rule: 1 to 64 letters, digits, '-' and '.'.
    #[error("the id is not a FHIR id (1 to 64 letters, digits, '-' and '.')")]
    InvalidId,
}

/// Appends the resource as it is streamed: one line. On an error nothing is appended.
pub fn write_resource(
    _content: &[u8],
    _columns: &Columns<'_>,
    _out: &mut Vec<u8>,
) -> Result<(), BadResource> {
    unimplemented!()
}

/// Appends the Bundle that tells of a deletion: one line. On an error nothing is appended.
/// It says the time, the type and the id, never the content.
pub fn write_deletion(_columns: &Columns<'_>, _out: &mut Vec<u8>) -> Result<(), BadResource> {
    unimplemented!()
}
