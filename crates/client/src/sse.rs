//! The bytes of Server-Sent Events, read as the standard says:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>.
//!
//! ```
//! use client::sse::Parser;
//! use std::ops::ControlFlow;
//!
//! let mut parser = Parser::default();
//! let mut names = Vec::new();
//! for piece in [&b"id: 7\nevent: Pat"[..], b"ient\ndata: {}\n\n"] {
//!     let _: ControlFlow<()> = parser.push(piece, |event| {
//!         names.push(format!("{} {}", event.id, event.name));
//!         ControlFlow::Continue(())
//!     })?;
//! }
//! assert_eq!(names, ["7 Patient"]);
//! # Ok::<(), client::sse::TooLarge>(())
//! ```
//!
//! Bytes come in pieces of any size and go out as events whose data is a slice: a line that lies whole in a
//! piece is copied once, and nothing of it is decoded.

use std::ops::ControlFlow;
use std::time::Duration;

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// The last id, of this event or of one before it.
    pub id: &'a str,
    /// Its type; empty: it has none.
    pub name: &'a str,
    /// Its data. Several lines have a line feed between them.
    pub data: &'a [u8],
}

/// An event is larger than any resource could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an event is larger than {} MiB: is this a stream of FHIR resources?", LARGEST >> 20)]
pub struct TooLarge;

/// The most that is kept of one event.
const LARGEST: usize = 256 << 20;
/// A buffer that had to grow beyond this is shrunk afterwards.
const KEPT: usize = 1 << 20;

/// Reads one stream. A new connection is a new stream.
#[derive(Default, Debug)]
pub struct Parser {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Each data line of the event so far, and a line feed after each.
    data: Vec<u8>,
    name: String,
    id: String,
    retry: Option<Duration>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// The first line has been read, which a byte order mark may stand before.
    begun: bool,
}

impl Parser {
    /// A parser of a stream that resumes after the event with this id.
    #[must_use]
    pub fn after(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The last `retry` of the stream.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes the next bytes, and calls `each` for every event that they complete, until it breaks off: then nothing
    /// more can be read from this stream.
    ///
    /// # Errors
    ///
    /// If an event is larger than 256 MiB.
    pub fn push<B>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Event<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLarge> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            let is_cr = bytes[end] == b'\r';
            self.after_cr = is_cr && rest.is_empty();
            bytes = if is_cr { rest.strip_prefix(b"\n").unwrap_or(rest) } else { rest };
            self.fits(line.len())?;
            let flow = if self.line.is_empty() {
                self.line(line, &mut each)
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let flow = self.line(&whole, &mut each);
                self.line = whole;
                empty(&mut self.line);
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        self.fits(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(ControlFlow::Continue(()))
    }

    fn fits(&self, more: usize) -> Result<(), TooLarge> {
        if self.line.len() + self.data.len() + more > LARGEST { Err(TooLarge) } else { Ok(()) }
    }

    /// Takes a line, without its end.
    fn line<B>(&mut self, line: &[u8], each: &mut impl FnMut(Event<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let first = !std::mem::replace(&mut self.begun, true);
        let line = if first { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch(each);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.id = String::from_utf8_lossy(value).into_owned(),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                // Digits alone, but perhaps too many of them.
                let millis = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            // A comment, whose field is empty, or what later versions may add.
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn dispatch<B>(&mut self, each: &mut impl FnMut(Event<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let flow = match self.data.strip_suffix(b"\n") {
            Some(data) => each(Event { id: &self.id, name: &self.name, data }),
            None => ControlFlow::Continue(()),
        };
        empty(&mut self.data);
        self.name.clear();
        flow
    }
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = (String, String, Vec<u8>);

    fn read(pieces: &[&[u8]]) -> (Vec<Read>, Option<Duration>) {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            let flow = parser.push(piece, |event| -> ControlFlow<()> {
                events.push((event.id.to_owned(), event.name.to_owned(), event.data.to_vec()));
                ControlFlow::Continue(())
            });
            assert_eq!(flow, Ok(ControlFlow::Continue(())));
        }
        (events, parser.retry())
    }

    fn event(id: &str, name: &str, data: &str) -> Read {
        (id.to_owned(), name.to_owned(), data.as_bytes().to_vec())
    }

    #[test]
    fn reads_what_the_standard_shows() {
        for (text, expected) in [
            ("data: YHOO\ndata: +2\ndata: 10\n\n", vec![event("", "", "YHOO\n+2\n10")]),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                vec![
                    event("1", "", "first event"),
                    event("", "", "second event"),
                    event("", "", " third event"),
                ],
            ),
            ("data\n\ndata\ndata\n\ndata:", vec![event("", "", ""), event("", "", "\n")]),
            ("data:test\n\ndata: test\n\n", vec![event("", "", "test"), event("", "", "test")]),
        ] {
            for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
                assert_eq!(read(&[text.as_bytes()]).0, expected, "{text:?}");
            }
        }
    }

    #[test]
    fn an_id_stays_and_a_name_does_not() {
        let text = "\u{feff}id: a\nevent: Patient\ndata: 1\n\n: quiet\nid: b\n\ndata: 2\n\nid: c\0\nevent: x\n\ndata: 3\n\n";
        let expected = vec![event("a", "Patient", "1"), event("b", "", "2"), event("b", "", "3")];
        assert_eq!(read(&[text.as_bytes()]).0, expected);
    }

    #[test]
    fn a_delay_is_of_digits_alone() {
        let millis = |text: &str| read(&[text.as_bytes()]).1.map(|retry| retry.as_millis());
        assert_eq!(millis("retry: 2719\n"), Some(2719));
        assert_eq!(millis("retry: 5\nretry: -1\nretry:\nretry: 1e3\nretry: 99999999999999999999\n"), Some(5));
        assert_eq!(millis("retry: 5"), None);
    }

    #[test]
    fn breaking_off_ends_it() {
        let flow = Parser::default().push(b"data: 1\n\ndata: 2\n\n", |event| {
            assert_eq!(event.data, b"1");
            ControlFlow::Break("enough")
        });
        assert_eq!(flow, Ok(ControlFlow::Break("enough")));
    }

    #[test]
    fn a_large_line_passes_and_a_boundless_one_does_not() {
        let large = vec![b'x'; 10 << 20];
        let (events, _) = read(&[b"data: ", &large[..1000], &large[1000..], b"\n\n"]);
        assert!(events.len() == 1 && events[0].2 == large);
        let mut parser = Parser::default();
        let mut endless = || parser.push(&large, |_| ControlFlow::<()>::Continue(())).err();
        assert_eq!((0..30).find_map(|_| endless()), Some(TooLarge));
        assert!(parser.line.len() <= LARGEST);
    }

    proptest! {
        /// Whatever the pieces and the line ends, what was written is read.
        #[test]
        fn pieces_and_line_ends_do_not_matter(
            events in prop::collection::vec(("[a-z0-9]{1,4}", "[A-Z][a-z]{0,6}", "[ -~]{0,20}", any::<bool>()), 0..8),
            ends in prop::collection::vec(0..3_usize, 64),
            cuts in prop::collection::vec(0..500_usize, 0..12),
            mark in any::<bool>(),
        ) {
            let mut ends = ends.iter().cycle().map(|end| ["\n", "\r", "\r\n"][*end]);
            let mut text = if mark { "\u{feff}".to_owned() } else { String::new() };
            let mut lines = Vec::new();
            for (id, name, data, comment) in &events {
                if *comment {
                    lines.push(": still here".to_owned());
                }
                lines.extend([format!("id: {id}"), format!("event: {name}"), format!("data: {data}"), String::new()]);
            }
            for line in &lines {
                text += line;
                // A line end of CR before an empty line that ends with LF would be one end.
                text += if text.ends_with('\r') && line.is_empty() { "\r" } else { ends.next().unwrap_or("\n") };
            }
            let expected: Vec<Read> = events.iter().map(|(id, name, data, _)| event(id, name, data)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces).0, expected);
        }

        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(bytes in prop::collection::vec(
            prop::sample::select(b"\r\n:d at\0\xEF\xBB\xBFidevnr".to_vec()), 0..200), cut in 0..200_usize)
        {
            let cut = cut.min(bytes.len());
            let whole = read(&[&bytes]);
            prop_assert_eq!(&read(&[&bytes[..cut], &bytes[cut..]]), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&single), whole);
        }
    }
}
