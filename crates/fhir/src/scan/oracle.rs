//! The same question, answered slowly and by other means: for the property tests and the fuzzer.

use super::Paths;
use crate::members::Members;
use crate::resource::oracle::members;
use crate::structure::NotAnObject;
use serde_json::value::RawValue;

/// Calls `found` with the text of each value at one of the paths in an object.
pub(crate) fn find<'a>(
    paths: &Paths,
    text: &'a [u8],
    mut found: impl FnMut(&'a [u8]),
) -> Result<(), NotAnObject> {
    let mut members = Members::of(text);
    while members.next_by(|key, cursor| paths.pass(key, cursor, &mut found))?.is_some() {}
    Ok(())
}

/// Whether [`Paths::pass`] finds what a JSON parser finds.
pub(crate) fn holds(text: &[u8], paths: &[&str]) {
    let mut found = Vec::new();
    let answer = find(&Paths::new(paths.iter().copied()), text, |value| found.push(value));
    let Some(tree) = json(text) else {
        return; // No harm was done, which is all that can be said.
    };
    assert_eq!(answer.is_ok(), tree.starts_with('{'), "{tree}");
    if answer.is_err() {
        return;
    }
    let Some(mut expected) = values(tree, paths) else { return };
    let mut found: Vec<_> = found.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{tree}");
}

/// The text without white space around it, if it is JSON.
pub(crate) fn json(text: &[u8]) -> Option<&str> {
    serde_json::from_slice::<&RawValue>(text).ok().map(|value| value.get().trim())
}

/// The texts of all values at the paths. `None`: a key on the way is not text (half a surrogate pair).
pub(crate) fn values(object: &str, paths: &[&str]) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for path in paths {
        follow(object, &path.split('.').collect::<Vec<_>>(), &mut values)?;
    }
    Some(values)
}

fn follow(value: &str, names: &[&str], out: &mut Vec<String>) -> Option<()> {
    if value.starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
        for element in elements.iter().map(|element| element.get()).filter(|text| !text.starts_with('[')) {
            follow(element, names, out)?;
        }
        return Some(());
    }
    match names {
        [] => out.push(value.to_owned()),
        [name, rest @ ..] if value.starts_with('{') => {
            for (_, value) in members(value)?.iter().filter(|(key, _)| key == name) {
                follow(value, rest, out)?;
            }
        }
        _ => {}
    }
    Some(())
}
