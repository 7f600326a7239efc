//! Server-Sent Events, byte by byte, as <https://html.spec.whatwg.org/multipage/server-sent-events.html> reads them,
//! but keeping what clients throw away: comments, and which fields a frame had in which order.

/// What a stream is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A frame: lines up to an empty one.
    Frame(Frame),
    /// A line that begins with a colon, without it.
    Comment(String),
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Name and value of each field, as they came.
    pub fields: Vec<(String, String)>,
}

impl Frame {
    /// The value of a field: of `data` all lines, of others the last.
    pub fn get(&self, name: &str) -> Option<String> {
        let mut values =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
        if name == "data" {
            let lines: Vec<&str> = values.collect();
            return (!lines.is_empty()).then(|| lines.join("\n"));
        }
        values.next_back().map(str::to_owned)
    }
}

/// Bytes in, items out; what is not whole yet waits for more bytes.
#[derive(Default)]
pub struct Parser {
    bytes: Vec<u8>,
    /// How many of them have been read.
    read: usize,
    /// How many of the others are known to hold no line end.
    searched: usize,
    frame: Frame,
}

impl Parser {
    /// More bytes, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next item that is whole. Lines end with LF: the server under test sends nothing else, and a CR
    /// shows as a part of its line.
    pub fn next_item(&mut self) -> Option<Item> {
        loop {
            let begin = self.read + self.searched;
            let Some(length) = memchr::memchr(b'\n', &self.bytes[begin..]) else {
                self.searched = self.bytes.len() - self.read;
                return None;
            };
            let line = String::from_utf8_lossy(&self.bytes[self.read..begin + length]).into_owned();
            self.read = begin + length + 1;
            self.searched = 0;
            if line.is_empty() {
                // As the standard has it: nothing between two empty lines is nothing.
                if !self.frame.fields.is_empty() {
                    return Some(Item::Frame(std::mem::take(&mut self.frame)));
                }
            } else if let Some(comment) = line.strip_prefix(':') {
                return Some(Item::Comment(comment.to_owned()));
            } else {
                let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                self.frame.fields.push((name.to_owned(), value.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(parser: &mut Parser) -> Vec<Item> {
        std::iter::from_fn(|| parser.next_item()).collect()
    }

    #[test]
    fn cut_at_any_byte_it_reads_the_same() {
        let text = "retry: 1\nid: a\nevent: X\ndata: {\"ü\":1}\n\n: beat\n\n\nid:b\ndata\ndata:  two\n\nid: cut off\n";
        let mut whole = Parser::default();
        whole.push(text.as_bytes());
        let expected = all(&mut whole);
        assert_eq!(expected.len(), 3);
        assert_eq!(expected[1], Item::Comment(" beat".to_owned()));
        let Item::Frame(last) = &expected[2] else { panic!("no frame") };
        assert_eq!(last.get("data").unwrap(), "\n two");
        assert_eq!(last.get("event"), None);
        for cut in 0..text.len() {
            let mut parser = Parser::default();
            parser.push(&text.as_bytes()[..cut]);
            let mut items = all(&mut parser);
            parser.push(&text.as_bytes()[cut..]);
            items.extend(all(&mut parser));
            assert_eq!(items, expected, "cut at {cut}");
        }
    }
}
