//! Where the strings and the nested values of a JSON text end: 64 bytes at a time, as bits, without looking at each byte.
//!
//! Every byte of every change goes through this. For each block there is one word for each kind of byte that matters; from
//! these follow which quotes end a string and which brackets stand in none.

use wide::u8x16;

const BLOCK: usize = 64;

/// The text is not one JSON object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAnObject;

/// A text, of which one block after the other is looked at. Places are asked for in their order.
pub(crate) struct Structure<'a> {
    text: &'a [u8],
    /// Where the block that was looked at last begins and ends; it may end beyond the text.
    begin: usize,
    end: usize,
    /// In it: quotes that begin or end a string.
    quotes: u64,
    /// In it, outside strings: brackets and braces.
    brackets: u64,
    /// All bits, if it ended within a string.
    in_string: u64,
    /// The lowest bit, if it ended with a backslash that escapes.
    escaped: u64,
}

impl<'a> Structure<'a> {
    /// Of a text that does not begin within a string.
    pub(crate) const fn of(text: &'a [u8]) -> Self {
        Self { text, begin: 0, end: 0, quotes: 0, brackets: 0, in_string: 0, escaped: 0 }
    }

    /// The place after the last byte of the value that begins at `start`.
    pub(crate) fn end_of_value(&mut self, start: usize) -> Result<usize, NotAnObject> {
        match self.text.get(start) {
            Some(b'"') => self.end_of_string(start + 1),
            Some(b'{' | b'[') => self.end_of_nested(start),
            Some(_) => {
                let scalar =
                    |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.');
                match self.text[start..].iter().take_while(|byte| scalar(byte)).count() {
                    0 => Err(NotAnObject),
                    length => Ok(start + length),
                }
            }
            None => Err(NotAnObject),
        }
    }

    /// The place after the closing quote of the string whose content begins at `start`.
    pub(crate) fn end_of_string(&mut self, start: usize) -> Result<usize, NotAnObject> {
        loop {
            let quotes = self.quotes & self.from(start);
            if quotes != 0 {
                return Ok(self.begin + quotes.trailing_zeros() as usize + 1);
            }
            self.next_block()?;
        }
    }

    /// The place after the bracket that closes the one at `start`. That brackets match is checked in number, not in kind.
    pub(crate) fn end_of_nested(&mut self, start: usize) -> Result<usize, NotAnObject> {
        let mut depth = 0_usize;
        loop {
            let mut brackets = self.brackets & self.from(start);
            while brackets != 0 {
                let at = self.begin + brackets.trailing_zeros() as usize;
                brackets &= brackets - 1;
                if matches!(self.text.get(at), Some(b'{' | b'[')) {
                    depth += 1;
                } else if depth > 1 {
                    depth -= 1;
                } else {
                    return Ok(at + 1);
                }
            }
            self.next_block()?;
        }
    }

    /// The bits of the block that lie at or after a place.
    fn from(&self, place: usize) -> u64 {
        if place < self.end { u64::MAX << place.saturating_sub(self.begin) } else { 0 }
    }

    /// Looks at the next block. An error at the end of the text, or if a backslash stands outside a string.
    #[inline]
    fn next_block(&mut self) -> Result<(), NotAnObject> {
        let found = match self.text.get(self.end..).unwrap_or_default() {
            [] => return Err(NotAnObject),
            rest => match rest.first_chunk() {
                Some(block) => Found::of(block),
                None => {
                    let mut padded = [b' '; BLOCK];
                    padded[..rest.len()].copy_from_slice(rest);
                    Found::of(&padded)
                }
            },
        };
        (self.begin, self.end) = (self.end, self.end + BLOCK);
        self.quotes = if found.backslashes | self.escaped == 0 {
            found.quotes
        } else {
            found.quotes & !self.escapes(found.backslashes)
        };
        // From each opening quote to before the closing one.
        let strings = up_to_each(self.quotes) ^ self.in_string;
        // The highest bit into all.
        self.in_string = 0_u64.wrapping_sub(strings >> 63);
        self.brackets = found.brackets & !strings;
        if found.backslashes & !strings == 0 { Ok(()) } else { Err(NotAnObject) }
    }

    /// The bytes that a backslash escapes: every second one of a run of backslashes, or what follows an odd run.
    fn escapes(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslashes = backslashes & !self.escaped;
        let after = backslashes << 1 | self.escaped;
        // Adding to a run's first bit carries to the bit behind the run, whose parity with the first one's tells.
        let runs_from_odd = backslashes & !EVEN & !after;
        let (ends, carried) = runs_from_odd.overflowing_add(backslashes);
        self.escaped = u64::from(carried);
        (EVEN ^ (ends << 1)) & after
    }
}

/// Which bytes of a block are what, the first in the lowest bit.
#[derive(Default)]
struct Found {
    quotes: u64,
    backslashes: u64,
    brackets: u64,
}

impl Found {
    fn of(block: &[u8; BLOCK]) -> Self {
        /// Makes `{` of `[`, and `}` of `]`, and either of nothing else.
        const FOLD: u8 = 0x20;
        let is = |bytes: u8x16, byte: u8| bytes.simd_eq(u8x16::splat(byte));
        let mut found = Self::default();
        let (quarters, _) = block.as_chunks::<16>();
        for (number, quarter) in quarters.iter().enumerate() {
            let bits = |which: u8x16| u64::from(which.to_bitmask()) << (16 * number);
            let bytes = u8x16::new(*quarter);
            let folded = bytes | u8x16::splat(FOLD);
            found.quotes |= bits(is(bytes, b'"'));
            found.backslashes |= bits(is(bytes, b'\\'));
            found.brackets |= bits(is(folded, b'{') | is(folded, b'}'));
        }
        found
    }
}

/// Each bit becomes whether the number of bits up to it, itself included, is odd.
const fn up_to_each(bits: u64) -> u64 {
    let bits = bits ^ bits << 1;
    let bits = bits ^ bits << 2;
    let bits = bits ^ bits << 4;
    let bits = bits ^ bits << 8;
    let bits = bits ^ bits << 16;
    bits ^ bits << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Byte by byte: where each string ends that begins outside one, and where the first nested value ends.
    fn naive(text: &[u8]) -> (Vec<(usize, usize)>, Option<usize>) {
        let (mut depth, mut string, mut escaped) = (0_usize, None, false);
        let (mut strings, mut nested) = (Vec::new(), None);
        for (at, byte) in text.iter().enumerate() {
            match (byte, string) {
                _ if escaped => escaped = false,
                (b'\\', Some(_)) => escaped = true,
                (b'"', Some(start)) => {
                    strings.push((start, at + 1));
                    string = None;
                }
                (b'"', None) => string = Some(at + 1),
                (b'{' | b'[', None) => depth += 1,
                (b'}' | b']', None) => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && nested.is_none() {
                        nested = Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        (strings, nested)
    }

    /// Text whose backslashes, if any, stand in strings.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let outside = prop_oneof![
            4 => prop::sample::select(vec!["{", "}", "[", "]", ",", "\"\"", "true", "\u{e9}", ";", "\u{7f}"])
                .prop_map(str::to_owned),
            1 => (50_usize..80).prop_map(|length| " ".repeat(length)),
        ];
        let inside = prop_oneof![
            4 => prop::sample::select(vec!["{", "}", "[", "]", "\\\\", "\\\"", "\\u007d", "a", "\u{e9}"])
                .prop_map(str::to_owned),
            1 => (50_usize..80).prop_map(|length| "}".repeat(length)),
            1 => (1_usize..70).prop_map(|length| "\\\\".repeat(length)),
        ];
        let string =
            prop::collection::vec(inside, 0..9).prop_map(|pieces| format!("\"{}\"", pieces.concat()));
        let piece = prop_oneof![3 => outside, 2 => string];
        (prop::collection::vec(piece, 0..40), 0_usize..200).prop_map(|(pieces, cut)| {
            let mut text = pieces.concat().into_bytes();
            text.truncate(text.len().saturating_sub(cut / 10));
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn everything_ends_where_it_does_byte_by_byte(text in text()) {
            let (strings, _) = naive(&text);
            let mut structure = Structure::of(&text);
            for (start, end) in strings {
                prop_assert_eq!(structure.end_of_string(start), Ok(end));
            }
            prop_assert_eq!(structure.end_of_string(text.len()), Err(NotAnObject));
        }

        #[test]
        fn a_nested_value_ends_where_it_does_byte_by_byte(before in 0_usize..130, text in text()) {
            let text = [vec![b' '; before], vec![b'['], text].concat();
            let (_, nested) = naive(&text);
            prop_assert_eq!(Structure::of(&text).end_of_nested(before), nested.ok_or(NotAnObject));
        }

        #[test]
        fn a_backslash_outside_a_string_is_an_error(before in 0_usize..130, after in 0_usize..130) {
            let text = [vec![b' '; before], b"[\\".to_vec(), vec![b' '; after], b"]".to_vec()].concat();
            prop_assert_eq!(Structure::of(&text).end_of_nested(before), Err(NotAnObject));
        }

        #[test]
        fn any_bytes_do_no_harm(text in prop::collection::vec(prop::sample::select(&b"{}[]\"\\x"[..]), 0..200), start in 0_usize..200) {
            let end = Structure::of(&text).end_of_nested(start).or_else(|_| Structure::of(&text).end_of_string(start));
            prop_assert!(end.unwrap_or(text.len()) <= text.len());
        }
    }
}
