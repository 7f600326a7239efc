use super::oracle::COLUMNS;
use super::*;

fn written(content: &str) -> Result<String, BadResource> {
    let mut out = b"before".to_vec();
    let result = write_resource(content.as_bytes(), &COLUMNS, &mut out);
    let text = String::from_utf8(out).unwrap().split_off("before".len());
    if result.is_err() {
        assert_eq!(text, "", "on an error nothing is appended");
    }
    result.map(|()| text)
}

const META: &str = r#""versionId":"7","lastUpdated":"2023-11-14T22:13:20.123456Z""#;

#[test]
fn what_is_missing_follows_the_resource_type() {
    assert_eq!(
        written(r#"{"active":true,"resourceType":"Patient","n":1.50}"#).unwrap(),
        format!(r#"{{"active":true,"resourceType":"Patient","id":"p1","meta":{{{META}}},"n":1.50}}"#)
    );
}

#[test]
fn what_is_there_is_replaced_where_it_stands() {
    assert_eq!(
        written(r#" { "meta" : {"profile":["x"], "versionId":3 , "\u0074ag":[]} ,"resourceType":"Patient", "\u0069d":null}"#)
            .unwrap(),
        format!(r#" {{ "meta":{{{META},"profile":["x"],"\u0074ag":[]}} ,"resourceType":"Patient", "id":"p1"}}"#)
    );
}

#[test]
fn of_duplicates_one_is_left_with_what_the_last_one_held() {
    assert_eq!(
        written(
            r#"{"id":"a","resourceType":"Group","meta":{"source":"a"},"id":"b","resourceType":"Patient","meta":{"source":"b"},"x":{"id":"c"},"id":1}"#
        )
        .unwrap(),
        format!(
            r#"{{"id":"p1","resourceType":"Group","meta":{{{META},"source":"b"}},"resourceType":"Patient","x":{{"id":"c"}}}}"#
        )
    );
    // The cut begins where the missing meta goes.
    assert_eq!(
        written(r#"{"id":"a","resourceType":"Patient","id":"b"}"#).unwrap(),
        format!(r#"{{"id":"p1","resourceType":"Patient","meta":{{{META}}}}}"#)
    );
}

#[test]
fn a_meta_that_is_no_object_is_replaced() {
    for meta in ["null", "[]", "1", r#""{}""#, "{}", "{ }"] {
        assert_eq!(
            written(&format!(r#"{{"resourceType":"Patient","meta":{meta},"id":"z"}}"#)).unwrap(),
            format!(r#"{{"resourceType":"Patient","meta":{{{META}}},"id":"p1"}}"#)
        );
    }
}

#[test]
fn a_deletion_names_the_resource_and_nothing_else() {
    let mut out = Vec::new();
    write_deletion(&COLUMNS, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"resourceType":"Bundle","meta":{"lastUpdated":"2023-11-14T22:13:20.123456Z","tag":[{"system":"urn:fhir-tail:deletion","code":"deleted"}]},"type":"transaction","entry":[{"request":{"method":"DELETE","url":"Patient/p1"}}]}"#
    );
}

#[test]
fn an_id_that_is_none_is_refused() {
    for id in ["", "a/b", "ü", "a\"b", &"a".repeat(65)] {
        let columns = Columns { id, ..COLUMNS };
        let mut out = Vec::new();
        let content = br#"{"resourceType":"Patient"}"#;
        assert_eq!(write_resource(content, &columns, &mut out), Err(BadResource::InvalidId));
        assert_eq!(write_deletion(&columns, &mut out), Err(BadResource::InvalidId));
        assert!(out.is_empty());
    }
}

#[test]
fn the_type_is_the_last_one_that_is_written() {
    assert!(written(r#"{"resourceType":"Group","resource\u0054ype":"P\u0061tient"}"#).is_ok());
    for content in [
        "{}",
        r#"{"id":"p1"}"#,
        r#"{"resourceType":"Group"}"#,
        r#"{"resourceType":null}"#,
        r#"{"resourceType":["Patient"]}"#,
        r#"{"resourceType":"Patient","resourceType":"Group"}"#,
        r#"{"a":{"resourceType":"Patient"}}"#,
    ] {
        assert_eq!(written(content), Err(BadResource::OtherType), "{content}");
    }
}

#[test]
fn what_is_no_object_is_refused() {
    for content in [
        "",
        " ",
        "null",
        "[]",
        "{",
        r#"{"resourceType":"Patient""#,
        r#"{"resourceType":"Patient",}"#,
        r#"{"resourceType":"Patient"}}"#,
        r#"{"resourceType":"Patient"} {}"#,
        r#"{"resourceType":"Patient" "id":1}"#,
        r#"{"resourceType" "Patient"}"#,
        r#"{"resourceType":"Patient","a":[{"b":1}}"#,
        r#"{"resourceType":"Patient","a":"\"}"#,
        r#"{"resourceType":"Patient","a":}"#,
        r#"{"resourceType":"Patient","meta":{1}}"#,
        r#"{"resourceType":"Patient","meta":{"a":1,}}"#,
    ] {
        assert_eq!(written(content), Err(BadResource::NotAnObject), "{content}");
    }
}

#[test]
fn ten_megabytes_of_nesting_take_no_stack() {
    let depth = 5_000_000;
    let content = format!(r#"{{"resourceType":"Patient","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(
        written(&content).unwrap().len(),
        content.len() + r#","id":"p1","meta":{}"#.len() + META.len()
    );
    assert_eq!(written(&content[..content.len() - 2]), Err(BadResource::NotAnObject));
}

/// A large resource is written in windows: nothing that is escaped may be cut by their ends.
#[test]
fn a_line_break_at_the_end_of_a_window_is_escaped_whole() {
    for filler in WINDOW - 80..WINDOW + 4 {
        let content = format!(
            "{{\"resourceType\":\"Patient\",\"x\":\"{}\u{2028}\u{85}\u{2029}\"\n}}",
            "x".repeat(filler)
        );
        let (mut whole, mut large) = (Vec::new(), Vec::new());
        write_resource(content.as_bytes(), &COLUMNS, &mut whole).unwrap();
        LargeResource::of(content.as_bytes(), &COLUMNS).unwrap().write(&mut large).unwrap();
        assert!(whole == large, "{filler}");
        assert!(!whole.iter().any(|byte| *byte >= 0x80 || *byte == b'\n'));
    }
}
