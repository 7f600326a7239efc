//! The members of one JSON object, found in its text without building anything.
//!
//! One pass: no recursion, no allocation, whatever the nesting; strings and nested values are skipped by their
//! [`Structure`]. The object's own grammar is checked; of what is nested in it only that strings end and that as many
//! brackets close as open: more is the database's part.

use crate::structure::{NotAnObject, Structure};
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
    text: &'a [u8],
    structure: Structure<'a>,
    at: usize,
    place: Place,
}

/// What the reader expects next.
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
    /// Reads an object that fills the text, but for whitespace around it.
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Self { text, structure: Structure::of(text), at: 0, place: Place::Start }
    }

    /// The next member; `None` when the object has ended properly and nothing follows it.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, NotAnObject> {
        match self.place {
            Place::Start => {
                self.expect(b'{')?;
                if self.peek() == Some(b'}') {
                    return self.end();
                }
            }
            Place::AfterMember => match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.end(),
            },
            Place::End => return Ok(None),
        }
        self.expect(b'"')?;
        let key = self.at..self.structure.end_of_string(self.at)? - 1;
        self.at = key.end + 1;
        self.expect(b':')?;
        self.whitespace();
        let value = self.at..self.structure.end_of_value(self.at)?;
        self.at = value.end;
        self.place = Place::AfterMember;
        Ok(Some(Member { key, value }))
    }

    fn end(&mut self) -> Result<Option<Member>, NotAnObject> {
        self.expect(b'}')?;
        self.whitespace();
        self.place = Place::End;
        if self.at == self.text.len() { Ok(None) } else { Err(NotAnObject) }
    }

    fn whitespace(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is not whitespace; it is not passed.
    fn peek(&mut self) -> Option<u8> {
        self.whitespace();
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(NotAnObject)
        }
    }
}

/// Whether what stands between a string's quotes means this ASCII text, by its escapes (`\u0069d` is `id`).
pub(crate) fn means(written: &[u8], text: &str) -> bool {
    // An escape is longer than what it stands for.
    if written.len() <= text.len() {
        return written == text.as_bytes();
    }
    let mut rest = written;
    for wanted in text.bytes() {
        rest = match rest {
            // Of the escapes only \uXXXX can stand for a letter.
            [b'\\', b'u', digits @ ..] if digits.len() >= 4 && is_hex_of(&digits[..4], wanted) => {
                &digits[4..]
            }
            [byte, rest @ ..] if *byte == wanted && wanted != b'\\' => rest,
            _ => return false,
        };
    }
    rest.is_empty()
}

fn is_hex_of(digits: &[u8], byte: u8) -> bool {
    let value =
        digits.iter().try_fold(0_u32, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?));
    value == Some(u32::from(byte))
}
