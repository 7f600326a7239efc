//! Writing a stream, from its head to its end: all that is left of a connection when hyper has parsed its request.
//!
//! One chunk is in hand at a time, and the next is asked for when it is written. Between chunks nothing is
//! held but the socket and the stream itself.

use super::handover::Handed;
use super::socket::Patience;
use axum::body::BodyDataStream;
use bytes::Bytes;
use futures_core::Stream as _;
use http::response::Parts;
use hyper::Version;
use std::io::{Error, ErrorKind, IoSlice, Result, Write as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// The longest line that says a chunk's size.
const SIZE_LINE_BYTES: usize = 18;
/// What is read at once of what a client sends behind its request.
const IGNORED_BYTES: usize = 1024;

/// A stream being written; ready when it has ended or its client is gone.
pub(super) struct Streaming {
    socket: TcpStream,
    patience: Patience,
    body: BodyDataStream,
    /// Whether the stream is framed in chunks; without, the end of the connection is its end.
    chunked: bool,
    in_hand: InHand,
    step: Step,
}

enum Step {
    /// Waits for the next frames.
    Asking,
    /// Writes them.
    Writing,
    /// Writes the end.
    Ending,
}

/// What is being written.
#[derive(Default)]
struct InHand {
    before: Vec<u8>,
    bytes: Bytes,
    after: &'static [u8],
    /// How much of all three.
    written: usize,
}

impl Streaming {
    pub(super) fn new(socket: TcpStream, client_timeout: Duration, handed: Handed) -> Result<Self> {
        let (parts, body) = handed.response.into_parts();
        // HTTP/1.0 has no chunks.
        let chunked = handed.version != Version::HTTP_10;
        // The head goes with the first frame, which is there at once.
        let in_hand = InHand { before: head(&parts, chunked)?, ..InHand::default() };
        let patience = Patience::new(client_timeout);
        Ok(Self { socket, patience, body: body.into_data_stream(), chunked, in_hand, step: Step::Asking })
    }

    /// Whether the client is gone. What it sends behind its request is dropped.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut room = [MaybeUninit::uninit(); IGNORED_BYTES];
        let mut ignored = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut self.socket).poll_read(context, &mut ignored)) {
            Ok(()) if !ignored.filled().is_empty() => {
                // Once a turn, so that a client that talks gets its stream as well.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(()) | Err(_) => Poll::Ready(()),
        }
    }

    /// Writes what is in hand.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let InHand { before, bytes, after, written } = &mut self.in_hand;
        let all = before.len() + bytes.len() + after.len();
        while *written < all {
            let mut slices = [IoSlice::new(before), IoSlice::new(bytes), IoSlice::new(after)];
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, *written);
            let count = Pin::new(&mut self.socket).poll_write_vectored(context, left);
            *written += match ready!(self.patience.bound(context, count))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => count,
            };
        }
        self.in_hand.clear();
        Poll::Ready(Ok(()))
    }
}

impl Future for Streaming {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if this.poll_gone(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.step {
                Step::Asking => match ready!(Pin::new(&mut this.body).poll_next(context)) {
                    // A chunk without bytes would be the last.
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(Ok(bytes)) => {
                        this.in_hand.put(bytes, this.chunked)?;
                        this.step = Step::Writing;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Error::other(error))),
                    None => {
                        if this.chunked {
                            this.in_hand.before.extend_from_slice(b"0\r\n\r\n");
                        }
                        this.step = Step::Ending;
                    }
                },
                Step::Writing => {
                    ready!(this.poll_write(context))?;
                    this.step = Step::Asking;
                }
                Step::Ending => {
                    ready!(this.poll_write(context))?;
                    return Pin::new(&mut this.socket).poll_shutdown(context);
                }
            }
        }
    }
}

impl InHand {
    fn put(&mut self, bytes: Bytes, chunked: bool) -> Result<()> {
        if chunked {
            write!(self.before, "{:x}\r\n", bytes.len())?;
            self.after = b"\r\n";
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What was written is let go of at once: others may need its room.
    fn clear(&mut self) {
        self.before.clear();
        self.before.shrink_to(SIZE_LINE_BYTES);
        self.bytes = Bytes::new();
        self.after = b"";
        self.written = 0;
    }
}

/// The head of the response, as hyper would write it. The connection ends with the stream.
fn head(parts: &Parts, chunked: bool) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let version = if chunked { "HTTP/1.1" } else { "HTTP/1.0" };
    write!(head, "{version} {}\r\n", parts.status)?;
    for (name, value) in &parts.headers {
        write!(head, "{name}: ")?;
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    write!(head, "date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()))?;
    head.extend_from_slice(b"connection: close\r\n");
    if chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}
