//! Lines between the stream and the files, with the position after them.

use super::state::Position;

/// Lines of one file.
#[derive(Debug)]
pub(super) struct Part {
    /// The type whose file it is; empty where there is one file for all.
    pub(super) name: String,
    pub(super) lines: Vec<u8>,
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// All that was written before is void; this is the position of the notice that said so.
    pub(super) restart: Option<Position>,
    parts: Vec<Part>,
    /// The position after it.
    pub(super) position: Position,
    /// The position has changed, perhaps by a notice alone.
    pub(super) moved: bool,
    /// How many lines.
    pub(super) count: u64,
    bytes: usize,
}

impl Batch {
    /// Adds a line to the file of this name.
    pub(super) fn append(&mut self, name: &str, data: &[u8]) {
        self.append_with(name, |lines| lines.extend_from_slice(data));
    }

    /// Adds the line that this writes.
    pub(super) fn append_with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        // Lines of a type mostly arrive together.
        let index = match self.parts.iter().rposition(|part| part.name == name) {
            Some(index) => index,
            None => {
                self.parts.push(Part { name: name.to_owned(), lines: Vec::new() });
                self.parts.len() - 1
            }
        };
        let lines = &mut self.parts[index].lines;
        let start = lines.len();
        write(lines);
        // In JSON a line break can only be between tokens, where a space is equivalent.
        let mut from = start;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', &lines[from..]) {
            lines[from + at] = b' ';
            from += at + 1;
        }
        lines.push(b'\n');
        self.bytes += lines.len() - start;
        self.count += 1;
    }

    /// All that was received so far is void. `position`: that of the notice that said so.
    pub(super) fn restart(&mut self, position: Position) {
        *self = Self { restart: Some(position), ..Self::default() };
    }

    /// Takes the batch, which ends at this position, and leaves an empty one.
    pub(super) fn take(&mut self, position: &Position) -> Self {
        Self { position: position.clone(), ..std::mem::take(self) }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The size of its lines.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_their_files() {
        let mut batch = Batch::default();
        for (name, data) in [("Patient", "{\n\"a\":1}"), ("Group", "{}"), ("Patient", "{}")] {
            batch.append(name, data.as_bytes());
        }
        let parts: Vec<_> = batch.parts().iter().map(|part| (part.name.as_str(), &part.lines[..])).collect();
        assert_eq!(parts, [("Patient", &b"{ \"a\":1}\n{}\n"[..]), ("Group", b"{}\n")]);
        assert_eq!((batch.count, batch.bytes()), (3, 15));
    }

    #[test]
    fn restart_drops_earlier_lines() {
        let mut batch = Batch::default();
        batch.append("Patient", b"{}");
        let position = Position { last_event_id: Some("a".to_owned()), ..Position::default() };
        batch.restart(position.clone());
        batch.append("Group", b"{}");
        assert_eq!(batch.restart, Some(position));
        assert_eq!((batch.parts().len(), batch.count), (1, 1));
    }
}
