//! The URIs of what this service defines. They are part of the HTTP contract: clients compare them.
//!
//! FHIR R4 wants an absolute URI in `Coding.system`, `Extension.url` and an operation's definition,
//! and does not want it to resolve. `https:` would need a domain that the project owns for as long
//! as clients compare; a URL below the service's own base would differ in each installation; R4
//! reserves `urn:oid:` and `urn:uuid:` in `Coding.system` for entries of the HL7 OID registry.

/// A URI below the prefix that all of them share.
macro_rules! urn {
    ($name:literal) => {
        concat!("urn:fhir-tail:", $name)
    };
}

/// The CodeSystem of the tags of deletion Bundles: `deleted` and `out-of-scope`.
pub const DELETION_CODES: &str = urn!("deletion");

/// The CodeSystem of the notices, in `details.coding` of their OperationOutcomes.
pub const NOTICE_CODES: &str = urn!("notice");

/// The OperationDefinition of `$export` as a stream. Bulk Data's own `export` is asynchronous.
pub const EXPORT_OPERATION: &str = urn!("export");

/// The extension of `issue[0]` of the notice `live`: the instant to use as the next `_since`.
pub const TRANSACTION_TIME: &str = urn!("transaction-time");

/// The extension of `issue[0]` of the notice `position` that comes with the first page of a replay,
/// one for each type: within it `type` is the resource type, and `total` is about how many
/// resources of it there are.
pub const ESTIMATED_TOTAL: &str = urn!("estimated-total");
