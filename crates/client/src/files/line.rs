//! What a line says, and how it is written: the resource as it came, or in an envelope.

use crate::content::{Deletion, NotUnderstood};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::io::Write as _;

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LineFormat {
    /// What the event holds.
    #[default]
    Plain,
    /// `{"seq":1,"op":"upsert","type":"Patient","id":"p1","resource":{…}}`
    Envelope,
}

impl LineFormat {
    // The signature is serde's.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// What a line in an envelope says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op<'a> {
    /// A resource as it is now.
    Upsert { resource_type: &'a str, id: &'a str, resource: &'a [u8] },
    /// It is gone.
    Delete { resource_type: &'a str, id: &'a str },
    /// It does not belong to what was asked for any more.
    Remove { resource_type: &'a str, id: &'a str },
    /// What does not come again before the line `live` is gone.
    ResetAll,
    /// All has come again.
    Live,
}

impl<'a> From<&'a Deletion> for Op<'a> {
    fn from(deletion: &'a Deletion) -> Self {
        let Deletion { resource_type, id, out_of_scope } = deletion;
        if *out_of_scope { Self::Remove { resource_type, id } } else { Self::Delete { resource_type, id } }
    }
}

impl<'a> Op<'a> {
    /// A resource that came. Its text is looked through: one that is no JSON would spoil the lines after it, too.
    pub(super) fn upsert(resource_type: &'a str, resource: &'a [u8]) -> Result<Self, NotUnderstood> {
        let id = fhir::stored_id(resource).filter(|id| fhir::is_id(id)).ok_or(NotUnderstood::NoResourceId)?;
        serde_json::from_slice::<IgnoredAny>(resource).map_err(|_| NotUnderstood::NotJson)?;
        Ok(Self::Upsert { resource_type, id, resource })
    }

    /// Writes it. Types and ids have no character that JSON would have to escape.
    pub(super) fn write(self, seq: u64, out: &mut Vec<u8>) {
        let (op, key, resource) = match self {
            Self::Upsert { resource_type, id, resource } => {
                ("upsert", Some((resource_type, id)), Some(resource))
            }
            Self::Delete { resource_type, id } => ("delete", Some((resource_type, id)), None),
            Self::Remove { resource_type, id } => ("remove", Some((resource_type, id)), None),
            Self::ResetAll => ("reset-all", None, None),
            Self::Live => ("live", None, None),
        };
        // Nothing that is written to memory fails.
        let _ = write!(out, r#"{{"seq":{seq},"op":"{op}""#);
        if let Some((resource_type, id)) = key {
            let _ = write!(out, r#","type":"{resource_type}","id":"{id}""#);
        }
        if let Some(resource) = resource {
            out.extend_from_slice(br#","resource":"#);
            out.extend_from_slice(resource);
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(op: Op<'_>) -> String {
        let mut out = Vec::new();
        op.write(7, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_operation_has_its_line() {
        let resource = r#"{"resourceType":"Patient","n":1.50,"id":"p1"}"#;
        let (resource_type, id) = ("Patient", "p1");
        for (op, expected) in [
            (
                Op::upsert("Patient", resource.as_bytes()).unwrap(),
                format!(r#"{{"seq":7,"op":"upsert","type":"Patient","id":"p1","resource":{resource}}}"#),
            ),
            (
                Op::Delete { resource_type, id },
                r#"{"seq":7,"op":"delete","type":"Patient","id":"p1"}"#.to_owned(),
            ),
            (
                Op::Remove { resource_type, id },
                r#"{"seq":7,"op":"remove","type":"Patient","id":"p1"}"#.to_owned(),
            ),
            (Op::ResetAll, r#"{"seq":7,"op":"reset-all"}"#.to_owned()),
            (Op::Live, r#"{"seq":7,"op":"live"}"#.to_owned()),
        ] {
            let line = written(op);
            assert_eq!(line, expected);
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }

    #[test]
    fn a_resource_that_would_spoil_the_line_is_not_understood() {
        for (text, why) in [
            (r#"{"resourceType":"Patient"}"#, NotUnderstood::NoResourceId),
            (r#"{"id":7}"#, NotUnderstood::NoResourceId),
            (r#"{"id":"a\",\"op\":\"delete"}"#, NotUnderstood::NoResourceId),
            (r#"{"id":""}"#, NotUnderstood::NoResourceId),
            (r#"{"id":"a"}} {"seq":8}"#, NotUnderstood::NotJson),
            (r#"{"id":"a","x":}"#, NotUnderstood::NotJson),
            (r#"{"id":"a""#, NotUnderstood::NotJson),
        ] {
            assert_eq!(Op::upsert("Patient", text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn how_deep_a_resource_is_does_not_matter() {
        let deep = format!(r#"{{"id":"a","x":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert!(Op::upsert("Basic", deep.as_bytes()).is_ok());
    }
}
