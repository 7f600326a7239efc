//! The entries of a Bundle, read twice: once for what their URLs stand for and what is wrong with them,
//! and once to be loaded. So no more than one entry is held, however large the Bundle is.

use super::document::Text;
use super::references::{Links, URN};
use super::resource::{Bad, Resource};
use fhir::ResourceType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::io::{BufReader, Seek as _};
use std::ops::ControlFlow;

/// One entry, as far as it matters: <https://hl7.org/fhir/R4/bundle.html>.
#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Entry {
    full_url: Option<String>,
    resource: Option<Box<RawValue>>,
    request: Option<Request>,
    search: Option<Search>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Request {
    method: String,
    url: String,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Search {
    mode: String,
}

/// What an entry asks for.
pub(super) enum Wish {
    Put { resource_type: ResourceType, id: String, content: Box<RawValue> },
    Delete { resource_type: ResourceType, id: String },
    Nothing,
}

/// What a Bundle asks for as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bundle {
    /// All of its entries or none.
    Transaction,
    /// Its entries, each by itself.
    Entries,
    /// It is itself what is loaded.
    Resource,
}

impl Bundle {
    /// By the Bundle's `type`.
    pub(super) fn of(bundle_type: Option<&str>) -> Result<Self, Bad> {
        match bundle_type {
            Some("transaction") => Ok(Self::Transaction),
            Some("batch" | "collection" | "searchset") => Ok(Self::Entries),
            // Signed or addressed as a whole.
            Some("document" | "message") => Ok(Self::Resource),
            Some(_) => Err(Bad::OtherBundle),
            None => Err(Bad::NoBundleType),
        }
    }
}

impl Entry {
    /// What the entry asks for.
    pub(super) fn wish(self) -> Result<Wish, Bad> {
        let request = self.request.unwrap_or_default();
        match request.method.as_str() {
            "DELETE" => {
                let (resource_type, id) = place(&request.url).ok_or(Bad::Condition)?;
                return Ok(Wish::Delete { resource_type, id: id.to_owned() });
            }
            "PUT" | "POST" | "" => {}
            _ => return Err(Bad::Method),
        }
        // What a search says of itself is no part of what it found.
        if self.search.is_some_and(|search| search.mode == "outcome") {
            return Ok(Wish::Nothing);
        }
        let content = self.resource.ok_or(Bad::NothingToDo)?;
        let Resource { resource_type, id, .. } = Resource::of(content.get())?;
        let put = || {
            let (named, id) = place(&request.url).filter(|_| request.method == "PUT")?;
            (named == resource_type).then(|| id.to_owned())
        };
        let uuid = || {
            Some(self.full_url.as_deref()?.strip_prefix(URN)?).filter(|id| fhir::is_id(id)).map(str::to_owned)
        };
        let id = id.or_else(put).or_else(uuid).ok_or(Bad::NoId)?;
        Ok(Wish::Put { resource_type, id, content })
    }

    /// The URL by which other entries refer to this one, if it is of no use outside of the Bundle.
    pub(super) fn urn(&self) -> Option<String> {
        self.full_url.clone().filter(|url| url.starts_with(URN))
    }
}

/// The type and the id at the end of `Type/id` or of a URL.
fn place(url: &str) -> Option<(ResourceType, &str)> {
    let (rest, id) = url.rsplit_once('/')?;
    let name = rest.rsplit_once('/').map_or(rest, |(_, name)| name);
    Some((name.parse().ok()?, id)).filter(|(_, id)| fhir::is_id(id))
}

/// What the first reading finds.
#[derive(Default)]
pub(super) struct Survey {
    /// What the URLs stand for.
    pub(super) links: Links,
    /// How many entries there are, good or bad.
    pub(super) entries: usize,
    /// How many of them are bad.
    pub(super) bad: usize,
}

/// The first reading. `report` is told of each bad entry, by its number from 1.
pub(super) fn survey(text: &mut Text, mut report: impl FnMut(usize, &Bad)) -> Result<Survey, Bad> {
    let mut survey = Survey::default();
    for_each(text, &mut |number, entry| {
        let urn = entry.urn();
        survey.entries += 1;
        match (entry.wish(), urn) {
            (Ok(Wish::Put { resource_type, id, .. }), Some(urn)) => {
                survey.links.insert(urn, format!("{resource_type}/{id}"));
            }
            (Ok(_), _) => {}
            (Err(bad), _) => {
                survey.bad += 1;
                report(number, &bad);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(survey)
}

/// Calls `each` for the entries, with their numbers from 1, until it breaks.
pub(super) fn for_each(text: &mut Text, each: Each<'_>) -> Result<(), Bad> {
    let mut walk = Walk { each, number: 0, stopped: false };
    let result = match text {
        Text::Memory(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Bad::NoUtf8)?;
            let mut json = serde_json::Deserializer::from_str(text);
            Members(&mut walk).deserialize(&mut json)
        }
        Text::File(file) => {
            file.rewind().map_err(|error| Bad::Spool(error.to_string()))?;
            let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(256 * 1024, file));
            Members(&mut walk).deserialize(&mut json)
        }
    };
    match result {
        _ if walk.stopped => Ok(()),
        Ok(()) => Ok(()),
        Err(error) => Err(Bad::Entries { line: error.line(), column: error.column() }),
    }
}

/// What is done with each entry.
type Each<'a> = &'a mut dyn FnMut(usize, Entry) -> ControlFlow<()>;

struct Walk<'a> {
    each: Each<'a>,
    number: usize,
    stopped: bool,
}

/// The Bundle: of its members only `entry` matters.
struct Members<'a, 'b>(&'a mut Walk<'b>);

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Bundle")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "entry" {
                map.next_value_seed(Entries(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The list of entries, one at a time.
struct Entries<'a, 'b>(&'a mut Walk<'b>);

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            self.0.number += 1;
            if (self.0.each)(self.0.number, entry).is_break() {
                self.0.stopped = true;
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(entry: &str) -> Result<String, Bad> {
        serde_json::from_str::<Entry>(entry).unwrap().wish().map(|wish| match wish {
            Wish::Put { resource_type, id, .. } => format!("put {resource_type}/{id}"),
            Wish::Delete { resource_type, id } => format!("delete {resource_type}/{id}"),
            Wish::Nothing => "nothing".to_owned(),
        })
    }

    #[test]
    fn the_id_is_the_resources_own_or_that_of_its_put_or_of_its_urn() {
        let entry = |id: &str, method: &str, url: &str, full_url: &str| {
            wish(&format!(
                r#"{{"fullUrl":"{full_url}","resource":{{"resourceType":"Patient"{id}}},"request":{{"method":"{method}","url":"{url}"}}}}"#
            ))
        };
        let put = |id: &str| Ok(format!("put Patient/{id}"));
        assert_eq!(entry(r#","id":"own""#, "PUT", "Patient/p", "urn:uuid:u"), put("own"));
        assert_eq!(entry("", "PUT", "Patient/p", "urn:uuid:u"), put("p"));
        assert_eq!(entry("", "PUT", "Group/p", "urn:uuid:u"), put("u"));
        assert_eq!(entry("", "PUT", "Patient?identifier=x", "urn:uuid:u"), put("u"));
        assert_eq!(entry("", "POST", "Patient", "urn:uuid:u"), put("u"));
        assert_eq!(entry("", "POST", "Patient/p", "http://x/Patient/u"), Err(Bad::NoId));
        assert_eq!(entry("", "POST", "Patient", "urn:uuid:"), Err(Bad::NoId));
        assert_eq!(entry("", "PATCH", "Patient/p", ""), Err(Bad::Method));
    }

    #[test]
    fn what_is_to_be_deleted_is_named() {
        let delete = |url: &str| wish(&format!(r#"{{"request":{{"method":"DELETE","url":"{url}"}}}}"#));
        assert_eq!(delete("Patient/p").unwrap(), "delete Patient/p");
        assert_eq!(delete("http://x/fhir/Patient/p").unwrap(), "delete Patient/p");
        for url in ["Patient", "Patient?identifier=x", "Patient/p?x", "Nonsense/p", "Patient/", "/p", ""] {
            assert_eq!(delete(url), Err(Bad::Condition), "{url}");
        }
    }

    #[test]
    fn an_entry_may_have_nothing_to_load() {
        assert_eq!(wish("{}"), Err(Bad::NothingToDo));
        let outcome = r#"{"search":{"mode":"outcome"},"resource":{"resourceType":"OperationOutcome"}}"#;
        assert_eq!(wish(outcome).unwrap(), "nothing");
        assert_eq!(wish(r#"{"resource":{"resourceType":"x"}}"#), Err(Bad::OtherType));
    }

    #[test]
    fn entries_that_are_none_are_refused_with_their_place() {
        for text in [r#"{"entry":{}}"#, r#"{"entry":[1]}"#, r#"{"entry":[{"fullUrl":1}]}"#] {
            let error = survey(&mut Text::Memory(text.as_bytes().to_vec()), |_, _| {}).err().unwrap();
            assert!(matches!(error, Bad::Entries { line: 1, .. }), "{error}");
        }
    }
}
