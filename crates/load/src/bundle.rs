//! The entries of a Bundle, read twice: once for what their URLs stand for and what is wrong with them,
//! and once to be loaded. So no more than one entry is held, however large the Bundle is.

use super::document::Text;
use super::references::{Links, URNS};
use super::resource::{Bad, Resource};
use fhir::ResourceType;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
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
        let put = match request.method.as_str() {
            "PUT" => put(&request.url, resource_type)?,
            "POST" => post(&request.url, resource_type).map(|()| None)?,
            _ => None,
        };
        if let (Some(own), Some(put)) = (id.as_deref(), put)
            && own != put
        {
            return Err(Bad::OtherId);
        }
        let url = self.full_url.as_deref().unwrap_or_default();
        let id = id.or(put.map(str::to_owned));
        // The id of what a POST creates is the server's to choose: its fullUrl is a name for the time being.
        if let (Some(id), Some(named)) = (id.as_deref(), place(url))
            && request.method != "POST"
            && named != (resource_type, id)
        {
            return Err(Bad::OtherUrl);
        }
        let urn = || Some(URNS.iter().find_map(|urn| url.strip_prefix(urn))?).filter(|id| fhir::is_id(id));
        let id = id.or_else(|| urn().map(str::to_owned)).ok_or(Bad::NoId)?;
        Ok(Wish::Put { resource_type, id, content })
    }

    fn is_urn(&self) -> bool {
        self.full_url.as_deref().is_some_and(|url| URNS.iter().any(|urn| url.starts_with(urn)))
    }
}

/// The id that a PUT names; `None` if it names a condition.
fn put(url: &str, resource_type: ResourceType) -> Result<Option<&str>, Bad> {
    if url.contains('?') {
        return post(url, resource_type).map(|()| None).map_err(|bad| match bad {
            Bad::PostPlace => Bad::PutPlace,
            other => other,
        });
    }
    match place(url) {
        Some((named, id)) if named == resource_type => Ok(Some(id)),
        Some(_) => Err(Bad::OtherPlace),
        None => Err(Bad::PutPlace),
    }
}

/// Whether a POST names the resource's type, or nothing.
fn post(url: &str, resource_type: ResourceType) -> Result<(), Bad> {
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    match name.parse::<ResourceType>() {
        _ if url.is_empty() => Ok(()),
        Ok(named) if named == resource_type => Ok(()),
        Ok(_) => Err(Bad::OtherPlace),
        Err(_) => Err(Bad::PostPlace),
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
    /// The numbers of those that are bad.
    pub(super) bad: HashSet<usize>,
}

/// The first reading. `report` is told of each bad entry, by its number from 1.
pub(super) fn survey(
    text: &mut Text,
    kind: Bundle,
    mut report: impl FnMut(usize, &Bad),
) -> Result<Survey, Bad> {
    let mut survey = Survey::default();
    let mut urls = HashSet::new();
    let mut keys = HashSet::new();
    for_each(text, &mut |number, entry| {
        let (url, is_urn) = (entry.full_url.clone(), entry.is_urn());
        survey.entries += 1;
        let looked_at = entry.wish().and_then(|wish| {
            // Versions of one resource in one Bundle are a history, which is not for loading.
            if url.as_ref().is_some_and(|url| !urls.insert(url.clone())) {
                return Err(Bad::SameUrl);
            }
            let (Wish::Put { resource_type, id, .. } | Wish::Delete { resource_type, id }) = &wish else {
                return Ok(());
            };
            if kind == Bundle::Transaction && !keys.insert((*resource_type, id.clone())) {
                return Err(Bad::SameResource);
            }
            if let (Wish::Put { .. }, Some(urn), true) = (&wish, url, is_urn) {
                survey.links.insert(urn, format!("{resource_type}/{id}"));
            }
            Ok(())
        });
        if let Err(bad) = looked_at {
            survey.bad.insert(number);
            report(number, &bad);
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
        assert_eq!(entry(r#","id":"own""#, "PUT", "Patient/own", "urn:uuid:u"), put("own"));
        assert_eq!(
            entry(r#","id":"own""#, "PUT", "http://x/fhir/Patient/own", "http://x/fhir/Patient/own"),
            put("own")
        );
        assert_eq!(entry("", "PUT", "Patient/p", "urn:uuid:u"), put("p"));
        assert_eq!(entry("", "POST", "http://x/Patient", "urn:oid:1.2.3"), put("1.2.3"));
        assert_eq!(entry(r#","id":"own""#, "POST", "Patient", "http://x/Patient/other"), put("own"));
        assert_eq!(entry(r#","id":"own""#, "", "", "http://x/Patient/own"), put("own"));
        assert_eq!(entry("", "PUT", "Patient?identifier=x", "urn:uuid:u"), put("u"));
        assert_eq!(entry("", "POST", "Patient", "urn:uuid:u"), put("u"));
        assert_eq!(entry("", "POST", "Patient", "http://x/Patient/u"), Err(Bad::NoId));
        assert_eq!(entry("", "POST", "Patient", "urn:uuid:"), Err(Bad::NoId));
        assert_eq!(entry("", "PATCH", "Patient/p", ""), Err(Bad::Method));
    }

    #[test]
    fn a_request_or_a_url_that_names_something_else_is_refused() {
        let entry = |method: &str, url: &str, full_url: &str| {
            wish(&format!(
                r#"{{"fullUrl":"{full_url}","resource":{{"resourceType":"Patient","id":"x"}},"request":{{"method":"{method}","url":"{url}"}}}}"#
            ))
        };
        assert_eq!(entry("PUT", "Patient/y", ""), Err(Bad::OtherId));
        assert_eq!(entry("PUT", "Group/x", ""), Err(Bad::OtherPlace));
        assert_eq!(entry("PUT", "Group?identifier=x", ""), Err(Bad::OtherPlace));
        for url in ["", "Patient", "Patient/", "x", "Patient/x/_history/1", "Nonsense/x", "?identifier=x"] {
            assert_eq!(entry("PUT", url, ""), Err(Bad::PutPlace), "{url}");
        }
        assert_eq!(entry("POST", "Group", ""), Err(Bad::OtherPlace));
        for url in ["Patient/x", "Patient/_search", "$validate", "Patient/$match"] {
            assert_eq!(entry("POST", url, ""), Err(Bad::PostPlace), "{url}");
        }
        assert_eq!(entry("PUT", "Patient/x", "http://y/Patient/z"), Err(Bad::OtherUrl));
        assert_eq!(entry("", "", "http://y/Patient/z"), Err(Bad::OtherUrl));
        assert_eq!(entry("", "", "http://y/Group/x"), Err(Bad::OtherUrl));
    }

    #[test]
    fn what_stands_twice_in_a_bundle_is_refused() {
        let bad = |kind: Bundle, entries: &[&str]| {
            let text = format!(r#"{{"entry":[{}]}}"#, entries.join(","));
            let mut told = Vec::new();
            let survey = survey(&mut Text::Memory(text.into_bytes()), kind, |number, bad| {
                told.push((number, bad.clone()));
            })
            .unwrap();
            assert_eq!(survey.bad.len(), told.len());
            told
        };
        let one = r#"{"fullUrl":"urn:uuid:u","resource":{"resourceType":"Patient","id":"p"}}"#;
        let two = r#"{"fullUrl":"urn:uuid:u","resource":{"resourceType":"Group","id":"g"}}"#;
        let three = r#"{"resource":{"resourceType":"Patient","id":"p"}}"#;
        let gone = r#"{"request":{"method":"DELETE","url":"Patient/p"}}"#;
        for kind in [Bundle::Entries, Bundle::Transaction] {
            assert_eq!(bad(kind, &[one, two]), [(2, Bad::SameUrl)]);
        }
        for again in [three, gone] {
            assert_eq!(bad(Bundle::Transaction, &[one, again]), [(2, Bad::SameResource)]);
            assert_eq!(bad(Bundle::Entries, &[one, again]), []);
        }
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
            let error = survey(&mut Text::Memory(text.as_bytes().to_vec()), Bundle::Entries, |_, _| {})
                .err()
                .unwrap();
            assert!(matches!(error, Bad::Entries { line: 1, .. }), "{error}");
        }
    }
}
