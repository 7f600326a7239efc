//! What [`write_resource`] has to do, done the obvious way: everything decoded by `serde_json`. For the property
//! tests and the fuzzer.

use super::{BadResource, Columns, LargeResource, write_resource};
use crate::{Instant, ResourceType};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) const COLUMNS: Columns<'static> = Columns {
    resource_type: ResourceType::PATIENT,
    id: "p1",
    version_id: 7,
    last_updated: Instant::from_unix_micros(1_700_000_000_123_456),
};

/// Whatever the bytes are: what is written is one line, stays as it is when it is written again, and says what
/// `serde_json` reads in them, but for id and meta; what `serde_json` takes is never refused as JSON.
pub(crate) fn holds(content: &[u8]) {
    let read = std::str::from_utf8(content).ok().and_then(|text| serde_json::from_str::<Object>(text).ok());
    match write(content) {
        Ok(out) => {
            assert!(!out.contains(&b'\r') && !out.contains(&b'\n'), "it is more than a line");
            if let Ok(text) = std::str::from_utf8(&out) {
                assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "it is more than a line to some");
            }
            // Outside strings, where no JSON has one, the escape of a line break is not JSON either.
            if read.is_some() || !has_line_breaks(content) {
                assert_eq!(write(&out).as_ref(), Ok(&out), "it changes when it is written again");
            }
            let out = String::from_utf8_lossy(&out);
            if let Some(expected) = read.and_then(expected) {
                let written =
                    members(&out).and_then(|members| members.into_iter().map(meta_decoded).collect());
                assert_eq!(written, Some(expected));
            }
        }
        Err(BadResource::NotAnObject) => assert!(read.is_none(), "it is an object"),
        Err(BadResource::OtherType | BadResource::InvalidId) => {}
    }
}

/// Whether the bytes of one of Unicode's line breaks are among these.
fn has_line_breaks(content: &[u8]) -> bool {
    let marks = ["\u{85}", "\u{2028}", "\u{2029}"];
    marks.iter().any(|mark| memchr::memmem::find(content, mark.as_bytes()).is_some())
}

/// The members of an object in their order, duplicates included: decoded keys, and values as written.
pub(crate) struct Object(pub(crate) Pairs);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

pub(crate) type Pairs = Vec<(String, String)>;

pub(crate) fn members(text: &str) -> Option<Pairs> {
    serde_json::from_str(text).ok().map(|Object(members)| members)
}

/// Values are compared as written; of meta the members are.
fn meta_decoded((key, value): (String, String)) -> Option<(String, String)> {
    let value = if key == "meta" { format!("{:?}", members(&value)?) } else { value };
    Some((key, value))
}

pub(super) fn one_line(text: &str) -> String {
    let text = text.replace(['\r', '\n'], " ").replace('\u{85}', r"\u0085");
    text.replace('\u{2028}', r"\u2028").replace('\u{2029}', r"\u2029")
}

/// What has to come out, member by member. `None`: the last meta has a key that is no text (half a surrogate pair).
fn expected(Object(input): Object) -> Option<Pairs> {
    let has = |name: &str| input.iter().any(|(key, _)| key == name);
    let mut meta = vec![
        ("versionId".to_owned(), "\"7\"".to_owned()),
        ("lastUpdated".to_owned(), format!("\"{}\"", COLUMNS.last_updated)),
    ];
    if let Some((_, last)) =
        input.iter().rev().find(|(key, _)| key == "meta").filter(|(_, value)| value.starts_with('{'))
    {
        let rest = members(last)?.into_iter().filter(|(key, _)| key != "versionId" && key != "lastUpdated");
        meta.extend(rest.map(|(key, value)| (key, one_line(&value))));
    }
    let meta = ("meta".to_owned(), format!("{meta:?}"));
    let id = ("id".to_owned(), "\"p1\"".to_owned());
    let mut output = Pairs::new();
    let mut types = 0;
    for (key, value) in &input {
        match key.as_str() {
            "id" | "meta" if output.iter().any(|(known, _)| known == key) => {}
            "id" => output.push(id.clone()),
            "meta" => output.push(meta.clone()),
            _ => output.push((key.clone(), one_line(value))),
        }
        if key == "resourceType" {
            types += 1;
            if types == 1 {
                output.extend([&id, &meta].into_iter().filter(|(name, _)| !has(name)).cloned());
            }
        }
    }
    Some(output)
}

pub(super) fn write(content: &[u8]) -> Result<Vec<u8>, BadResource> {
    let mut out = Vec::new();
    let written = write_resource(content, &COLUMNS, &mut out);
    // The way of large resources leads to the same.
    let mut large = Vec::new();
    let same = LargeResource::of(content, &COLUMNS).map(|resource| resource.write(&mut large).is_ok());
    assert_eq!(same, written.map(|()| true));
    assert_eq!(large, out);
    written.map(|()| out)
}
