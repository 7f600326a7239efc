//! One pass over a JSON text, from token to token, that builds nothing.
//!
//! Values that are not asked for are skipped by their [`Structure`]. Of a value that is skipped only
//! this is checked: its strings end, and it closes as many brackets as it opens. The database has
//! checked the rest, because the column's type is `json`.

use crate::structure::{NotAnObject, Structure};
use std::ops::Range;

/// A place in a text, which moves forward only.
pub(crate) struct Cursor<'a> {
    text: &'a [u8],
    structure: Structure<'a>,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of a text.
    pub(crate) const fn of(text: &'a [u8]) -> Self {
        Self { text, structure: Structure::of(text), at: 0 }
    }

    /// The text that it goes through.
    pub(crate) const fn text(&self) -> &'a [u8] {
        self.text
    }

    /// How many bytes it has passed.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// Passes the bracket that opens an object or an array.
    ///
    /// Returns whether anything stands in it. If not, the closing bracket is passed too.
    #[inline]
    pub(crate) fn enter(&mut self, open: u8, close: u8) -> Result<bool, NotAnObject> {
        self.expect(open)?;
        Ok(!self.passes(close))
    }

    /// After a member or an element: passes the comma, or the closing bracket.
    ///
    /// Returns whether it was the comma.
    #[inline]
    pub(crate) fn another(&mut self, close: u8) -> Result<bool, NotAnObject> {
        if self.passes(b',') {
            return Ok(true);
        }
        self.expect(close)?;
        Ok(false)
    }

    /// Passes a key and its colon, up to the first byte of the value.
    ///
    /// Returns what stands between the quotes, escapes as they are written.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Range<usize>, NotAnObject> {
        self.expect(b'"')?;
        let key = self.at..self.structure.end_of_string(self.at)? - 1;
        self.at = key.end + 1;
        self.expect(b':')?;
        self.peek();
        Ok(key)
    }

    /// Passes the value that begins here.
    #[inline]
    pub(crate) fn skip(&mut self) -> Result<(), NotAnObject> {
        self.at = self.structure.end_of_value(self.at)?;
        Ok(())
    }

    /// An error unless only white space is left.
    pub(crate) fn end(&mut self) -> Result<(), NotAnObject> {
        if self.peek().is_none() { Ok(()) } else { Err(NotAnObject) }
    }

    /// The next byte that is not white space. The white space is passed, the byte is not.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Passes the byte if it is next.
    #[inline]
    fn passes(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        if self.passes(byte) { Ok(()) } else { Err(NotAnObject) }
    }
}

/// Whether what stands between a string's quotes means this ASCII text, by its escapes (`\u0069d` is `id`).
#[inline]
pub(crate) fn means(written: &[u8], text: &str) -> bool {
    // An escape is longer than what it stands for.
    if written.len() <= text.len() {
        return written == text.as_bytes();
    }
    // Nearly all names are told apart by this.
    let first = written.first();
    (first == text.as_bytes().first() || first == Some(&b'\\')) && means_by_escapes(written, text)
}

fn means_by_escapes(written: &[u8], text: &str) -> bool {
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
