//! The ground floor: what FHIR says, without I/O and without async.
//!
//! Resource types, instants, the `$export` request and its filter, OperationOutcomes, and the text of a
//! resource as it is streamed. Everything above (`feed`, `cdc`, `sse-api`) speaks in these types. Read
//! [`Filter`] first.

pub mod canonical;
mod compartment;
mod cursor;
mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod identity;
mod instant;
mod line_breaks;
mod members;
mod notice;
mod outcome;
mod reference;
mod request;
mod resource;
mod resource_type;
mod scan;
mod stable_hash;
mod structure;

pub use compartment::{NotPatients, Patients, compartment_types};
pub use filter::{Compartment, Filter, Verdict};
pub use group::{GroupContent, UninterpretableGroup};
pub use identity::{deleted_id, stored_id};
pub use instant::{Instant, Interval, InvalidInstant};
pub use notice::NoticeCode;
pub use outcome::{Issue, IssueType, Outcome, Severity};
pub use reference::{BaseUrls, Reference};
pub use request::{ExportRequest, Handling, Level};
pub use resource::{
    BadResource, Columns, LargeResource, is_id, patients_of_resource, write_deletion, write_out_of_scope,
    write_resource, write_resource_with_patients,
};
pub use resource_type::{COUNT as RESOURCE_TYPES, ResourceType, TypeSet, UnknownResourceType};
pub use stable_hash::{stable_hash, stable_hash_after};
