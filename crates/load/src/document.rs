//! The JSON objects of an input, one after the other, whether one a line or spread over many.
//!
//! Only brackets and strings are followed here, to find where an object ends and, when it is broken,
//! where the next one can begin: at the next line. What it holds is read later.

use std::io::{self, BufRead, Read as _, Seek as _, Write as _};
use tempfile::SpooledTempFile;

/// Objects up to this size stay in memory; a larger one is a Bundle, or nothing that can be loaded.
pub(super) const IN_MEMORY: usize = 64 * 1024 * 1024;

/// How UTF-8 may begin.
const MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Deeper nesting is refused: no resource has it, and Postgres would run out of stack.
const DEEPEST: usize = 500;

/// One JSON object.
pub(super) struct Document {
    /// The line that it begins in, from 1.
    pub(super) line: u64,
    /// Its text, from the first byte.
    pub(super) text: Text,
}

/// The text of an object.
pub(super) enum Text {
    Memory(Vec<u8>),
    /// Rewound.
    File(std::fs::File),
}

/// Why there is no object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("not a JSON object: it does not begin with '{{'")]
    NoObject,
    #[error(
        "a second byte order mark: the input was put together of several files; give each by itself, or take the marks out"
    )]
    SecondMark,
    #[error("in UTF-16 or UTF-32: convert it to UTF-8, for instance with 'iconv -f UTF-16 -t UTF-8'")]
    Utf16,
    #[error("the line ends within a JSON object")]
    LineEnds,
    #[error("the JSON object that begins here does not end")]
    Unfinished,
    #[error("nested more than {DEEPEST} levels deep")]
    TooDeep,
}

/// The objects of an input.
pub(super) struct Documents<R> {
    /// The first bytes, once they were looked at, and the rest.
    input: io::Chain<io::Cursor<Vec<u8>>, R>,
    line: u64,
    in_memory: usize,
    begun: bool,
}

/// One object, or the line of a broken one and why.
pub(super) type Found = Result<Document, (u64, Broken)>;

impl<R: BufRead> Documents<R> {
    pub(super) fn of(input: R) -> Self {
        let input = io::Cursor::default().chain(input);
        Self { input, line: 1, in_memory: IN_MEMORY, begun: false }
    }

    /// The next one; `None` at the end of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if !self.begun {
            self.begun = true;
            if self.begins_as_utf16()? {
                // Nothing in it is a line of ours.
                io::copy(&mut self.input, &mut io::sink())?;
                return Ok(Some(Err((1, Broken::Utf16))));
            }
        }
        match self.skip_whitespace()? {
            None => return Ok(None),
            Some(b'{') => {}
            Some(_) => {
                let line = self.line;
                let broken = if self.skip_mark()? { Broken::SecondMark } else { Broken::NoObject };
                self.skip_line()?;
                return Ok(Some(Err((line, broken))));
            }
        }
        let line = self.line;
        let mut spool = SpooledTempFile::new(self.in_memory);
        let mut scan = Scan::default();
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(Some(Err((line, Broken::Unfinished))));
            }
            let (length, step) = scan.step(buffer);
            spool.write_all(&buffer[..length])?;
            self.input.consume(length);
            self.line = line + scan.lines;
            match step {
                Step::More => {}
                Step::Done if scan.deepest > DEEPEST => return Ok(Some(Err((line, Broken::TooDeep)))),
                Step::Done => return Ok(Some(Ok(Document { line, text: text(spool)? }))),
                Step::LineEnds => return Ok(Some(Err((self.line - 1, Broken::LineEnds)))),
            }
        }
    }

    /// Passes a byte order mark at the beginning. Whether it is that of another encoding, or one without a mark shows.
    fn begins_as_utf16(&mut self) -> io::Result<bool> {
        let mut first = Vec::new();
        let (_, input) = self.input.get_mut();
        input.take(MARK.len() as u64).read_to_end(&mut first)?;
        if matches!(first.as_slice(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..]) {
            return Ok(true);
        }
        if first != MARK {
            *self.input.get_mut().0 = io::Cursor::new(first);
        }
        Ok(false)
    }

    /// Passes a byte order mark, or as much as there is of one.
    fn skip_mark(&mut self) -> io::Result<bool> {
        for byte in MARK {
            if self.input.fill_buf()?.first() != Some(&byte) {
                return Ok(false);
            }
            self.input.consume(1);
        }
        Ok(true)
    }

    /// The next byte that is not whitespace; it is not passed.
    fn skip_whitespace(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.input.fill_buf()?;
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let lines = buffer[..blank].iter().filter(|byte| **byte == b'\n').count();
            let (next, empty) = (buffer.get(blank).copied(), buffer.is_empty());
            self.line += lines as u64;
            self.input.consume(blank);
            if next.is_some() || empty {
                return Ok(next);
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        self.input.skip_until(b'\n')?;
        self.line += 1;
        Ok(())
    }
}

fn text(mut spool: SpooledTempFile) -> io::Result<Text> {
    spool.rewind()?;
    Ok(match spool.into_inner() {
        tempfile::SpooledData::InMemory(cursor) => Text::Memory(cursor.into_inner()),
        tempfile::SpooledData::OnDisk(file) => Text::File(file),
    })
}

/// Where in an object the bytes have led so far.
#[derive(Default)]
struct Scan {
    depth: usize,
    deepest: usize,
    in_string: bool,
    escaped: bool,
    /// Line ends passed.
    lines: u64,
    /// The last byte outside of strings that is not whitespace.
    last: u8,
}

/// What the bytes led to.
enum Step {
    More,
    Done,
    /// A line has ended where none may: what follows is another object.
    LineEnds,
}

impl Scan {
    /// Follows the bytes up to the object's end; how many were passed.
    fn step(&mut self, bytes: &[u8]) -> (usize, Step) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            if self.in_string {
                match byte {
                    b'\n' => {
                        self.lines += 1;
                        return (at, Step::LineEnds);
                    }
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {
                        // To the next byte that matters.
                        let rest = &bytes[at..];
                        at += memchr::memchr3(b'"', b'\\', b'\n', rest).unwrap_or(rest.len());
                    }
                }
                continue;
            }
            match byte {
                b'\n' => {
                    self.lines += 1;
                    // A printer breaks the first line after a bracket or a comma; a line that was cut off
                    // ends anywhere.
                    if self.lines == 1 && !matches!(self.last, b'{' | b'[' | b',') {
                        return (at, Step::LineEnds);
                    }
                    continue;
                }
                b' ' | b'\t' | b'\r' => continue,
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                }
                b'}' | b']' => {
                    // The first byte opened an object, and this ends when it is closed: never below zero.
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (at, Step::Done);
                    }
                }
                _ => {}
            }
            self.last = byte;
        }
        (at, Step::More)
    }
}

#[cfg(test)]
mod tests;
