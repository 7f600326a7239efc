//! The same question, answered slowly and by other means: for property tests.

use super::Paths;
use serde_json::Value;

/// Whether [`Paths::find`] finds what a JSON parser finds.
pub(super) fn holds(text: &[u8], paths: &[&str]) {
    let mut found = Vec::new();
    let answer = Paths::new(paths.iter().copied()).find(text, |value| found.push(value));
    let Ok(tree) = serde_json::from_slice::<Value>(text) else {
        return; // No harm was done, which is all that can be said.
    };
    assert_eq!(answer.is_ok(), tree.is_object(), "{}", String::from_utf8_lossy(text));
    if !tree.is_object() || has_duplicates(text) {
        return;
    }
    let found: Vec<Value> = found.iter().map(|value| parsed(value)).collect();
    let mut expected = Vec::new();
    for path in paths {
        let names: Vec<&str> = path.split('.').collect();
        follow(&tree, &names, &mut expected);
    }
    let sorted = |values: &[Value]| {
        let mut texts: Vec<String> = values.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(&found), sorted(&expected), "{}", String::from_utf8_lossy(text));
}

/// What was found is a whole value.
fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_else(|error| {
        // A wrong slice is what the test is for.
        #[allow(clippy::panic)]
        {
            panic!("'{}' is not a value: {error}", String::from_utf8_lossy(text))
        }
    })
}

fn follow(value: &Value, names: &[&str], out: &mut Vec<Value>) {
    match (names, value) {
        (_, Value::Array(elements)) => {
            for element in elements.iter().filter(|element| !element.is_array()) {
                follow(element, names, out);
            }
        }
        ([], _) => out.push(value.clone()),
        ([name, rest @ ..], Value::Object(members)) => {
            if let Some(value) = members.get(*name) {
                follow(value, rest, out);
            }
        }
        _ => {}
    }
}

/// Whether a parser would drop members, so that the two cannot be compared.
fn has_duplicates(text: &[u8]) -> bool {
    let keys = |text: &[u8]| text.windows(2).filter(|pair| *pair == b"\":").count();
    let Ok(tree) = serde_json::from_slice::<Value>(text) else { return true };
    // White space may stand before a colon: then the count is too low, and nothing is compared.
    keys(text) != keys(tree.to_string().as_bytes())
}
