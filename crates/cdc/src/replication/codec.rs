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
}

impl Codec {
    pub(super) const fn for_login() -> Self {
        Self { longest: LONGEST_AT_LOGIN }
    }

    pub(super) const fn logged_in(&mut self) {
        self.longest = LONGEST;
    }
}

impl Decoder for Codec {
    type Item = Backend;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Backend>> {
        let Some(header) = Header::parse(buffer)? else {
            return Ok(None);
        };
        let length = usize::try_from(header.len())
            .ok()
            .filter(|length| *length <= self.longest)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a message is too long"))?;
        let total = length + 1;
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
