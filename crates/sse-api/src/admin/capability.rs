//! The CapabilityStatement.

use fhir::{Instant, ResourceType, canonical};
use serde_json::json;

/// The CapabilityStatement. Its operation is not Bulk Data's `export`, which is asynchronous.
pub(crate) fn capability_statement(base: &str, started: Instant) -> String {
    let operation = json!([{ "name": "export", "definition": canonical::EXPORT_OPERATION }]);
    let resources: Vec<_> =
        ResourceType::all().map(|kind| json!({ "type": kind.as_str(), "operation": operation })).collect();
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started.to_fhir(),
        "kind": "instance",
        "software": { "name": "fhir-tail", "version": env!("CARGO_PKG_VERSION") },
        "implementation": {
            "description": "Changes of FHIR resources as a stream of Server-Sent Events",
            "url": format!("{base}/fhir"),
        },
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{ "mode": "server", "resource": resources, "operation": operation }],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_statement_lists_every_type_with_the_operation() {
        let text = capability_statement("http://localhost:8080", Instant::from_unix_micros(0));
        let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(statement["implementation"]["url"], "http://localhost:8080/fhir");
        let rest = &statement["rest"][0];
        assert_eq!(rest["operation"][0]["definition"], canonical::EXPORT_OPERATION);
        let types: Vec<_> = rest["resource"].as_array().unwrap().iter().map(|r| &r["type"]).collect();
        assert_eq!(types.len(), fhir::RESOURCE_TYPES);
        assert!(types.iter().any(|kind| *kind == "Condition"));
    }
}
