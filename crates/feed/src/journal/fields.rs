//! Fixed-size fields of what is stored, off the front of its bytes. All numbers are big-endian.

use super::JournalError;
use crate::{Lsn, Position};
use fhir::Instant;

/// Reads fixed-size fields off the front of a slice.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], JournalError> {
        let (head, rest) =
            self.0.split_first_chunk().ok_or(JournalError::Corrupt("a block ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], JournalError> {
        let (head, rest) =
            self.0.split_at_checked(len).ok_or(JournalError::Corrupt("an entry is longer than its block"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, JournalError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn position(&mut self) -> Result<Position, JournalError> {
        Ok(Position {
            commit_lsn: Lsn::new(u64::from_be_bytes(self.take()?)),
            ordinal: u64::from_be_bytes(self.take()?),
            part: u16::from_be_bytes(self.take()?),
        })
    }

    pub(super) fn instant(&mut self) -> Result<Instant, JournalError> {
        Ok(Instant::from_unix_micros(i64::from_be_bytes(self.take()?)))
    }
}

pub(super) fn write_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.commit_lsn.get().to_be_bytes());
    out.extend_from_slice(&position.ordinal.to_be_bytes());
    out.extend_from_slice(&position.part.to_be_bytes());
}
