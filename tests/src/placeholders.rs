//! Text with placeholders for what differs from run to run: `<id>`, `<instant>`, `<number>`, `<lsn>`. One with a name
//! (`<id 1>`) is the same text wherever the name is.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::collections::HashMap;

/// What the named placeholders stand for, as far as it is known.
#[derive(Default)]
pub struct Placeholders(HashMap<String, String>);

/// A member of an object in an expected text that stands for any others.
const OTHERS: &str = "…";

fn belongs(kind: &str, c: char) -> Option<bool> {
    Some(match kind {
        "id" => c.is_ascii_alphanumeric() || matches!(c, '-' | '_'),
        "instant" => c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z'),
        "number" => c.is_ascii_digit() || c == '.',
        "lsn" => c.is_ascii_hexdigit() || c == '/',
        _ => return None,
    })
}

/// The first placeholder: what is before it, its kind, all between the brackets, and what is after it.
fn first(text: &str) -> Option<(&str, &str, &str, &str)> {
    let mut from = 0;
    while let Some(opens) = text[from..].find('<').map(|at| from + at) {
        let inner = text[opens + 1..].split_once('>');
        if let Some((inner, after)) = inner {
            let kind = inner.split(' ').next().unwrap_or_default();
            if belongs(kind, '0').is_some() {
                return Some((&text[..opens], kind, inner, after));
            }
        }
        from = opens + 1;
    }
    None
}

impl Placeholders {
    /// Puts what is known in the place of the placeholders.
    pub fn fill(&self, text: &str) -> Result<String> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, _, inner, after)) = first(rest) {
            filled += before;
            filled += self.0.get(inner).with_context(|| format!("nothing has said what <{inner}> is"))?;
            rest = after;
        }
        Ok(filled + rest)
    }

    /// Compares a text with what came, and learns what the placeholders stand for.
    pub fn compare(&mut self, expected: &str, came: &str) -> Result<()> {
        let (mut expected_rest, mut came_rest) = (expected, came);
        let differs = || format!("{came:?} came and {expected:?} is shown");
        while let Some((before, kind, inner, after)) = first(expected_rest) {
            let here = came_rest.strip_prefix(before).with_context(differs)?;
            let length = here.find(|c| !belongs(kind, c).unwrap_or(false)).unwrap_or(here.len());
            let (value, rest) = here.split_at(length);
            ensure!(!value.is_empty(), "nothing stands where <{inner}> is: {}", differs());
            if inner != kind {
                let known = self.0.entry(inner.to_owned()).or_insert_with(|| value.to_owned());
                ensure!(known == value, "<{inner}> was {known}: {}", differs());
            }
            (expected_rest, came_rest) = (after, rest);
        }
        ensure!(expected_rest == came_rest, "{}", differs());
        Ok(())
    }

    /// Compares JSON with what came. A member "…" stands for any others.
    pub fn compare_json(&mut self, expected: &Value, came: &Value) -> Result<()> {
        match (expected, came) {
            (Value::Object(expected), Value::Object(came)) => {
                for (name, value) in expected.iter().filter(|(name, _)| *name != OTHERS) {
                    let came = came.get(name).with_context(|| format!("{name} is shown and did not come"))?;
                    self.compare_json(value, came).with_context(|| format!("in {name}"))?;
                }
                let other = came.keys().find(|name| !expected.contains_key(*name));
                if let Some(other) = other.filter(|_| !expected.contains_key(OTHERS)) {
                    bail!("{other} came and is not shown");
                }
                Ok(())
            }
            (Value::Array(expected), Value::Array(came)) => {
                ensure!(expected.len() == came.len(), "{} came, {} are shown", came.len(), expected.len());
                expected.iter().zip(came).try_for_each(|(expected, came)| self.compare_json(expected, came))
            }
            (Value::String(expected), Value::String(came)) => self.compare(expected, came),
            // A number that differs is written without quotes, which the reader of the document put there.
            (Value::String(expected), Value::Number(came)) => self.compare(expected, &came.to_string()),
            _ => {
                ensure!(expected == came, "{came} came and {expected} is shown");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_shown_must_come() {
        let mut known = Placeholders::default();
        known.compare("id: <id 1>, at <instant>", "id: a_-9, at 2026-01-01T00:00:00.5Z").unwrap();
        assert_eq!(known.fill("x<id 1>y < z").unwrap(), "xa_-9y < z");
        assert!(known.compare("<id 1>", "other").is_err());
        assert!(known.compare("<number>", "").is_err());
        assert!(known.compare("a<number>b", "a1c").is_err());
        assert!(known.compare("a", "ab").is_err());
        assert!(known.fill("<id 2>").is_err());
    }

    #[test]
    fn json_is_compared_by_its_members() {
        let mut known = Placeholders::default();
        let came = json!({"a": 17, "b": [{"c": "x1"}], "d": null});
        known.compare_json(&json!({"a": "<number>", "b": [{"c": "x<number>"}], "d": null}), &came).unwrap();
        known.compare_json(&json!({"d": null, "…": "…"}), &came).unwrap();
        for wrong in
            [json!({"d": null}), json!({"e": 1, "…": 1}), json!({"b": [], "…": 1}), json!({"a": 18, "…": 1})]
        {
            assert!(known.compare_json(&wrong, &came).is_err(), "{wrong}");
        }
    }
}
