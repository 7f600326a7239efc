//! Resources of many shapes, and damaged ones, held against the [`oracle`](super::oracle).

use super::oracle::{COLUMNS, holds, one_line, write};
use proptest::collection::vec;
use proptest::prelude::*;

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// A string as JSON writes it. Of lone surrogates serde_json's RawValue takes none in keys, so only values have them.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z{}\\[\\]:, ]{0,6}",
        1 => "\\PC{0,3}".prop_map(|text| text.replace(['"', '\\'], "")),
        1 => proptest::sample::select(vec!["\\\\", "\\\"", "\\n", "\\u0000", "\\ud800", "\\u2028", "\u{2028}", "\u{2029}", "\u{85}", "\\/", "\u{7f}"])
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_but_id_and_meta_stays(content in resource(key())) {
        prop_assert!(write(content.as_bytes()).is_ok());
        holds(content.as_bytes());
    }

    #[test]
    fn without_id_and_meta_every_byte_stays(content in resource(other_key())) {
        let out = String::from_utf8(write(content.as_bytes()).unwrap()).unwrap();
        let inserted = format!(r#","id":"p1","meta":{{"versionId":"7","lastUpdated":"{}"}}"#, COLUMNS.last_updated);
        prop_assert_eq!(out.matches(&inserted).count(), 1);
        prop_assert_eq!(out.replacen(&inserted, "", 1), one_line(&content));
    }

    #[test]
    fn bytes_that_are_anything_panic_nowhere(bytes in vec(any::<u8>(), 0..200)) {
        holds(&bytes);
    }

    #[test]
    fn a_damaged_resource_never_becomes_two_lines(
        content in resource(key()), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = content.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        holds(&bytes);
    }
}

/// What the fuzzer begins with, and what it once found.
#[test]
fn every_seed_holds() {
    let seeds = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/splice")).unwrap();
    let count = seeds.map(|seed| holds(&std::fs::read(seed.unwrap().path()).unwrap())).count();
    assert!(count > 10);
}
