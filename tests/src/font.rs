//! A font whose letters are all as wide as is asked: which fonts are installed differs from machine to machine.
//!
//! OpenType with TrueType outlines, <https://learn.microsoft.com/en-us/typography/opentype/spec/otff>: one glyph, a box, for
//! all of ASCII.

/// Font units in an em.
const EM: u16 = 1000;
const ASCENT: i16 = 900;
const DESCENT: i16 = -200;
/// The letters that it has.
const LETTERS: std::ops::RangeInclusive<u16> = 0x20..=0x7e;

/// The file of a font with letters of this width, in thousandths of an em.
pub fn font(width: u16) -> Vec<u8> {
    let tables: [(&[u8; 4], Vec<u8>); 10] = [
        (b"OS/2", os2(width)),
        (b"cmap", cmap()),
        (b"glyf", glyph(width)),
        (b"head", head(width)),
        (b"hhea", hhea(width)),
        (b"hmtx", words(&[width, 0, width, 0])),
        (b"loca", words(&[0, 0, 0, 0, 0, length(&glyph(width))])),
        (b"maxp", words(&[1, 0, 2, 4, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0])),
        (b"name", words(&[0, 0, 6])),
        (b"post", [words(&[3, 0, 0, 0, 0, 50, 0, 1]), vec![0; 16]].concat()),
    ];
    // Ten tables: 2^3 is the greatest power of two in it.
    let mut file = words(&[1, 0, 10, 128, 3, 32]);
    let mut offset = file.len() + 16 * tables.len();
    for (tag, table) in &tables {
        file.extend_from_slice(*tag);
        // Browsers do not look at checksums.
        file.extend_from_slice(&[0; 4]);
        file.extend_from_slice(&u32::try_from(offset).unwrap_or(0).to_be_bytes());
        file.extend_from_slice(&u32::from(length(table)).to_be_bytes());
        offset += table.len().next_multiple_of(4);
    }
    for (_, table) in tables {
        let padding = table.len().next_multiple_of(4) - table.len();
        file.extend(table.into_iter().chain(std::iter::repeat_n(0, padding)));
    }
    file
}

fn length(table: &[u8]) -> u16 {
    u16::try_from(table.len()).unwrap_or(u16::MAX)
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn signed(word: i16) -> u16 {
    word.cast_unsigned()
}

fn head(width: u16) -> Vec<u8> {
    let begin = words(&[1, 0, 1, 0, 0, 0, 0x5f0f, 0x3cf5, 0x000b, EM]);
    let times = vec![0; 16];
    let end = words(&[0, 0, width, 700, 0, 8, 2, 1, 0]);
    [begin, times, end].concat()
}

fn hhea(width: u16) -> Vec<u8> {
    let begin = [1, 0, signed(ASCENT), signed(DESCENT), 0, width, 0, 0, width, 1, 0, 0];
    words(&[&begin[..], &[0, 0, 0, 0, 0, 2]].concat())
}

fn os2(width: u16) -> Vec<u8> {
    let begin = words(&[4, width, 400, 5, 0, 650, 600, 0, 75, 650, 600, 0, 350, 50, 250, 0]);
    let panose_ranges_vendor = vec![0; 10 + 16 + 4];
    let letters = [0x40, *LETTERS.start(), *LETTERS.end()];
    let heights = [signed(ASCENT), signed(DESCENT), 0, signed(ASCENT), DESCENT.unsigned_abs()];
    let end = [&letters[..], &heights, &[0, 1, 0, 0, 500, 700, 0, 0x20, 0]].concat();
    [begin, panose_ranges_vendor, words(&end)].concat()
}

/// Every letter is glyph 1.
fn cmap() -> Vec<u8> {
    let count = LETTERS.end() - LETTERS.start() + 1;
    let segments = [*LETTERS.end(), 0xffff, 0, *LETTERS.start(), 0xffff, 0, 1, 4, 0];
    let glyphs = vec![1; usize::from(count)];
    let size = 2 * (7 + 9 + count);
    let header = [0, 1, 3, 1, 0, 12, 4, size, 0, 4, 4, 1, 0];
    words(&[&header[..], &segments, &glyphs].concat())
}

/// A box, a little narrower than the letter.
fn glyph(width: u16) -> Vec<u8> {
    let right = width - 40;
    let outline = words(&[1, 0, 0, right, 700, 3, 0]);
    let flags = vec![1; 4];
    let across = words(&[0, right, 0, signed(-(right.cast_signed()))]);
    let up = words(&[0, 0, 700, 0]);
    [outline, flags, across, up].concat()
}
