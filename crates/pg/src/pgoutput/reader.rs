//! A cursor over the bytes of one message. Every read is checked, and an error says where.

use crate::Lsn;
use crate::Timestamp;
use std::borrow::Cow;

/// The bytes are not a message of pgoutput.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message} message of pgoutput: {problem} at offset {offset}")]
pub struct DecodeError {
    /// The kind of message.
    pub message: &'static str,
    /// Where in it, counted from its first byte.
    pub offset: usize,
    /// What is wrong.
    pub problem: &'static str,
}

#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    message: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, message: "unknown" }
    }

    /// Names the message for errors.
    pub(super) const fn is(&mut self, message: &'static str) {
        self.message = message;
    }

    pub(super) const fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError { message: self.message, offset: self.offset, problem }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let taken = self.rest().get(..count).ok_or_else(|| self.error("the message is too short"))?;
        self.offset += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.rest().first_chunk().ok_or_else(|| self.error("the message is too short"))?;
        self.offset += N;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A length, which the server writes as a signed number.
    pub(super) fn length(&mut self) -> Result<usize, DecodeError> {
        let at = self.clone();
        usize::try_from(self.i32()?).map_err(|_| at.error("a length is negative"))
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array().map(u64::from_be_bytes).map(Lsn::new)
    }

    pub(super) fn timestamp(&mut self) -> Result<Timestamp, DecodeError> {
        self.array().map(i64::from_be_bytes).map(Timestamp)
    }

    /// A name that a zero byte ends. Names are in whatever encoding the cluster's databases have: what is not UTF-8 in
    /// one is replaced, and never keeps what follows from being read.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let end = memchr::memchr(0, self.rest()).ok_or_else(|| self.error("a string does not end"))?;
        let bytes = self.take(end)?;
        self.offset += 1;
        Ok(String::from_utf8_lossy(bytes))
    }

    /// The message ends here.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.error("bytes are left over")) }
    }
}
