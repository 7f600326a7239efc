use super::*;
use proptest::prelude::*;
use std::io::BufReader;

/// What is found, with buffers of this size and so many bytes in memory.
fn found_with(input: &[u8], buffer: usize, in_memory: usize) -> Vec<Result<(u64, String), (u64, Broken)>> {
    let mut documents = Documents { in_memory, ..Documents::of(BufReader::with_capacity(buffer, input)) };
    let mut found = Vec::new();
    while let Some(next) = documents.next().unwrap() {
        found.push(next.map(|document| {
            let mut text = String::new();
            match document.text {
                Text::Memory(bytes) => text = String::from_utf8(bytes).unwrap(),
                Text::File(mut file) => drop(file.read_to_string(&mut text).unwrap()),
            }
            (document.line, text)
        }));
    }
    found
}

fn found(input: &str) -> Vec<Result<(u64, String), (u64, Broken)>> {
    let found = found_with(input.as_bytes(), 8192, IN_MEMORY);
    assert_eq!(found, found_with(input.as_bytes(), 1, 1), "buffers and files make no difference");
    found
}

fn good(line: u64, text: &str) -> Result<(u64, String), (u64, Broken)> {
    Ok((line, text.to_owned()))
}

#[test]
fn one_a_line_or_spread_over_lines_or_side_by_side() {
    assert_eq!(
        found(
            "\u{feff}\n {\"a\":\"}\\\"{\"}\r\n\n{\"b\":[]}{\"c\":1}\t{\n  \"d\": {\n    \"e\": 1\n  }\n}\n{}"
        ),
        [
            good(2, "{\"a\":\"}\\\"{\"}"),
            good(4, "{\"b\":[]}"),
            good(4, "{\"c\":1}"),
            good(4, "{\n  \"d\": {\n    \"e\": 1\n  }\n}"),
            good(9, "{}"),
        ]
    );
    assert_eq!(found(""), []);
    assert_eq!(found(" \n\n"), []);
}

#[test]
fn other_encodings_and_second_marks_are_named() {
    for text in [
        &b"\xff\xfe{\0}\0"[..],
        b"\xfe\xff\0{\0}",
        b"{\0}\0\n\0{\0}\0",
        b"\0{\0}",
        b"\xff\xfe\0\0{\0\0\0}\0\0\0",
    ] {
        for buffer in [1, 8192] {
            assert_eq!(found_with(text, buffer, IN_MEMORY), [Err((1, Broken::Utf16))]);
        }
    }
    assert_eq!(found("\u{feff}\u{feff}{}\n{}"), [Err((1, Broken::SecondMark)), good(2, "{}")]);
    assert_eq!(found("{}\n\u{feff}{}\n"), [good(1, "{}"), Err((2, Broken::SecondMark))]);
    // Half a mark is none, and what begins with it is not cut off.
    assert_eq!(found("\u{fee0}{}\n{}"), [Err((1, Broken::NoObject)), good(2, "{}")]);
    assert_eq!(found_with(b"\xef\n{}", 1, 1), [Err((1, Broken::NoObject)), good(2, "{}")]);
}

#[test]
fn after_a_broken_line_the_next_one_is_read() {
    assert_eq!(
        found("{\"a\":1}\n{\"b\":\"cut o\n{\"c\":{\"d\":1\n{\"e\":1}\n[1]\nnull\n{}\n{\"f\""),
        [
            good(1, "{\"a\":1}"),
            Err((2, Broken::LineEnds)),
            Err((3, Broken::LineEnds)),
            good(4, "{\"e\":1}"),
            Err((5, Broken::NoObject)),
            Err((6, Broken::NoObject)),
            good(7, "{}"),
            Err((8, Broken::Unfinished)),
        ]
    );
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| format!("{}{}", "{\"a\":".repeat(depth - 1) + "{", "}".repeat(depth));
    assert!(found(&nested(DEEPEST))[0].is_ok());
    assert_eq!(found(&format!("{}\n{{}}", nested(DEEPEST + 1))), [Err((1, Broken::TooDeep)), good(2, "{}")]);
}

proptest! {
    #[test]
    fn what_serde_reads_one_by_one_is_found(
        values in proptest::collection::vec("\\{(\"[a-z{}\\[\\]]{0,5}(\\\\\")?\":(1|null|\"\\\\\\\\\"|\\[\\{\\}\\]))?\\}", 0..6),
        pretty in any::<bool>(),
        separator in "(\n|\r\n|\n\n| )",
    ) {
        let texts: Vec<String> = values
            .iter()
            .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
            .map(|value| if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap())
            .collect();
        let found = found(&texts.join(&separator));
        let read: Vec<String> = found.into_iter().map(|next| next.unwrap().1).collect();
        prop_assert_eq!(read, texts);
    }

    #[test]
    fn anything_is_read_to_its_end(input in proptest::collection::vec(prop_oneof![
        any::<u8>(), proptest::sample::select(b"{}[]\"\\\n,:".to_vec())], 0..200)) {
        let mut documents = Documents::of(&input[..]);
        while documents.next().unwrap().is_some() {}
        prop_assert!(documents.input.fill_buf().unwrap().is_empty());
    }
}
