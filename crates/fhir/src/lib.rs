//! What FHIR defines, without I/O and without async.
//!
//! Resource types, instants, the `$export` request and its filter, OperationOutcomes, and the text of a
//! resource as it is streamed. The crates above (`feed`, `cdc`, `sse-api`) use these types. Read
//! [`Filter`] first.
//!
//! A request becomes a filter, or an OperationOutcome with everything that is wrong:
//!
//! ```
//! use fhir::{ExportRequest, Handling, Level, ResourceType};
//!
//! let parameters = [("_type", "Patient,Condition"), ("_since", "2026-01-01T00:00:00Z")];
//! let request = ExportRequest::parse(Level::System, parameters, Handling::Strict).unwrap();
//! assert!(request.filter.types.contains(ResourceType::PATIENT));
//!
//! let outcome = ExportRequest::parse(Level::System, [("_type", "Person,Widget")], Handling::Strict);
//! assert!(outcome.unwrap_err().to_json().contains("not a resource type of FHIR R4: Widget"));
//! ```
//!
//! A stored resource is streamed as one line, with `id` and `meta` from its row:
//!
//! ```
//! use fhir::{Columns, Instant, ResourceType, write_resource};
//!
//! let columns = Columns {
//!     resource_type: ResourceType::PATIENT,
//!     id: "p1",
//!     version_id: 7,
//!     last_updated: Instant::from_unix_micros(1_700_000_000_000_000),
//! };
//! let mut out = Vec::new();
//! write_resource(b"{ \"resourceType\": \"Patient\",\n  \"active\": true }", &columns, &mut out)?;
//! let text = String::from_utf8(out).unwrap();
//! assert!(text.contains(r#""versionId":"7""#) && !text.contains('\n'));
//! # Ok::<_, fhir::BadResource>(())
//! ```

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
