//! The connection against a server that may say anything.

use super::codec::{Backend, Codec};
use super::connection::Start;
use super::login::{Login, login};
use crate::Lsn;
use bytes::{Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::config::ChannelBinding;
use tokio_util::codec::Decoder;

/// The same frames come out, however the bytes are cut on their way.
pub(crate) fn cut_anywhere(bytes: &[u8]) {
    let whole = frames(&[bytes]);
    for size in [1, 3, 7] {
        let pieces: Vec<_> = bytes.chunks(size).collect();
        assert!(frames(&pieces) == whole, "other frames in pieces of {size}");
    }
}

/// What was decoded, up to the first error.
fn frames(pieces: &[&[u8]]) -> Vec<(u8, Bytes)> {
    let (mut codec, mut buffer, mut out) = (Codec::for_login(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(Backend::CopyBoth)) => out.push((b'W', Bytes::new())),
                Ok(Some(Backend::Copy(payload))) => out.push((b'd', payload)),
                Ok(Some(Backend::Other(Message::DataRow(body)))) => {
                    out.push((b'D', Bytes::copy_from_slice(body.buffer())));
                }
                Ok(Some(Backend::Other(_))) => out.push((0, Bytes::new())),
                Ok(None) => break,
                Err(_) => {
                    out.push((b'!', Bytes::new()));
                    return out;
                }
            }
        }
    }
    out
}

/// A whole conversation, whose other side says these bytes whatever it is asked: it ends.
pub(crate) fn conversation(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let channel = tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink());
    runtime.block_on(async move {
        let login_as = Login {
            user: "ann",
            // Without a password: the server says how often it is to be hashed, and that is not what is looked at here.
            password: None,
            dbname: "fhir",
            options: None,
            binding_policy: ChannelBinding::Prefer,
            server_end_point: None,
            private: true,
        };
        let Ok(mut connection) = login(channel, &login_as).await else { return };
        if connection.identify_system().await.is_err() || connection.timeline_history(2).await.is_err() {
            return;
        }
        let (_durable, durable) = watch::channel(Lsn::ZERO);
        let start = Start {
            slot: "slot",
            publication: "publication",
            from: Lsn::ZERO,
            status_interval: Duration::from_secs(10),
            durable,
        };
        let Ok(mut stream) = connection.start(start).await else { return };
        while stream.next().await.is_ok() {}
    });
}
