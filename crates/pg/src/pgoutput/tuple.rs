//! The columns of a row.

use super::reader::{DecodeError, Reader};

/// The columns of a row, as they lie in the message. Checked once when the message is decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

/// One column of a [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column<'a> {
    /// `NULL`.
    Null,
    /// A large value that the statement left alone: it is not in the log.
    UnchangedToast,
    /// The value as the type's output function writes it.
    Text(&'a [u8]),
    /// The value in binary form (not asked for by this service).
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Reads a tuple and checks that all its columns are there.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        if count > i16::MAX.unsigned_abs() {
            return Err(reader.error("the number of columns is negative"));
        }
        let start = reader.rest();
        for _ in 0..count {
            column(reader)?;
        }
        let bytes = &start[..start.len() - reader.rest().len()];
        Ok(Self { count, bytes })
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The column at this index; `None` beyond the last. Looks at all columns before it.
    pub fn get(&self, index: usize) -> Option<Column<'a>> {
        self.columns().nth(index)
    }

    /// The columns in order.
    pub fn columns(&self) -> Columns<'a> {
        Columns { left: self.count, reader: Reader::new(self.bytes) }
    }
}

impl std::fmt::Debug for Tuple<'_> {
    /// Never the values: they are patients' data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tuple({} columns)", self.count)
    }
}

/// The columns of a [`Tuple`], in order.
#[derive(Clone)]
pub struct Columns<'a> {
    left: u16,
    reader: Reader<'a>,
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `Tuple::read` has read the same bytes.
        column(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Columns<'_> {}

fn column<'a>(reader: &mut Reader<'a>) -> Result<Column<'a>, DecodeError> {
    let at = reader.clone();
    Ok(match reader.u8()? {
        b'n' => Column::Null,
        b'u' => Column::UnchangedToast,
        kind @ (b't' | b'b') => {
            let length = reader.length()?;
            let value = reader.take(length)?;
            if kind == b't' { Column::Text(value) } else { Column::Binary(value) }
        }
        _ => return Err(at.error("a column is of no known kind")),
    })
}
