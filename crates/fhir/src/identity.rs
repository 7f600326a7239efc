//! Telling what is stored from what a service makes: the one always has an `id`, the other never.

use crate::cursor::means;
use crate::is_id;
use crate::members::Members;

/// The `id` at the top of a resource's text. `None`: a deletion's Bundle or a notice (or no JSON object).
///
/// Reads no further than it must: where a stream comes from here, the id is the second member.
pub fn stored_id(text: &[u8]) -> Option<&str> {
    let mut members = Members::of(text);
    while let Ok(Some(member)) = members.next() {
        if means(&text[member.key.clone()], "id") {
            return match &text[member.value] {
                [b'"', id @ .., b'"'] => std::str::from_utf8(id).ok(),
                _ => None,
            };
        }
    }
    None
}

/// The id of the resource that a deletion's Bundle, as it is streamed, says is gone.
pub fn deleted_id(bundle: &[u8]) -> Option<&str> {
    let text = bundle.strip_suffix(br#""}}]}"#)?;
    let start = text.iter().rposition(|byte| *byte == b'/')? + 1;
    std::str::from_utf8(&text[start..]).ok().filter(|id| is_id(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Columns, Instant, NoticeCode, Outcome, ResourceType, write_deletion, write_resource};

    #[test]
    fn what_is_stored_has_an_id_and_what_is_made_has_none() {
        let columns = Columns {
            resource_type: ResourceType::BUNDLE,
            id: "a-1",
            version_id: 7,
            last_updated: Instant::from_unix_micros(0),
        };
        let mut out = Vec::new();
        let content =
            br#"{"entry":[{"id":"inner"}],"x":"\"id\":\"y\"","resourceType":"Bundle","type":1,"type":2}"#;
        write_resource(content, &columns, &mut out).unwrap();
        assert_eq!(stored_id(&out), Some("a-1"));
        out.clear();
        write_deletion(&columns, &mut out).unwrap();
        assert_eq!(stored_id(&out), None);
        assert_eq!(deleted_id(&out), Some("a-1"));
        assert_eq!(deleted_id(content), None);
        assert_eq!(stored_id(Outcome::notice(NoticeCode::Live, "id").to_json().as_bytes()), None);
    }

    #[test]
    fn other_texts_have_none() {
        for text in ["", "[]", "{", r#"{"id":1}"#, r#"{"a":{"id":"b"}}"#, r#"{"id" "a"}"#] {
            assert_eq!(stored_id(text.as_bytes()), None, "{text}");
        }
        assert_eq!(stored_id(br#"{ "\u0069d" : "a" , "rest is not read"#), Some("a"));
    }
}
