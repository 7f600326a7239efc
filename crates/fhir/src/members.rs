//! The members of the one JSON object that a text is, one after the other, in one pass ([`Cursor`]).

use crate::cursor::Cursor;
use crate::structure::NotAnObject;
use std::ops::Range;

/// A member, as places in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Member {
    /// What stands between the quotes of the key, escapes as they are written.
    pub(crate) key: Range<usize>,
    /// The value, from its first byte to its last.
    pub(crate) value: Range<usize>,
}

impl Member {
    /// From the key's opening quote to the last byte of the value.
    pub(crate) fn whole(&self) -> Range<usize> {
        self.key.start - 1..self.value.end
    }
}

/// Goes from member to member, in the order of the text, duplicates included.
pub(crate) struct Members<'a> {
    cursor: Cursor<'a>,
    place: Place,
}

/// What stands before the cursor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The opening brace.
    Start,
    /// A comma or the closing brace.
    AfterMember,
    /// Nothing any more.
    End,
}

impl<'a> Members<'a> {
    /// Reads an object that fills the text, but for white space around it.
    pub(crate) const fn of(text: &'a [u8]) -> Self {
        Self { cursor: Cursor::of(text), place: Place::Start }
    }

    /// The next member; `None` when the object has ended properly and nothing follows it.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, NotAnObject> {
        self.next_by(|_, cursor| cursor.skip())
    }

    /// As [`next`](Self::next), by a function that passes the member's value.
    ///
    /// It is called with the key as it is written, and the cursor at the first byte of the value. It
    /// has to leave the cursor after the last one.
    #[inline]
    pub(crate) fn next_by(
        &mut self,
        pass: impl FnOnce(&'a [u8], &mut Cursor<'a>) -> Result<(), NotAnObject>,
    ) -> Result<Option<Member>, NotAnObject> {
        let cursor = &mut self.cursor;
        let follows = match self.place {
            Place::Start => cursor.enter(b'{', b'}')?,
            Place::AfterMember => cursor.another(b'}')?,
            Place::End => return Ok(None),
        };
        if !follows {
            self.place = Place::End;
            return cursor.end().map(|()| None);
        }
        let key = cursor.key()?;
        let start = cursor.at();
        pass(&cursor.text()[key.clone()], cursor)?;
        self.place = Place::AfterMember;
        Ok(Some(Member { key, value: start..cursor.at() }))
    }
}
