//! A text of JSON as one line, for whatever reads lines.
//!
//! A raw CR or LF can only stand between tokens, and becomes a space.
//!
//! Some clients read lines with functions of their language that also split at U+0085, U+2028 and U+2029 (Python's
//! `str.splitlines`, and so httpx-sse below 0.4.2), and then cannot read the event. JSON allows the three in strings only, where an
//! escape means the same. The others at which `splitlines` splits are control characters, which JSON does not allow.

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// From where on there may be a line break of any kind; `None`: there is none. Nearly all text is ASCII without one, so this is
/// one comparison for each byte: as signed numbers CR, LF and all that is not ASCII are less than 14.
pub(crate) fn first_special(text: &[u8]) -> Option<usize> {
    let is_special = |bytes: &[u8]| bytes.iter().fold(false, |found, byte| found | (byte.cast_signed() < 14));
    let (blocks, rest) = text.as_chunks::<BLOCK>();
    let block = blocks.iter().position(|block| is_special(block));
    let block = block.or_else(|| is_special(rest).then_some(blocks.len()));
    block.map(|block| block * BLOCK)
}

/// Takes all line breaks away, from `start` on.
pub(crate) fn make_one_line(text: &mut Vec<u8>, start: usize) {
    let line = &mut text[start..];
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &line[at..]) {
        at += found;
        line[at] = b' ';
    }
    if !line.is_ascii() {
        escape_line_breaks(text, start);
    }
}

/// Writes those of Unicode as escapes, from `start` on, in a text of JSON.
pub(crate) fn escape_line_breaks(text: &mut Vec<u8>, start: usize) {
    let Some(first) = next(text, start) else { return };
    let rest = text.split_off(first.0);
    let mut copied = 0;
    let mut found = next(&rest, 0);
    while let Some((at, length, escape)) = found {
        text.extend_from_slice(&rest[copied..at]);
        text.extend_from_slice(escape);
        copied = at + length;
        found = next(&rest, copied);
    }
    text.extend_from_slice(&rest[copied..]);
}

/// The next one at or after a place: where it is, how long, and its escape.
fn next(text: &[u8], from: usize) -> Option<(usize, usize, &'static [u8])> {
    let mut at = from;
    loop {
        at += memchr::memchr2(0xc2, 0xe2, text.get(at..)?)?;
        match &text[at..] {
            [0xc2, 0x85, ..] => return Some((at, 2, br"\u0085")),
            [0xe2, 0x80, 0xa8, ..] => return Some((at, 3, br"\u2028")),
            [0xe2, 0x80, 0xa9, ..] => return Some((at, 3, br"\u2029")),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &str, start: usize) -> String {
        let mut bytes = text.as_bytes().to_vec();
        escape_line_breaks(&mut bytes, start);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_three_and_no_other() {
        assert_eq!(escaped("\u{85}a\u{2028}\u{2029}", 0), r"\u0085a\u2028\u2029");
        for text in ["", "a", "\u{84}\u{86}\u{2027}\u{202a}\u{c5}\u{e2}°–", "\u{feff}"] {
            assert_eq!(escaped(text, 0), text);
        }
        assert_eq!(escaped("\u{2028}\u{2028}", 3), "\u{2028}\\u2028", "what stands before is not touched");
    }

    #[test]
    fn bytes_that_are_cut_off_are_left() {
        for bytes in [&[0xc2][..], &[0xe2], &[0xe2, 0x80], &[0xe2, 0xc2, 0x85]] {
            let mut text = bytes.to_vec();
            escape_line_breaks(&mut text, 0);
            let expected = bytes
                .strip_suffix(&[0xc2, 0x85])
                .map_or(bytes.to_vec(), |bytes| [bytes, br"\u0085"].concat());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_is_special_is_found_wherever_it_stands() {
        for length in [0, 1, 63, 64, 65, 200] {
            assert_eq!(first_special(&vec![b'a'; length]), None);
            for at in 0..length {
                for byte in [b'\r', b'\n', 0x80, 0xc2, 0xe2, 0xff] {
                    let mut text = vec![b'~'; length];
                    text[at] = byte;
                    assert_eq!(
                        first_special(&text),
                        Some(at / BLOCK * BLOCK),
                        "{byte:x} at {at} of {length}"
                    );
                }
            }
        }
    }

    proptest! {
        #[test]
        fn as_by_replacing(text in "[a\u{85}\u{2028}\u{2029}\u{2026}°é]{0,20}") {
            let expected =
                text.replace('\u{85}', r"\u0085").replace('\u{2028}', r"\u2028").replace('\u{2029}', r"\u2029");
            prop_assert_eq!(escaped(&text, 0), expected);
        }
    }
}
