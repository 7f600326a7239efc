//! What is written, compared with what serde_json reads.

use super::tests::COLUMNS;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, duplicates included: decoded keys, and values as written.
struct Object(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
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
        deserializer.deserialize_map(Pairs)
    }
}

fn members(text: &str) -> Vec<(String, String)> {
    serde_json::from_str::<Object>(text).unwrap_or_else(|error| panic!("{error}: {text}")).0
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A string as JSON writes it. Of lone surrogates serde_json's RawValue takes none in keys, so only values have them.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z{}\\[\\]:, ]{0,6}",
        1 => "\\PC{0,3}".prop_map(|text| text.replace(['"', '\\'], "")),
        1 => proptest::sample::select(vec!["\\\\", "\\\"", "\\n", "\\u0000", "\\ud800", "\\u2028", "\u{2028}", "\\/", "\u{7f}"])
            .prop_map(str::to_owned),
    ];
    vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        string(),
        proptest::sample::select(vec![
            "1.50",
            "1e400",
            "-0",
            "0.1E-7",
            "12345678901234567890123",
            "null",
            "true",
            "false"
        ])
        .prop_map(str::to_owned),
    ]
}

fn key() -> impl Strategy<Value = String> + Clone {
    let known = vec![
        "\"id\"",
        "\"\\u0069d\"",
        "\"i\\u0064\"",
        "\"meta\"",
        "\"m\\u0065ta\"",
        "\"versionId\"",
        "\"lastUpdated\"",
        "\"version\\u0049d\"",
        "\"profile\"",
        "\"tag\"",
        "\"ID\"",
        "\"id \"",
        "\"\\\\u0069d\"",
        "\"\"",
        "\"ident\"",
        "\"\\\"id\"",
        "\"i\\/d\"",
    ];
    proptest::sample::select(known).prop_map(str::to_owned)
}

/// A key that is neither `id` nor `meta`.
fn other_key() -> impl Strategy<Value = String> + Clone {
    proptest::sample::select(vec!["\"status\"", "\"ID\"", "\"\\\\u0069d\"", "\"\"", "\"\\u0069\""])
        .prop_map(str::to_owned)
}

fn object(
    key: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    vec((space(), key, space(), space(), value, space()), 0..5).prop_map(|members| {
        let members: Vec<_> = members
            .into_iter()
            .map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"))
            .collect();
        format!("{{{}}}", members.join(","))
    })
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            object(key(), inner.clone()),
            (vec(inner, 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}]", items.join(&format!("{space},"))))
        ]
    })
}

/// A resource: an object with members before and after its type.
fn resource(key: impl Strategy<Value = String> + Clone) -> impl Strategy<Value = String> {
    let kind = proptest::sample::select(vec![
        "\"resourceType\":\"Patient\"",
        "\"resource\\u0054ype\" : \"Pa\\u0074ient\"",
        "\"resourceType\":\"Group\",\"resourceType\":\"Patient\"",
    ]);
    (object(key.clone(), value()), kind, object(key, value()), space(), space()).prop_map(
        |(before, kind, after, a, b)| {
            let inner = |object: &str| object[1..object.len() - 1].to_owned();
            let parts = [inner(&before), kind.to_owned(), inner(&after)];
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            format!("{a}{{{}}}{b}", parts.join(&format!("{b},{a}")))
        },
    )
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// What has to come out, member by member: the obvious way, with everything decoded.
fn expected(content: &str) -> Vec<(String, String)> {
    let input = members(content);
    let has = |name: &str| input.iter().any(|(key, _)| key == name);
    let mut meta = vec![
        ("versionId".to_owned(), "\"7\"".to_owned()),
        ("lastUpdated".to_owned(), format!("\"{}\"", COLUMNS.last_updated)),
    ];
    if let Some((_, last)) =
        input.iter().rev().find(|(key, _)| key == "meta").filter(|(_, value)| value.starts_with('{'))
    {
        let rest = members(last).into_iter().filter(|(key, _)| key != "versionId" && key != "lastUpdated");
        meta.extend(rest.map(|(key, value)| (key, one_line(&value))));
    }
    // Values are compared as written; of meta the members are.
    let meta = ("meta".to_owned(), format!("{meta:?}"));
    let id = ("id".to_owned(), "\"p1\"".to_owned());
    let mut output: Vec<(String, String)> = Vec::new();
    let mut types = 0;
    for (key, value) in &input {
        match key.as_str() {
            "id" | "meta" if output.iter().any(|(known, _)| known == key) => {}
            "id" => output.push(id.clone()),
            "meta" => output.push(meta.clone()),
            _ => output.push((key.clone(), value.clone())),
        }
        if key == "resourceType" {
            types += 1;
            if types == 1 {
                output.extend([&id, &meta].into_iter().filter(|(name, _)| !has(name)).cloned());
            }
        }
    }
    output
        .into_iter()
        .map(|(key, value)| if key == "meta" { (key, value) } else { (key, one_line(&value)) })
        .collect()
}

fn write(content: &[u8]) -> Result<Vec<u8>, BadResource> {
    let mut out = Vec::new();
    write_resource(content, &COLUMNS, &mut out).map(|()| out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_but_id_and_meta_stays(content in resource(key())) {
        let out = String::from_utf8(write(content.as_bytes()).unwrap()).unwrap();
        prop_assert!(!out.contains(['\r', '\n']));
        let written: Vec<_> = members(&out)
            .into_iter()
            .map(|(key, value)| if key == "meta" { (key, format!("{:?}", members(&value))) } else { (key, value) })
            .collect();
        prop_assert_eq!(written, expected(&content));
    }

    #[test]
    fn without_id_and_meta_every_byte_stays(content in resource(other_key())) {
        let out = String::from_utf8(write(content.as_bytes()).unwrap()).unwrap();
        let inserted = format!(r#","id":"p1","meta":{{"versionId":"7","lastUpdated":"{}"}}"#, COLUMNS.last_updated);
        prop_assert_eq!(out.matches(&inserted).count(), 1);
        prop_assert_eq!(out.replacen(&inserted, "", 1), one_line(&content));
    }

    #[test]
    fn what_was_written_stays_as_it_is(content in resource(key())) {
        let out = write(content.as_bytes()).unwrap();
        prop_assert_eq!(write(&out), Ok(out));
    }

    #[test]
    fn bytes_that_are_anything_panic_nowhere(bytes in vec(any::<u8>(), 0..200)) {
        let _ = write(&bytes);
    }

    #[test]
    fn a_damaged_resource_never_becomes_two_lines(
        content in resource(key()), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = content.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        match write(&bytes) {
            Ok(out) => prop_assert!(!out.contains(&b'\r') && !out.contains(&b'\n')),
            // What a JSON parser takes is never refused as JSON.
            Err(BadResource::NotAnObject) => prop_assert!(serde_json::from_slice::<Object>(&bytes).is_err()),
            Err(_) => {}
        }
    }
}
