//! The members of one JSON object, found in its text without building anything.
//!
//! One pass with a depth counter: no recursion, no allocation, whatever the nesting. Strings, which are
//! most of a resource, are skipped eight bytes at a time, and long ones with memchr. The object's own grammar is checked; of what is nested
//! in it only that strings end and that as many brackets close as open: more is the database's part.

use std::ops::Range;

/// The text is not one JSON object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAnObject;

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
        Self { text, at: 0, place: Place::Start }
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
        let key = self.at..end_of_string(self.text, self.at)? - 1;
        self.at = key.end + 1;
        self.expect(b':')?;
        self.whitespace();
        let value = self.at..end_of_value(self.text, self.at)?;
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

/// The place after a value's last byte.
fn end_of_value(text: &[u8], start: usize) -> Result<usize, NotAnObject> {
    match text.get(start) {
        Some(b'"') => end_of_string(text, start + 1),
        Some(b'{' | b'[') => end_of_nested(text, start),
        Some(_) => {
            let rest = &text[start..];
            let scalar =
                |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.');
            match rest.iter().take_while(|byte| scalar(byte)).count() {
                0 => Err(NotAnObject),
                length => Ok(start + length),
            }
        }
        None => Err(NotAnObject),
    }
}

/// The place after the closing quote of the string whose content begins at `start`.
fn end_of_string(text: &[u8], start: usize) -> Result<usize, NotAnObject> {
    let mut at = start;
    loop {
        at = quote_or_backslash(text, at).ok_or(NotAnObject)?;
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            // Whatever it escapes goes with it.
            _ => at += 2,
        }
    }
}

/// Looked at by words before that: most strings are shorter than the call of a search is worth.
const SHORT: usize = 64;

/// The first quote or backslash at or after a place.
fn quote_or_backslash(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    let (words, _) = rest.as_chunks::<8>();
    let words = words.get(..SHORT / 8).unwrap_or(words);
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES);
        if found != 0 {
            return Some(start + index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let looked = words.len() * 8;
    memchr::memchr2(b'"', b'\\', rest.get(looked..)?).map(|found| start + looked + found)
}

const LOWEST_BITS: u64 = u64::from_le_bytes([0x01; 8]);
const HIGHEST_BITS: u64 = u64::from_le_bytes([0x80; 8]);
const QUOTES: u64 = u64::from_le_bytes([b'"'; 8]);
const BACKSLASHES: u64 = u64::from_le_bytes([b'\\'; 8]);

/// Bits in the bytes that are zero. There may be some in bytes above the lowest zero; the lowest bit is exact.
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOWEST_BITS) & !word & HIGHEST_BITS
}

/// The place after the bracket that closes the one at `start`.
fn end_of_nested(text: &[u8], start: usize) -> Result<usize, NotAnObject> {
    /// Makes `{` of `[`, and `}` of `]`, and either of nothing else.
    const FOLD: u8 = 0x20;
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'#'..=b'Z' => {}
            b'"' => at = end_of_string(text, at)?,
            byte if byte | FOLD == b'{' => depth += 1,
            byte if byte | FOLD == b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => {}
        }
    }
    Err(NotAnObject)
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

#[cfg(test)]
mod string_tests {
    use super::*;
    use proptest::prelude::*;

    /// Byte by byte.
    fn naive(text: &[u8]) -> Option<usize> {
        let mut escaped = false;
        for (at, byte) in text.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Some(at + 1),
                _ => {}
            }
        }
        None
    }

    proptest! {
        #[test]
        fn a_string_ends_where_it_does_byte_by_byte(
            before in 0..3 * SHORT,
            text in prop::collection::vec(prop::sample::select(&[b'a', b'"', b'\\', b'#', 0, 0x80, 0xff, 0xa2][..]), 0..40),
        ) {
            let text = [vec![b'x'; before], text].concat();
            prop_assert_eq!(end_of_string(&text, 0).ok(), naive(&text));
        }
    }
}
