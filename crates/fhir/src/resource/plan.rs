//! Where the content of a row is changed to become the resource that is streamed: `id` and `meta`.

use super::{BadResource, Columns, Output};
use crate::ResourceType;
use crate::cursor::{Cursor, means};
use crate::members::Members;
use crate::structure::NotAnObject;
use std::ops::Range;

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
pub(super) struct Plan {
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
    /// The plan for a content of this type.
    ///
    /// The value of each member that is neither `resourceType` nor `id` nor `meta` is passed by `pass`
    /// ([`Members::next_by`]).
    pub(super) fn of<'a>(
        content: &'a [u8],
        resource_type: ResourceType,
        mut pass: impl FnMut(&'a [u8], &mut Cursor<'a>) -> Result<(), NotAnObject>,
    ) -> Result<Self, BadResource> {
        let (mut after_type, mut last_type) = (None, None);
        let mut plan = Self { after_type: 0, id: None, meta: None, last_meta: None, cuts: Vec::new() };
        let mut previous_end = 0;
        let mut members = Members::of(content);
        let mut name = Name::Other;
        while let Some(member) = members.next_by(|key, cursor| {
            name = Name::of(key);
            if name == Name::Other { pass(key, cursor) } else { cursor.skip() }
        })? {
            let whole = member.whole();
            let place = match name {
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

    /// Writes the resource as it is streamed.
    pub(super) fn write<'a>(
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
        self.each_of_meta(content, |member| {
            out.push(b',');
            out.extend_from_slice(member);
        })?;
        out.push(b'}');
        Ok(())
    }

    /// An error if [`write`](Self::write) would have one.
    pub(super) fn check(&self, content: &[u8]) -> Result<(), BadResource> {
        self.each_of_meta(content, |_| {})
    }

    /// Calls `each` with the text of each member of `meta` that is kept.
    fn each_of_meta(&self, content: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), BadResource> {
        if let Some(meta) = &self.last_meta
            && content[meta.start] == b'{'
        {
            let meta = &content[meta.clone()];
            let mut members = Members::of(meta);
            while let Some(member) = members.next()? {
                let key = &meta[member.key.clone()];
                if !means(key, "versionId") && !means(key, "lastUpdated") {
                    each(&meta[member.whole()]);
                }
            }
        }
        Ok(())
    }
}

fn write_id(columns: &Columns<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""id":""#);
    out.extend_from_slice(columns.id.as_bytes());
    out.push(b'"');
}

/// The members that matter here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Type,
    Id,
    Meta,
    Other,
}

impl Name {
    /// Of a key as it is written.
    fn of(key: &[u8]) -> Self {
        let is = |text, name| if means(key, text) { name } else { Self::Other };
        match key.first() {
            Some(b'i') => is("id", Self::Id),
            Some(b'm') => is("meta", Self::Meta),
            Some(b'r') => is("resourceType", Self::Type),
            // An escape may stand for any of these.
            Some(b'\\') if means(key, "id") => Self::Id,
            Some(b'\\') if means(key, "meta") => Self::Meta,
            Some(b'\\') => is("resourceType", Self::Type),
            _ => Self::Other,
        }
    }
}
