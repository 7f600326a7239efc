use super::*;
use proptest::prelude::*;

fn found<'a>(text: &'a str, paths: &[&str]) -> Vec<&'a str> {
    let mut values = Vec::new();
    let paths = Paths::new(paths.iter().copied());
    oracle::find(&paths, text.as_bytes(), |value| values.push(std::str::from_utf8(value).unwrap())).unwrap();
    values
}

#[test]
fn paths_lead_through_objects_and_arrays() {
    let text =
        r#" { "a" : [ {"b": "1"}, {"c": 2, "b": ["3", {"x": 4}]} ] , "b": "not this", "d": {"b": true}} "#;
    assert_eq!(found(text, &["a.b"]), [r#""1""#, r#""3""#, r#"{"x": 4}"#]);
    assert_eq!(found(text, &["d.b", "b"]), [r#""not this""#, "true"]);
    assert_eq!(found(text, &["a.b", "a.b.x"]), [r#""1""#, r#""3""#, "4", r#"{"x": 4}"#]);
    assert_eq!(found(text, &["a.b.y", "e", "b.b"]), [""; 0]);
}

#[test]
fn names_are_compared_as_json_means_them() {
    let text = r#"{"\u0061":{"b\"":1,"b":2},"a\\":{"b":3}}"#;
    assert_eq!(found(text, &["a.b"]), ["2"]);
}

#[test]
fn an_array_within_an_array_is_skipped() {
    assert_eq!(found(r#"{"a":[[{"b":1}],{"b":2},[]]}"#, &["a.b"]), ["2"]);
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(found(&deep, &["a.b"]), [""; 0]);
}

#[test]
fn both_of_two_members_of_one_name_are_found() {
    assert_eq!(found(r#"{"a":{"b":1},"a":{"b":2}}"#, &["a.b"]), ["1", "2"]);
}

#[test]
fn what_is_not_an_object_is_an_error() {
    for text in
        ["", "[]", "1", r#"{"a""#, r#"{"a":}"#, r#"{"a":{"b":1}"#, r#"{"a":[1}"#, r#"{a:1}"#, "{,}", "{} {}"]
    {
        let answer = oracle::find(&Paths::new(["a.b"]), text.as_bytes(), |_| {});
        assert_eq!(answer, Err(NotAnObject), "{text}");
    }
}

/// JSON whose names are often those that are looked for.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "1",
        "-2.50",
        "true",
        "null",
        r#""""#,
        r#""a""#,
        r#""{\"b\":1}""#,
        r#""\\""#,
        r#""é\u0000}""#,
    ])
    .prop_map(str::to_owned);
    let name = prop::sample::select(vec!["a", "b", "c", "ab", "\\u0061", "\\u0062", "c\\\\", "\\\"", ""]);
    scalar.prop_recursive(5, 60, 5, move |inner| {
        let pad = prop::sample::select(vec!["", " ", "\n\t", "                                        "]);
        prop_oneof![
            prop::collection::vec((inner.clone(), pad.clone()), 0..5).prop_map(|values| {
                let values: Vec<_> = values.iter().map(|(value, pad)| format!("{value}{pad}")).collect();
                format!("[{}]", values.join(","))
            }),
            prop::collection::vec((name.clone(), inner, pad), 0..5).prop_map(|members| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value, pad)| format!("{pad}\"{name}\":{pad}{value}{pad}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]
    #[test]
    fn finds_what_a_parser_finds(text in json()) {
        for paths in [&["a"][..], &["a.b", "b"], &["a.b.c", "a.a", "a.b", "c"], &["ab.a", "a.ab"]] {
            oracle::holds(text.as_bytes(), paths);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(text in prop::collection::vec(prop::sample::select(&b"{}[]\"\\:,ab 1"[..]), 0..80)) {
        oracle::holds(&text, &["a.b", "b"]);
    }
}
