//! The text of a resource as it is streamed: the stored text with `id`, `meta.versionId` and
//! `meta.lastUpdated` set, spliced in as text, so that no decimal and no order of keys changes.
//!
//! This runs once for every change: one pass over the text finds what is replaced ([`Plan`]) and, where
//! it is asked for, the patients that the resource belongs to. Then three pieces are copied. Nothing is
//! allocated but the output.

mod plan;

use crate::compartment::Search;
use crate::line_breaks::{first_special, make_one_line};
use crate::structure::NotAnObject;
use crate::{BaseUrls, Instant, Patients, ResourceType, canonical};
use plan::Plan;
use std::borrow::Cow;
use std::io;

/// What the row's columns say of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The column `resource_type`.
    pub resource_type: ResourceType,
    /// The column `id`.
    pub id: &'a str,
    /// The column `version_id`.
    pub version_id: i64,
    /// The column `last_updated`.
    pub last_updated: Instant,
}

/// The row cannot be streamed. Says what is wrong, never what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadResource {
    /// The content is no JSON object.
    #[error("the content is not a JSON object")]
    NotAnObject,
    /// The content's `resourceType` is missing or is not the column's.
    #[error("the content's resourceType is not that of the row")]
    OtherType,
    /// The id breaks FHIR's rule: 1 to 64 letters, digits, '-' and '.'.
    #[error("the id is not a FHIR id (1 to 64 letters, digits, '-' and '.')")]
    InvalidId,
}

impl From<NotAnObject> for BadResource {
    fn from(_: NotAnObject) -> Self {
        Self::NotAnObject
    }
}

/// Whether the text is a FHIR id: <https://hl7.org/fhir/R4/datatypes.html#id>.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}

/// Appends the resource as it is streamed: one line. On an error nothing is appended.
///
/// Every top-level `id` and `meta` is replaced (where the first one stands; by default after
/// `resourceType`). What else `meta` held stays as it was written, taken from the last one if there are
/// several, as JSON parsers do. A raw CR or LF, which can only stand between tokens, becomes a space; what else Unicode
/// calls a line break, which can only stand in a string, becomes its escape.
pub fn write_resource(content: &[u8], columns: &Columns<'_>, out: &mut Vec<u8>) -> Result<(), BadResource> {
    if !is_id(columns.id) {
        return Err(BadResource::InvalidId);
    }
    let plan = Plan::of(content, columns.resource_type, |_, cursor| cursor.skip())?;
    append(&plan, content, columns, out)
}

/// Does what [`write_resource`] does, and returns the patients in whose compartments the resource is.
///
/// The text is passed once for both. An error also where `write_resource` has none: if the text is not
/// JSON in an element that may name a patient. A content of the type `json` never is.
pub fn write_resource_with_patients(
    content: &[u8],
    columns: &Columns<'_>,
    bases: &BaseUrls,
    out: &mut Vec<u8>,
) -> Result<Patients, BadResource> {
    let (plan, patients) = find(content, columns.resource_type, columns.id, bases)?;
    append(&plan, content, columns, out)?;
    Ok(patients)
}

/// The patients in whose compartments a resource is, for a content that is not written.
///
/// An error exactly if [`write_resource_with_patients`] would have one, so that a resource that belongs
/// to no patient can be told from a content that cannot be read.
pub fn patients_of_resource(
    content: &[u8],
    resource_type: ResourceType,
    id: &str,
    bases: &BaseUrls,
) -> Result<Patients, BadResource> {
    let (plan, patients) = find(content, resource_type, id, bases)?;
    plan.check(content)?;
    Ok(patients)
}

/// One pass over the text: where it is changed, and whose it is.
fn find(
    content: &[u8],
    resource_type: ResourceType,
    id: &str,
    bases: &BaseUrls,
) -> Result<(Plan, Patients), BadResource> {
    if !is_id(id) {
        return Err(BadResource::InvalidId);
    }
    let mut search = Search::of(resource_type, id, bases);
    let plan = Plan::of(content, resource_type, |key, cursor| search.pass(key, cursor))?;
    Ok((plan, search.patients()))
}

fn append(plan: &Plan, content: &[u8], columns: &Columns<'_>, out: &mut Vec<u8>) -> Result<(), BadResource> {
    let start = out.len();
    out.reserve(content.len() + 128);
    if let Err(error) = plan.write(content, columns, out) {
        out.truncate(start);
        return Err(error);
    }
    // After the copy, over the whole: nothing that opens a second line can slip through.
    if let Some(special) = first_special(&out[start..]) {
        make_one_line(out, start + special);
    }
    Ok(())
}

/// Of how many bytes at least, if there are so many, a large resource is written at once.
const WINDOW: usize = 64 << 10;

/// The text in windows that end where a character does.
fn windows(mut text: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
        let rest = text.get(WINDOW..).unwrap_or_default();
        let end = text.len().min(WINDOW + rest.iter().take_while(continues).count());
        let (window, rest) = text.split_at(end);
        text = rest;
        (!window.is_empty()).then_some(window)
    })
}

/// A large resource as it is streamed, which is not copied: [`write`](Self::write) does what [`write_resource`] does.
#[derive(Debug)]
pub struct LargeResource<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> LargeResource<'a> {
    /// The resource with this content, which is looked through once.
    pub fn of(content: &'a [u8], columns: &Columns<'_>) -> Result<Self, BadResource> {
        if !is_id(columns.id) {
            return Err(BadResource::InvalidId);
        }
        let mut pieces = Vec::new();
        let plan = Plan::of(content, columns.resource_type, |_, cursor| cursor.skip())?;
        plan.write(content, columns, &mut pieces)?;
        Ok(Self(pieces))
    }

    /// Writes it: one line.
    pub fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut line = Vec::with_capacity(WINDOW);
        for window in self.0.iter().flat_map(|piece| windows(piece)) {
            line.clear();
            line.extend_from_slice(window);
            if let Some(special) = first_special(&line) {
                make_one_line(&mut line, special);
            }
            out.write_all(&line)?;
        }
        Ok(())
    }
}

/// Where a resource is written: what is kept of its content, and what is made.
trait Output<'a> {
    fn keep(&mut self, content: &'a [u8]);
    fn make(&mut self) -> &mut Vec<u8>;
}

impl Output<'_> for Vec<u8> {
    fn keep(&mut self, content: &[u8]) {
        self.extend_from_slice(content);
    }

    fn make(&mut self) -> &mut Vec<u8> {
        self
    }
}

impl<'a> Output<'a> for Vec<Cow<'a, [u8]>> {
    fn keep(&mut self, content: &'a [u8]) {
        self.push(Cow::Borrowed(content));
    }

    fn make(&mut self) -> &mut Vec<u8> {
        if !matches!(self.last(), Some(Cow::Owned(_))) {
            self.push(Cow::Owned(Vec::new()));
        }
        let last = self.len() - 1;
        self[last].to_mut()
    }
}

/// Appends the Bundle that tells of a deletion: one line. On an error nothing is appended.
/// It says the time, the type and the id, never the content.
pub fn write_deletion(columns: &Columns<'_>, out: &mut Vec<u8>) -> Result<(), BadResource> {
    write_removal("deleted", columns.resource_type, columns.id, columns.last_updated, out)
}

/// Appends the Bundle that tells of a resource which still exists, but is no longer among what was asked for since this time:
/// one line, as of a deletion but for its tag. On an error nothing is appended.
pub fn write_out_of_scope(
    resource_type: ResourceType,
    id: &str,
    since: Instant,
    out: &mut Vec<u8>,
) -> Result<(), BadResource> {
    write_removal("out-of-scope", resource_type, id, since, out)
}

fn write_removal(
    code: &str,
    resource_type: ResourceType,
    id: &str,
    at: Instant,
    out: &mut Vec<u8>,
) -> Result<(), BadResource> {
    if !is_id(id) {
        return Err(BadResource::InvalidId);
    }
    out.extend_from_slice(br#"{"resourceType":"Bundle","meta":{"lastUpdated":""#);
    at.write_fhir(out);
    out.extend_from_slice(br#"","tag":[{"system":""#);
    out.extend_from_slice(canonical::DELETION_CODES.as_bytes());
    out.extend_from_slice(br#"","code":""#);
    out.extend_from_slice(code.as_bytes());
    out.extend_from_slice(br#""}]},"type":"transaction","entry":[{"request":{"method":"DELETE","url":""#);
    out.extend_from_slice(resource_type.as_str().as_bytes());
    out.push(b'/');
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#""}}]}"#);
    Ok(())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
