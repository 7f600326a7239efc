//! The canonical URLs of what we define ourselves. They are part of the contract: clients compare them.

/// A URL below the one base that all of ours share.
macro_rules! ours {
    ($path:literal) => {
        concat!("https://fhir-tail.dev/", $path)
    };
}

/// The CodeSystem of the tags of deletion Bundles: `deleted` and `out-of-scope`.
pub const DELETION_CODES: &str = ours!("CodeSystem/deletion");

/// The CodeSystem of the notices, in `details.coding` of their OperationOutcomes.
pub const NOTICE_CODES: &str = ours!("CodeSystem/notice");

/// The OperationDefinition of `$export` as it is here: a stream. Bulk Data's own `export` is asynchronous.
pub const EXPORT_OPERATION: &str = ours!("OperationDefinition/export");

/// The extension of `issue[0]` of the notice `live`: the instant to use as the next `_since`.
pub const TRANSACTION_TIME: &str = ours!("StructureDefinition/transaction-time");

/// The extension of `issue[0]` of the notice `position` that comes with the first page of a replay, one for each type: within it
/// `type` is the resource type, and `total` about how many resources of it there are.
pub const ESTIMATED_TOTAL: &str = ours!("StructureDefinition/estimated-total");
