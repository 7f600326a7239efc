//! One resource of the input: is it JSON, what is it, and what is its id.

use fhir::ResourceType;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Why something cannot be loaded. Never shows what it holds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error(transparent)]
    Document(#[from] super::document::Broken),
    #[error("not valid UTF-8")]
    NoUtf8,
    #[error("not valid JSON, at line {line} column {column} of it")]
    NoJson { line: usize, column: usize },
    #[error("no resourceType: only FHIR resources can be loaded")]
    NoType,
    #[error("its resourceType is not one of FHIR R4")]
    OtherType,
    #[error("no id: give it one (in a Bundle a fullUrl of urn:uuid:… will do)")]
    NoId,
    #[error("its id is not a FHIR id (a string of 1 to 64 letters, digits, '-' and '.')")]
    InvalidId,
    #[error("larger than 64 MiB: no resource is")]
    TooLarge,
    #[error(
        "a Bundle without a type: say in 'type' whether it is a transaction, a batch, a collection or a searchset"
    )]
    NoBundleType,
    #[error("a Bundle of this type is not for loading: transaction, batch, collection and searchset are")]
    OtherBundle,
    #[error("the Bundle's entries are not as FHIR has them, at line {line} column {column} of it")]
    Entries { line: usize, column: usize },
    #[error("the entry has neither a resource nor a request that deletes one")]
    NothingToDo,
    #[error("a request of this method cannot be loaded: PUT, POST and DELETE can")]
    Method,
    #[error("only Type/id can be deleted, and what this request names is not that")]
    Condition,
    #[error("nothing of this transaction Bundle is loaded, as it is all or nothing")]
    Transaction,
    #[error("the temporary file that holds it cannot be read: {0}")]
    Spool(String),
    #[error("the database refused it: {0}")]
    Refused(String),
}

/// What the outermost members of a JSON object say, the last of each name as JSON parsers take it.
#[derive(Default)]
struct Head {
    resource_type: Option<Box<RawValue>>,
    id: Option<Box<RawValue>>,
    bundle_type: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Head;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a resource")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
                let mut head = Head::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::ResourceType => head.resource_type = Some(map.next_value()?),
                        Key::Id => head.id = Some(map.next_value()?),
                        Key::Type => head.bundle_type = Some(map.next_value()?),
                        Key::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(head)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Key {
    ResourceType,
    Id,
    Type,
    #[serde(other)]
    Other,
}

/// A resource, as far as it is known without the Bundle around it.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) resource_type: ResourceType,
    pub(super) id: Option<String>,
    /// `type`, of a Bundle.
    pub(super) bundle_type: Option<String>,
}

impl Resource {
    /// Reads what is needed, and makes sure that Postgres will take the whole as JSON.
    pub(super) fn of(text: &str) -> Result<Self, Bad> {
        Self::known(serde_json::from_str(text))
    }

    /// The same of a text that is too large for the memory.
    pub(super) fn of_reader(reader: impl std::io::Read) -> Result<Self, Bad> {
        Self::known(serde_json::from_reader(reader))
    }

    fn known(head: serde_json::Result<Head>) -> Result<Self, Bad> {
        let head = head.map_err(|error| Bad::no_json(&error))?;
        let resource_type = string(&head.resource_type.ok_or(Bad::NoType)?).ok_or(Bad::OtherType)?;
        let resource_type: ResourceType = resource_type.parse().map_err(|_| Bad::OtherType)?;
        let id = match head.id {
            Some(id) => Some(string(&id).filter(|id| fhir::is_id(id)).ok_or(Bad::InvalidId)?),
            None => None,
        };
        let is_bundle = resource_type == ResourceType::BUNDLE;
        let bundle_type = head.bundle_type.filter(|_| is_bundle).and_then(|written| string(&written));
        Ok(Self { resource_type, id, bundle_type })
    }
}

impl Bad {
    pub(super) fn no_json(error: &serde_json::Error) -> Self {
        Self::NoJson { line: error.line(), column: error.column() }
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_id_are_read_and_the_rest_is_checked() {
        let text = "{\"id\":\"a\",\"x\":[1e400,\"\\ud800\\u0000\"],\"resource\\u0054ype\":\"Patient\",\"id\":\"b-1.\",\"type\":5}";
        let resource = Resource::of(text).unwrap();
        assert_eq!((resource.resource_type, resource.id.as_deref()), (ResourceType::PATIENT, Some("b-1.")));
        assert_eq!(resource.bundle_type, None);
        assert_eq!(Resource::of(r#"{"resourceType":"Patient"}"#).unwrap().id, None);
        let bundle = Resource::of(r#"{"type":"batch","resourceType":"Bundle"}"#).unwrap();
        assert_eq!(bundle.bundle_type.as_deref(), Some("batch"));
    }

    #[test]
    fn what_is_wrong_is_told_without_what_it_holds() {
        let bad = |text: &str| Resource::of(text).unwrap_err();
        assert_eq!(bad(r#"{"id":"secret"}"#), Bad::NoType);
        for other in [r#""secret""#, "1", "null", r#"["Patient"]"#] {
            assert_eq!(bad(&format!(r#"{{"resourceType":{other}}}"#)), Bad::OtherType);
        }
        for id in [r#""""#, "1", "null", r#""a/b""#] {
            assert_eq!(bad(&format!(r#"{{"resourceType":"Patient","id":{id}}}"#)), Bad::InvalidId);
        }
        for text in [
            "[]",
            "{",
            r#"{"resourceType":"Patient","secret":01}"#,
            r#"{"resourceType":"Patient","a":{]}"#,
            "{\"resourceType\":\"Patient\",\"a\":\"\u{1}\"}",
            r#"{"resourceType":"Patient"} x"#,
        ] {
            let error = bad(text);
            assert!(matches!(error, Bad::NoJson { .. }), "{text}: {error}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
