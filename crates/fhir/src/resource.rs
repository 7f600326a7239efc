//! The text of a resource as it is streamed: the stored text with `id`, `meta.versionId` and
//! `meta.lastUpdated` set, spliced in as text, so that no decimal and no order of keys changes.
//!
//! This runs once for every change: a scan for the members of the object ([`Members`]), then three
//! pieces copied, and no allocation but the output.

use crate::line_breaks::{first_special, make_one_line};
use crate::members::{Member, Members, means};
use crate::structure::NotAnObject;
use crate::{Instant, ResourceType, canonical};
use std::borrow::Cow;
use std::io;
use std::ops::Range;

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
    let plan = Plan::of(content, columns.resource_type)?;
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
        Plan::of(content, columns.resource_type)?.write(content, columns, &mut pieces)?;
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

/// What takes the place of a piece of the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Nothing,
    Id,
    Meta,
    /// What is missing of the two, after `resourceType`.
    Missing,
}

/// One replacement.
#[derive(Clone, Debug)]
struct Edit {
    range: Range<usize>,
    piece: Piece,
}

/// Where the content is to be changed.
struct Plan {
    /// After the first `resourceType`.
    after_type: usize,
    id: Option<Range<usize>>,
    meta: Option<Range<usize>>,
    /// The value of the last `meta`.
    last_meta: Option<Range<usize>>,
    /// Duplicates, each with the comma before it. Hardly ever any, and then this allocates nothing.
    cuts: Vec<Edit>,
}

impl Plan {
    fn of(content: &[u8], resource_type: ResourceType) -> Result<Self, BadResource> {
        let (mut after_type, mut last_type) = (None, None);
        let mut plan = Self { after_type: 0, id: None, meta: None, last_meta: None, cuts: Vec::new() };
        let mut previous_end = 0;
        let mut members = Members::of(content);
        while let Some(member) = members.next()? {
            let whole = member.whole();
            let place = match name(content, &member) {
                Name::Type => {
                    after_type.get_or_insert(whole.end);
                    last_type = Some(member.value);
                    None
                }
                Name::Id => Some(&mut plan.id),
                Name::Meta => {
                    plan.last_meta = Some(member.value);
                    Some(&mut plan.meta)
                }
                Name::Other => None,
            };
            match place {
                Some(place @ None) => *place = Some(whole.clone()),
                Some(_) => plan.cuts.push(Edit { range: previous_end..whole.end, piece: Piece::Nothing }),
                None => {}
            }
            previous_end = whole.end;
        }
        let is_string_of = |value: Range<usize>| match &content[value] {
            [b'"', written @ .., b'"'] => means(written, resource_type.as_str()),
            _ => false,
        };
        match (after_type, last_type) {
            (Some(after_type), Some(value)) if is_string_of(value.clone()) => Ok(Self { after_type, ..plan }),
            _ => Err(BadResource::OtherType),
        }
    }

    fn write<'a>(
        &self,
        content: &'a [u8],
        columns: &Columns<'_>,
        out: &mut impl Output<'a>,
    ) -> Result<(), BadResource> {
        let here = self.after_type..self.after_type;
        let edit = |range: &Option<Range<usize>>, piece| match range {
            Some(range) => Edit { range: range.clone(), piece },
            None => Edit { range: here.clone(), piece: Piece::Nothing },
        };
        let mut edits = [
            Edit { range: here.clone(), piece: Piece::Missing },
            edit(&self.id, Piece::Id),
            edit(&self.meta, Piece::Meta),
        ];
        if self.cuts.is_empty() {
            edits.sort_unstable_by_key(|edit| edit.range.start);
            self.splice(content, &edits, columns, out)
        } else {
            let mut all = self.cuts.clone();
            all.extend(edits);
            // A cut begins where the member before it ends, which is where what is missing may go: first that.
            all.sort_unstable_by_key(|edit| (edit.range.start, edit.range.end));
            self.splice(content, &all, columns, out)
        }
    }

    fn splice<'a>(
        &self,
        content: &'a [u8],
        edits: &[Edit],
        columns: &Columns<'_>,
        out: &mut impl Output<'a>,
    ) -> Result<(), BadResource> {
        let mut copied = 0;
        for Edit { range, piece } in edits {
            out.keep(&content[copied..range.start]);
            copied = range.end;
            match piece {
                Piece::Nothing => {}
                Piece::Id => write_id(columns, out.make()),
                Piece::Meta => self.write_meta(content, columns, out.make())?,
                Piece::Missing => {
                    let out = out.make();
                    if self.id.is_none() {
                        out.push(b',');
                        write_id(columns, out);
                    }
                    if self.meta.is_none() {
                        out.push(b',');
                        self.write_meta(content, columns, out)?;
                    }
                }
            }
        }
        out.keep(&content[copied..]);
        Ok(())
    }

    fn write_meta(
        &self,
        content: &[u8],
        columns: &Columns<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadResource> {
        out.extend_from_slice(br#""meta":{"versionId":""#);
        out.extend_from_slice(itoa::Buffer::new().format(columns.version_id).as_bytes());
        out.extend_from_slice(br#"","lastUpdated":""#);
        columns.last_updated.write_fhir(out);
        out.push(b'"');
        if let Some(meta) = &self.last_meta
            && content[meta.start] == b'{'
        {
            let meta = &content[meta.clone()];
            let mut members = Members::of(meta);
            while let Some(member) = members.next()? {
                let key = &meta[member.key.clone()];
                if !means(key, "versionId") && !means(key, "lastUpdated") {
                    out.push(b',');
                    out.extend_from_slice(&meta[member.whole()]);
                }
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn write_id(columns: &Columns<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""id":""#);
    out.extend_from_slice(columns.id.as_bytes());
    out.push(b'"');
}

/// The members that matter here.
enum Name {
    Type,
    Id,
    Meta,
    Other,
}

fn name(content: &[u8], member: &Member) -> Name {
    let key = &content[member.key.clone()];
    let is = |text, name| if means(key, text) { name } else { Name::Other };
    match key.first() {
        Some(b'i') => is("id", Name::Id),
        Some(b'm') => is("meta", Name::Meta),
        Some(b'r') => is("resourceType", Name::Type),
        // An escape may stand for any of these.
        Some(b'\\') if means(key, "id") => Name::Id,
        Some(b'\\') if means(key, "meta") => Name::Meta,
        Some(b'\\') => is("resourceType", Name::Type),
        _ => Name::Other,
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod model;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
