//! Links to entries of a Bundle that get their ids here: `urn:uuid:X` becomes `Type/X`.
//!
//! Which places hold links is what R4's rules for transactions say (<https://hl7.org/fhir/R4/http.html#trules>):
//! references, elements of type uri, url, oid and uuid, and `<a href>` and `<img src>` of narratives. Texts, codes,
//! the values of identifiers and canonicals stay as they are.

use super::narrative;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// What each `urn:…` of a Bundle stands for: `Type/id`.
pub(super) type Links = HashMap<String, String>;

/// How the URLs that may stand for an entry begin.
pub(super) const URNS: [&str; 2] = ["urn:uuid:", "urn:oid:"];

/// The resource with each link to an entry replaced, in its text: everything else is to stay as it was written.
pub(super) fn resolved<'a>(text: &'a str, resource_type: &str, links: &Links) -> Cow<'a, str> {
    // A link may be written with escapes.
    if links.is_empty() || !(text.contains("urn:") || text.contains("\\u")) {
        return Cow::Borrowed(text);
    }
    let mut replaced: Vec<(Range<usize>, &str)> = Vec::new();
    // The names of the members whose values are open.
    let mut open: Vec<Open<'_>> = Vec::new();
    let (mut at, mut key) = (0, Cow::Borrowed(""));
    while let Some(found) = text[at..].find(['"', '{', '}', '[', ']']) {
        at += found;
        match text.as_bytes()[at] {
            b'"' => {}
            bracket @ (b'{' | b'[') => {
                // What is in a list belongs to the list's member.
                let name = match open.last() {
                    Some(outer) if !outer.object => outer.name.clone(),
                    _ => std::mem::take(&mut key),
                };
                open.push(Open { object: bracket == b'{', name });
            }
            _ => drop(open.pop()),
        }
        let Some(string) = string_at(text, at) else {
            if text.as_bytes()[at] == b'"' {
                break;
            }
            at += 1;
            continue;
        };
        at = string.end + 1;
        let raw = &text[string.clone()];
        if text[at..].trim_start().starts_with(':') {
            key = unescaped(raw);
            continue;
        }
        let mut enclosing = open.iter().rev();
        let member = match enclosing.clone().next() {
            Some(list) if !list.object => list.name.as_ref(),
            _ => key.as_ref(),
        };
        let parent = enclosing.find(|outer| outer.object).map_or("", |object| object.name.as_ref());
        if member == "div" && parent == "text" {
            let found = narrative::links(raw).into_iter();
            let found = found.filter_map(|(range, url)| Some((range, links.get(&url)?)));
            replaced.extend(
                found.map(|(range, link)| {
                    (range.start + string.start..range.end + string.start, link.as_str())
                }),
            );
        } else if is_link(resource_type, parent, member)
            && let Some(link) = links.get(unescaped(raw).as_ref())
        {
            replaced.push((string, link));
        }
        key = Cow::Borrowed("");
    }
    if replaced.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (place, link) in replaced {
        out.push_str(&text[copied..place.start]);
        out.push_str(link);
        copied = place.end;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// An object or a list, and the member that it is the value of.
struct Open<'a> {
    object: bool,
    name: Cow<'a, str>,
}

/// Whether the strings of a member are links: `Reference.reference`, or of type uri, url, oid or uuid in R4. Most names
/// mean one thing wherever they stand; where they do not, the object that they stand in tells.
fn is_link(resource_type: &str, parent: &str, name: &str) -> bool {
    match name {
        "reference" | "authority" | "authorizationUrl" | "contentReference" | "defaultValueOid"
        | "defaultValueUri" | "defaultValueUrl" | "defaultValueUuid" | "definitionUri" | "derivedFromUri"
        | "endpoint" | "eventUri" | "fixedOid" | "fixedUri" | "fixedUrl" | "fixedUuid" | "fullUrl"
        | "implicitRules" | "instantiatesUri" | "issuer" | "jurisdiction" | "link" | "moduleUri"
        | "nameUrl" | "onlineInformation" | "patternOid" | "patternUri" | "patternUrl" | "patternUuid"
        | "policy" | "protocol" | "relativePath" | "rendering" | "sourceUri" | "targetUri" | "valueOid"
        | "valueUri" | "valueUrl" | "valueUuid" => true,
        // A string in AuditEvent.
        "address" => parent != "network",
        "definition" => parent == "item",
        "detail" => parent == "operation",
        "identifier" => parent == "expansion",
        // A canonical there.
        "instantiates" => resource_type != "CapabilityStatement",
        "location" => parent == "response",
        "property" => matches!(parent, "dependsOn" | "product"),
        "source" => matches!(parent, "" | "contained" | "resource" | "group" | "meta"),
        // Canonicals in ConceptMap, ImplementationGuide, TerminologyCapabilities and StructureMap.
        "system" => !matches!(parent, "dependsOn" | "product"),
        "target" => parent == "group",
        "uri" => !matches!(parent, "dependsOn" | "codeSystem"),
        "url" => !matches!(parent, "unmapped" | "structure" | "operation"),
        _ => false,
    }
}

/// What stands between the quotes of the string that begins at a place; `None` if none does, or it does not end.
fn string_at(text: &str, at: usize) -> Option<Range<usize>> {
    let start = at + 1;
    text[at..].starts_with('"').then_some(())?;
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

fn unescaped(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    // Half of a surrogate pair is in no name and in no link.
    serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links() -> Links {
        [
            ("urn:uuid:a-1".to_owned(), "Patient/p".to_owned()),
            ("urn:oid:1.2".to_owned(), "Group/g".to_owned()),
        ]
        .into()
    }

    fn is_replaced(resource_type: &str, text: &str) -> bool {
        let now = resolved(text, resource_type, &links());
        assert!(now == text || now == text.replace("urn:uuid:a-1", "Patient/p"), "{now}");
        now != text
    }

    #[test]
    fn references_and_uris_are_links_and_texts_codes_and_canonicals_are_not() {
        for link in [
            r#"{"subject":{"reference" : "urn:uuid:a-1" }}"#,
            r#"{"subject":{"refer\u0065nce":"urn:uuid:a-1"}}"#,
            r#"{"extension":[{"url":"x","valueReference":{"reference":"urn:uuid:a-1"}}]}"#,
            r#"{"extension":[{"url":"urn:uuid:a-1"}]}"#,
            r#"{"extension":[{"url":"x","valueUri":"urn:uuid:a-1"}]}"#,
            r#"{"extension":[{"url":"x","valueUrl":"urn:uuid:a-1"}]}"#,
            r#"{"extension":[{"url":"x","valueUuid":"urn:uuid:a-1"}]}"#,
            r#"{"content":[{"attachment":{"url":"urn:uuid:a-1"}}]}"#,
            r#"{"instantiatesUri":["x","urn:uuid:a-1"]}"#,
            r#"{"meta":{"source":"urn:uuid:a-1"}}"#,
            r#"{"identifier":[{"system":"urn:uuid:a-1","value":"1"}]}"#,
            r#"{"contained":[{"source":"urn:uuid:a-1"}]}"#,
            r#"{"endpoint":"urn:uuid:a-1"}"#,
        ] {
            assert!(is_replaced("Observation", link), "{link}");
        }
        for other in [
            r#"{"valueString":"urn:uuid:a-1"}"#,
            r#"{"note":[{"text":"urn:uuid:a-1"}]}"#,
            r#"{"code":{"coding":[{"code":"urn:uuid:a-1","display":"urn:uuid:a-1"}]}}"#,
            r#"{"identifier":[{"system":"urn:ietf:rfc:3986","value":"urn:uuid:a-1"}]}"#,
            r#"{"meta":{"profile":["urn:uuid:a-1"]}}"#,
            r#"{"instantiatesCanonical":["urn:uuid:a-1"]}"#,
            r#"{"extension":[{"url":"x","valueCanonical":"urn:uuid:a-1"}]}"#,
            r#"{"extension":[{"url":"x","valueMarkdown":"urn:uuid:a-1"}]}"#,
            r#"{"extension":[{"url":"x","valueId":"urn:uuid:a-1"}]}"#,
            r#"{"library":["urn:uuid:a-1"],"questionnaire":"urn:uuid:a-1"}"#,
            r#"{"subject":{"reference":"urn:uuid:a-1#x","display":"urn:uuid:a-1"}}"#,
            r#"{"subject":{"reference":"urn:uuid:a-11"},"urn:uuid:a-1":1}"#,
            r#"{"reference":[],"name":"urn:uuid:a-1"}"#,
            r#"{"subject":{"reference":{"x":1},"display":"urn:uuid:a-1"}}"#,
            r#"{"dependsOn":[{"uri":"urn:uuid:a-1"}]}"#,
            r#"["urn:uuid:a-1"]"#,
        ] {
            assert!(!is_replaced("Observation", other), "{other}");
        }
        let instantiates = r#"{"instantiates":["urn:uuid:a-1"]}"#;
        assert!(is_replaced("NutritionOrder", instantiates));
        assert!(!is_replaced("CapabilityStatement", instantiates));
    }

    #[test]
    fn what_is_around_a_link_stays_as_it_was_written() {
        let text = "{ \"a\":1.50,\n\"subject\":{\"reference\":\"urn\\u003auuid:a-1\"},\"b\":[\"\\\\\\\"\",{\"reference\":\"urn:oid:1.2\"}],\"n\":1e400}";
        let expected = "{ \"a\":1.50,\n\"subject\":{\"reference\":\"Patient/p\"},\"b\":[\"\\\\\\\"\",{\"reference\":\"Group/g\"}],\"n\":1e400}";
        assert_eq!(resolved(text, "Observation", &links()), expected);
    }

    #[test]
    fn links_of_a_narrative_are_replaced() {
        let text = r#"{"text":{"status":"generated","div":"<div><a href=\"urn:uuid:a-1\">urn:uuid:a-1</a></div>"},"div":"<a href=\"urn:uuid:a-1\"/>"}"#;
        let expected = r#"{"text":{"status":"generated","div":"<div><a href=\"Patient/p\">urn:uuid:a-1</a></div>"},"div":"<a href=\"urn:uuid:a-1\"/>"}"#;
        assert_eq!(resolved(text, "Observation", &links()), expected);
    }

    proptest! {
        #[test]
        fn what_is_no_reference_stays(text in "(urn:uuid:a-2|\"|\\\\|\\PC|:|[{}]|\\[|\\]|reference|text|div){0,30}") {
            prop_assert_eq!(resolved(&text, "Patient", &links()), text.as_str());
        }

        #[test]
        fn strings_are_told_apart_as_json_does(strings in proptest::collection::vec("(urn:uuid:a-1|[\"\\\\ü:,\n{}]){0,2}", 0..6)) {
            let written = serde_json::to_string(&serde_json::json!({ "reference": strings })).unwrap();
            let read: HashMap<String, Vec<String>> =
                serde_json::from_str(&resolved(&written, "Patient", &links())).unwrap();
            let expected: Vec<String> =
                strings.into_iter().map(|text| if text == "urn:uuid:a-1" { "Patient/p".to_owned() } else { text }).collect();
            prop_assert_eq!(&read["reference"], &expected);
        }
    }
}
