//! Frames of the server's messages. The payload of CopyData is split off the buffer, never copied.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::{COPY_DATA_TAG, Header, Message};
use std::io;
use tokio_util::codec::{Decoder, Encoder};

/// `CopyBothResponse`, which `postgres-protocol` does not know.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// No value in Postgres is larger than 1 GB, and a row message has a few.
const LONGEST: usize = 0x7fff_ffff;
/// Before the login nothing is long; what claims to be is not a Postgres server.
const LONGEST_AT_LOGIN: usize = 64 * 1024;

/// How much is read from the socket at once. `BytesMut` makes the next buffer as large as the first, but never larger than this.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// A buffer that had to grow beyond this is not read into again.
const KEPT_BUFFER: usize = 8 * READ_BUFFER;

/// `XLogData` of the replication protocol, and how many bytes it has before what the plugin wrote.
const XLOG_DATA_TAG: u8 = b'w';
const XLOG_DATA_HEADER: usize = 25;
/// What `pg_logical_emit_message` wrote.
const EMITTED_TAG: u8 = b'M';

/// A message of the server's.
pub(super) enum Backend {
    /// The stream begins.
    CopyBoth,
    /// A message within the stream.
    Copy(Bytes),
    /// Anything else.
    Other(Message),
}

pub(super) struct Codec {
    longest: usize,
    /// How much of a frame that is left out is still to come.
    skipped: usize,
}

impl Codec {
    pub(super) const fn for_login() -> Self {
        Self { longest: LONGEST_AT_LOGIN, skipped: 0 }
    }

    pub(super) const fn logged_in(&mut self) {
        self.longest = LONGEST;
    }
}

impl Decoder for Codec {
    type Item = Backend;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Backend>> {
        if self.skipped > 0 {
            let came = self.skipped.min(buffer.len());
            buffer.advance(came);
            self.skipped -= came;
            if self.skipped > 0 {
                return Ok(None);
            }
        }
        let Some(header) = Header::parse(buffer)? else {
            return Ok(None);
        };
        let length = usize::try_from(header.len())
            .ok()
            .filter(|length| *length <= self.longest)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message is too long"))?;
        let total = length + 1;
        if total > KEPT_BUFFER && header.tag() == COPY_DATA_TAG && is_emitted(buffer) {
            self.skipped = total;
            return self.decode(buffer);
        }
        if buffer.len() < total {
            buffer.reserve(total - buffer.len());
            return Ok(None);
        }
        match header.tag() {
            COPY_DATA_TAG => {
                let mut payload = buffer.split_to(total).freeze();
                payload.advance(5);
                if total > KEPT_BUFFER {
                    // Its memory goes with it, and not only with the connection.
                    let rest = std::mem::replace(buffer, BytesMut::with_capacity(READ_BUFFER));
                    buffer.extend_from_slice(&rest);
                }
                Ok(Some(Backend::Copy(payload)))
            }
            COPY_BOTH_RESPONSE_TAG => {
                buffer.advance(total);
                Ok(Some(Backend::CopyBoth))
            }
            _ => Ok(Message::parse(buffer)?.map(Backend::Other)),
        }
    }
}

/// Whether a frame of `CopyData` has a message that somebody wrote into the log. Anybody who may log in can, up to 1 GB, so
/// a large one, which is none of ours, is not held.
fn is_emitted(frame: &[u8]) -> bool {
    frame.get(5) == Some(&XLOG_DATA_TAG) && frame.get(5 + XLOG_DATA_HEADER) == Some(&EMITTED_TAG)
}

/// Messages of ours are written by `postgres_protocol::message::frontend`.
impl Encoder<BytesMut> for Codec {
    type Error = io::Error;

    fn encode(&mut self, message: BytesMut, buffer: &mut BytesMut) -> io::Result<()> {
        if buffer.is_empty() {
            *buffer = message;
        } else {
            buffer.extend_from_slice(&message);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of `CopyData` with what the plugin wrote.
    fn frame(written: &[u8]) -> Vec<u8> {
        let mut payload = vec![XLOG_DATA_TAG];
        payload.resize(XLOG_DATA_HEADER, 0);
        payload.extend_from_slice(written);
        let length = u32::try_from(payload.len() + 4).unwrap();
        [&[COPY_DATA_TAG], length.to_be_bytes().as_slice(), &payload].concat()
    }

    #[test]
    fn a_large_message_of_somebody_is_not_held() {
        let large = |tag| {
            let mut written = vec![tag];
            written.resize(40 * READ_BUFFER, b'x');
            frame(&written)
        };
        let frames =
            [frame(b"Msmall"), large(EMITTED_TAG), frame(b"C"), large(b'I'), large(EMITTED_TAG), frame(b"B")];
        // The boundaries of what is read fall anywhere.
        for step in [1_000, 4_093, READ_BUFFER] {
            let (mut codec, mut buffer, mut heard) = (Codec::for_login(), BytesMut::new(), Vec::new());
            codec.logged_in();
            let mut largest = 0;
            for chunk in frames.concat().chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(Backend::Copy(payload)) = codec.decode(&mut buffer).unwrap() {
                    heard.push((payload[XLOG_DATA_HEADER], payload.len()));
                }
                if heard.len() < 2 {
                    largest = largest.max(buffer.len());
                }
            }
            let tags: Vec<u8> = heard.iter().map(|(tag, _)| *tag).collect();
            assert_eq!(tags, b"MCIB", "{step}");
            assert_eq!(heard[2].1, XLOG_DATA_HEADER + 40 * READ_BUFFER);
            assert!(largest <= 2 * READ_BUFFER, "{largest} bytes were held");
            assert!(buffer.is_empty());
        }
    }
}
