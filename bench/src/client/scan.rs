//! Finding things in what was read, as cheaply as it goes.

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Counts the frames that end in the bytes; `last` is the byte before them, and is moved on.
pub(super) fn frames(bytes: &[u8], last: &mut u8) -> u64 {
    static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\n"));
    let Some((first, final_byte)) = bytes.first().zip(bytes.last()) else { return 0 };
    let split = u64::from(*last == b'\n' && *first == b'\n');
    *last = *final_byte;
    // A frame has three lines, so three line ends never follow one another.
    split + END.find_iter(bytes).count() as u64
}

/// Calls `found` for the number of each event that is numbered: `latency-7` and a byte that is no digit. Returns where
/// to go on when more bytes have come: what lies before is done with.
pub(crate) fn numbers(bytes: &[u8], mut found: impl FnMut(u32)) -> usize {
    const MARK: &[u8] = b"latency-";
    static NUMBERED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));
    let mut at = 0;
    while let Some(place) = NUMBERED.find(&bytes[at..]) {
        let digits = at + place + MARK.len();
        let Some(count) = bytes[digits..].iter().position(|byte| !byte.is_ascii_digit()) else {
            return at + place;
        };
        let text = std::str::from_utf8(&bytes[digits..digits + count]).ok();
        if let Some(number) = text.and_then(|text| text.parse().ok()) {
            found(number);
        }
        at = digits + count;
    }
    let begun = (1..MARK.len()).rev().find(|length| bytes[at..].ends_with(&MARK[..*length]));
    bytes.len() - begun.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &[u8] =
        b"\r\nid: x\nevent: A\ndata: {\"id\":\"latency-12\"}\n\n: here\n\r\n5\r\nid: y\nevent: B\n\
        data: {\"id\":\"latency-7\",\"n\":\"latency-\"}\n\nid: z\nevent: C\ndata: latency-x latency-345 \n\n";

    proptest! {
        #[test]
        fn cut_anywhere_it_finds_the_same(mut cuts in prop::collection::vec(0..TEXT.len(), 0..8)) {
            cuts.extend([0, TEXT.len()]);
            cuts.sort_unstable();
            let (mut count, mut last, mut rest, mut found) = (0, 0, Vec::new(), Vec::new());
            for piece in cuts.windows(2).map(|cut| &TEXT[cut[0]..cut[1]]) {
                count += frames(piece, &mut last);
                rest.extend_from_slice(piece);
                let done = numbers(&rest, |number| found.push(number));
                rest.drain(..done);
            }
            prop_assert_eq!(count, 3);
            prop_assert_eq!(found, vec![12, 7, 345]);
        }
    }
}
