//! The JSON objects of an input, one after the other, whether one a line or spread over many.
//!
//! Only brackets and strings are followed here, to find where an object ends and, when it is broken,
//! where the next one can begin: at the next line. What it holds is read later.

use std::io::{self, BufRead, Seek as _, Write as _};
use tempfile::SpooledTempFile;

/// Objects up to this size stay in memory; a larger one is a Bundle, or nothing that can be loaded.
pub(super) const IN_MEMORY: usize = 64 * 1024 * 1024;

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
    #[error("the line ends within a JSON object")]
    LineEnds,
    #[error("the JSON object that begins here does not end")]
    Unfinished,
    #[error("nested more than {DEEPEST} levels deep")]
    TooDeep,
}

/// The objects of an input.
pub(super) struct Documents<R> {
    input: R,
    line: u64,
    in_memory: usize,
    begun: bool,
}

/// One object, or the line of a broken one and why.
pub(super) type Found = Result<Document, (u64, Broken)>;

impl<R: BufRead> Documents<R> {
    pub(super) fn of(input: R) -> Self {
        Self { input, line: 1, in_memory: IN_MEMORY, begun: false }
    }

    /// The next one; `None` at the end of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if !self.begun {
            self.begun = true;
            self.skip_byte_order_mark()?;
        }
        match self.skip_whitespace()? {
            None => return Ok(None),
            Some(b'{') => {}
            Some(_) => {
                let line = self.line;
                self.skip_line()?;
                return Ok(Some(Err((line, Broken::NoObject))));
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

    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        for byte in *b"\xef\xbb\xbf" {
            if self.input.fill_buf()?.first() != Some(&byte) {
                break;
            }
            self.input.consume(1);
        }
        Ok(())
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
