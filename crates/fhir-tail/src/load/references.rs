//! References to entries of a Bundle that get their ids here: `urn:uuid:X` becomes `Type/X`.

use std::borrow::Cow;
use std::collections::HashMap;

/// What each `urn:uuid:…` of a Bundle stands for: `Type/id`.
pub(super) type Links = HashMap<String, String>;

/// How the URLs that may stand for an entry begin.
pub(super) const URN: &str = "urn:uuid:";

/// The text with each string value that is the URL of an entry replaced. In text, as everything else
/// is to stay as it was written. Not the members named `value`: there it is an identifier, which stays true.
pub(super) fn resolved<'a>(text: &'a str, links: &Links) -> Cow<'a, str> {
    if links.is_empty() || !text.contains(URN) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut at, mut key) = (0, 0, "");
    while let Some(string) = next_string(text, at) {
        at = string.end + 1;
        let content = &text[string.clone()];
        if text[at..].trim_start().starts_with(':') {
            key = content;
        } else if key != "value"
            && content.starts_with(URN)
            && let Some(link) = links.get(content)
        {
            out.push_str(&text[copied..string.start]);
            out.push_str(link);
            copied = string.end;
        }
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// What stands between the quotes of the next string at or after a place between strings.
fn next_string(text: &str, at: usize) -> Option<std::ops::Range<usize>> {
    let start = at + text[at..].find('"')? + 1;
    let mut end = start;
    loop {
        end += text[end..].find(['"', '\\'])?;
        if text.as_bytes()[end] == b'"' {
            return Some(start..end);
        }
        // The backslash and what it escapes, which in valid JSON is one byte.
        end += 2;
        if !text.is_char_boundary(end) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links() -> Links {
        [("urn:uuid:a-1".to_owned(), "Patient/p".to_owned())].into()
    }

    #[test]
    fn values_are_replaced_and_nothing_else() {
        let text = r#"{"reference" : "urn:uuid:a-1" , "x":["urn:uuid:a-1","urn:uuid:a-2"],"urn:uuid:a-1":1,
            "value":"urn:uuid:a-1","n":1.50,"d":"a \"urn:uuid:a-1\" \\","url":"urn:uuid:a-1#x","r":{"reference":"urn:uuid:a-1"}}"#;
        let expected = r#"{"reference" : "Patient/p" , "x":["Patient/p","urn:uuid:a-2"],"urn:uuid:a-1":1,
            "value":"urn:uuid:a-1","n":1.50,"d":"a \"urn:uuid:a-1\" \\","url":"urn:uuid:a-1#x","r":{"reference":"Patient/p"}}"#;
        assert_eq!(resolved(text, &links()), expected);
    }

    proptest! {
        #[test]
        fn what_is_no_reference_stays(text in "(urn:uuid:a-2|\"|\\\\|\\PC|:|value){0,30}") {
            prop_assert_eq!(resolved(&text, &links()), text.as_str());
        }

        #[test]
        fn strings_are_told_apart_as_json_does(strings in proptest::collection::vec("(urn:uuid:a-1|[\"\\\\ü:,\n]){0,2}", 0..6)) {
            let written = serde_json::to_string(&strings).unwrap();
            let read: Vec<String> = serde_json::from_str(&resolved(&written, &links())).unwrap();
            let expected: Vec<String> =
                strings.into_iter().map(|text| if text == "urn:uuid:a-1" { "Patient/p".to_owned() } else { text }).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
