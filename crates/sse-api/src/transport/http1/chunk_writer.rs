//! Writing a stream, from its head to its end: all that is left of a connection when hyper has parsed its request.
//!
//! What is there is taken in hand, up to a limit, and written as one chunk; more is asked for when it is written. So who
//! is behind gets several changes with one system call, and catches up. Between chunks nothing is held but the socket and
//! the stream itself.

use super::detach::Handed;
use super::socket::{Patience, Yielding};
use axum::body::BodyDataStream;
use bytes::Bytes;
use feed::Pressure;
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
/// What is in hand is written, and no more taken, when it comes to this.
const IN_HAND_BYTES: usize = 64 << 10;
/// What is read at once of what a client sends behind its request.
const IGNORED_BYTES: usize = 1024;
/// How much a client may send behind its request, which is read and dropped: nobody has anything to say there.
const MAX_IGNORED_BYTES: usize = 64 << 10;

/// A stream being written; ready when it has ended or its client is gone.
pub(super) struct Streaming {
    socket: TcpStream,
    patience: Patience,
    yielding: Yielding,
    body: BodyDataStream,
    /// Whether the stream is framed in chunks; without, the end of the connection is its end.
    chunked: bool,
    in_hand: InHand,
    step: Step,
    /// How much the client has sent behind its request.
    ignored: usize,
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
    /// What follows them, mostly nothing.
    more: Vec<Bytes>,
    /// How many bytes these are.
    length: usize,
    after: &'static [u8],
    /// How much of all of it.
    written: usize,
}

impl Streaming {
    /// `pressure` is put on it when others wait for what its client does not take. `ignored`: how much of what the client
    /// sent behind its request has been read already.
    pub(super) fn new(
        socket: TcpStream,
        client_timeout: Duration,
        pressure: Pressure,
        handed: Handed,
        ignored: usize,
    ) -> Result<Self> {
        let (parts, body) = handed.response.into_parts();
        // HTTP/1.0 has no chunks.
        let chunked = handed.version != Version::HTTP_10;
        // The head goes with the first frame, which is there at once.
        let in_hand = InHand { before: head(&parts, chunked)?, ..InHand::default() };
        let (patience, yielding) = (Patience::new(client_timeout), Yielding::new(pressure));
        let body = body.into_data_stream();
        Ok(Self { socket, patience, yielding, body, chunked, in_hand, step: Step::Asking, ignored })
    }

    /// Ready when the client is gone, or has sent too much behind its request, which is dropped.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut room = [MaybeUninit::uninit(); IGNORED_BYTES];
        let mut ignored = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut self.socket).poll_read(context, &mut ignored)) {
            Ok(()) if !ignored.filled().is_empty() => {
                self.ignored += ignored.filled().len();
                if self.ignored > MAX_IGNORED_BYTES {
                    let error = "the client sends more and more behind its request";
                    return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, error)));
                }
                // Once a turn, so that a client that talks gets its stream as well.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes what is in hand.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let InHand { before, bytes, more, length, after, written } = &mut self.in_hand;
        let all = before.len() + *length + after.len();
        while *written < all {
            let (mut few, mut many);
            let mut left = if more.is_empty() {
                few = [IoSlice::new(before), IoSlice::new(bytes), IoSlice::new(after)];
                &mut few[..]
            } else {
                let more = more.iter().map(|bytes| &**bytes);
                let pieces = [&**before, &**bytes].into_iter().chain(more).chain([*after]);
                many = pieces.map(IoSlice::new).collect::<Vec<_>>();
                &mut many[..]
            };
            IoSlice::advance_slices(&mut left, *written);
            let count = Pin::new(&mut self.socket).poll_write_vectored(context, left);
            if count.is_pending() {
                self.yielding.poll(context, *length)?;
            }
            *written += match ready!(self.patience.bound(context, count))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => count,
            };
        }
        self.in_hand.clear();
        self.yielding.done();
        Poll::Ready(Ok(()))
    }

    /// Takes in hand what there is, up to the limit, and what comes next: waiting, if there is nothing. `waits` is set when
    /// there is no more, and the task is woken when there is.
    fn poll_take(&mut self, context: &mut Context<'_>, waits: &mut bool) -> Poll<Result<Step>> {
        loop {
            match Pin::new(&mut self.body).poll_next(context) {
                Poll::Pending if self.in_hand.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    *waits = true;
                    break;
                }
                // A chunk without bytes would be the last.
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => {
                    self.in_hand.put(bytes);
                    if self.in_hand.length >= IN_HAND_BYTES {
                        break;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Error::other(error))),
                Poll::Ready(None) => {
                    self.in_hand.frame(self.chunked)?;
                    if self.chunked {
                        self.in_hand.put_last();
                    }
                    return Poll::Ready(Ok(Step::Ending));
                }
            }
        }
        self.in_hand.frame(self.chunked)?;
        Poll::Ready(Ok(Step::Writing))
    }
}

impl Future for Streaming {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(gone) = this.poll_gone(context) {
            return Poll::Ready(gone);
        }
        let mut waits = false;
        loop {
            match this.step {
                Step::Asking => this.step = ready!(this.poll_take(context, &mut waits))?,
                Step::Writing => {
                    ready!(this.poll_write(context))?;
                    this.step = Step::Asking;
                    // What comes wakes the task, as it was told a moment ago: to ask again would only cost.
                    if waits {
                        return Poll::Pending;
                    }
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
    const fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn put(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.more.push(bytes);
        }
    }

    /// Makes a chunk of what is there.
    fn frame(&mut self, chunked: bool) -> Result<()> {
        if chunked && !self.is_empty() {
            write!(self.before, "{:x}\r\n", self.length)?;
            self.after = b"\r\n";
        }
        Ok(())
    }

    /// The end of all chunks.
    fn put_last(&mut self) {
        self.after = if self.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
    }

    /// What was written is let go of at once: others may need its room.
    fn clear(&mut self) {
        self.before.clear();
        self.before.shrink_to(SIZE_LINE_BYTES);
        self.bytes = Bytes::new();
        self.more = Vec::new();
        self.length = 0;
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
