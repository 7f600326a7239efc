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
    #[error("the member '{0}' stands twice: nobody can tell which is meant")]
    Twice(&'static str),
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
    #[error("another entry before it has the same fullUrl")]
    SameUrl,
    #[error("another entry before it writes or deletes the same resource, which a transaction does once")]
    SameResource,
    #[error("its request names another id than its resource has")]
    OtherId,
    #[error("its fullUrl names another resource than its resource is")]
    OtherUrl,
    #[error("its request names another type than its resource has")]
    OtherPlace,
    #[error("a PUT names Type/id, and what this one names is not that")]
    PutPlace,
    #[error("a POST names a type, and what this one names is not that")]
    PostPlace,
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

/// What the outermost members of a JSON object say.
#[derive(Default)]
struct Head {
    /// A member that may stand once and stands twice; those of Bundles only matter there.
    twice: Option<&'static str>,
    twice_in_bundle: Option<&'static str>,
    has_meta: bool,
    has_entry: bool,
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
                        Key::ResourceType => {
                            let before = head.resource_type.replace(map.next_value()?);
                            head.twice = head.twice.or(before.map(|_| "resourceType"));
                        }
                        Key::Id => {
                            let before = head.id.replace(map.next_value()?);
                            head.twice = head.twice.or(before.map(|_| "id"));
                        }
                        Key::Meta => {
                            map.next_value::<IgnoredAny>()?;
                            head.twice = head.twice.or(head.has_meta.then_some("meta"));
                            head.has_meta = true;
                        }
                        Key::Type => {
                            let before = head.bundle_type.replace(map.next_value()?);
                            head.twice_in_bundle = head.twice_in_bundle.or(before.map(|_| "type"));
                        }
                        Key::Entry => {
                            map.next_value::<IgnoredAny>()?;
                            head.twice_in_bundle = head.twice_in_bundle.or(head.has_entry.then_some("entry"));
                            head.has_entry = true;
                        }
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
    Meta,
    Type,
    Entry,
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
        if let Some(name) = head.twice {
            return Err(Bad::Twice(name));
        }
        let resource_type = string(&head.resource_type.ok_or(Bad::NoType)?).ok_or(Bad::OtherType)?;
        let resource_type: ResourceType = resource_type.parse().map_err(|_| Bad::OtherType)?;
        let id = match head.id {
            Some(id) => Some(string(&id).filter(|id| fhir::is_id(id)).ok_or(Bad::InvalidId)?),
            None => None,
        };
        let is_bundle = resource_type == ResourceType::BUNDLE;
        if let Some(name) = head.twice_in_bundle.filter(|_| is_bundle) {
            return Err(Bad::Twice(name));
        }
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
        let text = "{\"x\":[1e400,\"\\ud800\\u0000\"],\"x\":1,\"resource\\u0054ype\":\"Patient\",\"id\":\"b-1.\",\"type\":5,\"type\":6}";
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
        for (name, member) in [
            ("id", r#""id":"b""#),
            ("resourceType", r#""resourceTyp\u0065":"Group""#),
            ("meta", r#""meta":{}"#),
        ] {
            let text =
                format!(r#"{{"resourceType":"Patient","id":"a","meta":{{}},"x":{{"id":"c"}},{member}}}"#);
            assert_eq!(bad(&text), Bad::Twice(name));
        }
        for (name, member) in [("type", r#""type":"batch""#), ("entry", r#""entry":[]"#)] {
            let text = format!(r#"{{"resourceType":"Bundle","type":"transaction","entry":[],{member}}}"#);
            assert_eq!(bad(&text), Bad::Twice(name));
        }
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
