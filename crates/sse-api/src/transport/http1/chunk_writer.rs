//! Writes a stream, head included, after hyper has parsed the request.
//!
//! Available frames are collected up to a limit and written as one chunk; then more are requested. So a
//! client that lags gets several changes per system call and catches up. Between chunks only the
//! socket and the stream itself are held.

use super::detach::DetachedStream;
use super::socket::{PressureTimeout, WriteTimeout};
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

/// The longest line with a chunk's size.
const SIZE_LINE_BYTES: usize = 18;
/// The buffer is written when it holds this much.
const OUT_BUFFER_BYTES: usize = 64 << 10;
/// Bytes read at once of what a client sends after its request.
const IGNORED_BYTES: usize = 1024;
/// Limit of bytes that a client may send after its request. They are read and dropped.
const MAX_IGNORED_BYTES: usize = 64 << 10;

/// A stream being written. Completes when it ends or its client disconnects.
pub(super) struct ChunkWriter {
    socket: TcpStream,
    write_timeout: WriteTimeout,
    pressure_timeout: PressureTimeout,
    body: BodyDataStream,
    /// Whether the transfer coding is chunked; otherwise the stream ends with the connection.
    chunked: bool,
    out_buffer: OutBuffer,
    step: Step,
    /// Bytes that the client has sent after its request.
    ignored: usize,
}

enum Step {
    /// Waits for frames.
    Filling,
    /// Writes them.
    Writing,
    /// Writes the end.
    Ending,
}

/// The chunk that is being written.
#[derive(Default)]
struct OutBuffer {
    before: Vec<u8>,
    bytes: Bytes,
    /// Further frames, usually none.
    more: Vec<Bytes>,
    /// The length of `bytes` and `more`.
    length: usize,
    after: &'static [u8],
    /// Bytes of the whole chunk already written.
    written: usize,
}

impl ChunkWriter {
    /// `pressure` signals that others wait for memory. `ignored`: bytes after the request that were read
    /// already.
    pub(super) fn new(
        socket: TcpStream,
        client_timeout: Duration,
        pressure: Pressure,
        stream: DetachedStream,
        ignored: usize,
    ) -> Result<Self> {
        let (parts, body) = stream.response.into_parts();
        // HTTP/1.0 has no chunks.
        let chunked = stream.version != Version::HTTP_10;
        // The head is written with the first frame, which is available at once.
        let out_buffer = OutBuffer { before: head(&parts, chunked)?, ..OutBuffer::default() };
        let (write_timeout, pressure_timeout) =
            (WriteTimeout::new(client_timeout), PressureTimeout::new(pressure));
        let body = body.into_data_stream();
        Ok(Self {
            socket,
            write_timeout,
            pressure_timeout,
            body,
            chunked,
            out_buffer,
            step: Step::Filling,
            ignored,
        })
    }

    /// Ready when the client has disconnected, or has sent too much after its request.
    fn poll_disconnect(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut room = [MaybeUninit::uninit(); IGNORED_BYTES];
        let mut ignored = ReadBuf::uninit(&mut room);
        match ready!(Pin::new(&mut self.socket).poll_read(context, &mut ignored)) {
            Ok(()) if !ignored.filled().is_empty() => {
                self.ignored += ignored.filled().len();
                if self.ignored > MAX_IGNORED_BYTES {
                    let error = "client sends too much after its request";
                    return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, error)));
                }
                // Once per poll, so that a client that keeps sending gets its stream as well.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes the buffer.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let OutBuffer { before, bytes, more, length, after, written } = &mut self.out_buffer;
        let all = before.len() + *length + after.len();
        while *written < all {
            let (mut slices, mut all_slices);
            let mut left = if more.is_empty() {
                slices = [IoSlice::new(before), IoSlice::new(bytes), IoSlice::new(after)];
                &mut slices[..]
            } else {
                let more = more.iter().map(|bytes| &**bytes);
                let pieces = [&**before, &**bytes].into_iter().chain(more).chain([*after]);
                all_slices = pieces.map(IoSlice::new).collect::<Vec<_>>();
                &mut all_slices[..]
            };
            IoSlice::advance_slices(&mut left, *written);
            let count = Pin::new(&mut self.socket).poll_write_vectored(context, left);
            if count.is_pending() {
                self.pressure_timeout.poll(context, *length)?;
            }
            *written += match ready!(self.write_timeout.bound(context, count))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => count,
            };
        }
        self.out_buffer.clear();
        self.pressure_timeout.done();
        Poll::Ready(Ok(()))
    }

    /// Fills the buffer with available frames up to the limit, and waits if there are none. Sets `drained`
    /// when no more are available: the body then wakes the task.
    fn poll_fill(&mut self, context: &mut Context<'_>, drained: &mut bool) -> Poll<Result<Step>> {
        loop {
            match Pin::new(&mut self.body).poll_next(context) {
                Poll::Pending if self.out_buffer.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    *drained = true;
                    break;
                }
                // An empty chunk would end the body.
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Ok(bytes))) => {
                    self.out_buffer.put(bytes);
                    if self.out_buffer.length >= OUT_BUFFER_BYTES {
                        break;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Error::other(error))),
                Poll::Ready(None) => {
                    self.out_buffer.frame(self.chunked)?;
                    if self.chunked {
                        self.out_buffer.put_end();
                    }
                    return Poll::Ready(Ok(Step::Ending));
                }
            }
        }
        self.out_buffer.frame(self.chunked)?;
        Poll::Ready(Ok(Step::Writing))
    }
}

impl Future for ChunkWriter {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(gone) = this.poll_disconnect(context) {
            return Poll::Ready(gone);
        }
        let mut drained = false;
        loop {
            match this.step {
                Step::Filling => this.step = ready!(this.poll_fill(context, &mut drained))?,
                Step::Writing => {
                    ready!(this.poll_write(context))?;
                    this.step = Step::Filling;
                    // The body has registered the waker a moment ago; polling it again would only cost.
                    if drained {
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

impl OutBuffer {
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

    /// Frames the buffer as a chunk.
    fn frame(&mut self, chunked: bool) -> Result<()> {
        if chunked && !self.is_empty() {
            write!(self.before, "{:x}\r\n", self.length)?;
            self.after = b"\r\n";
        }
        Ok(())
    }

    /// Adds the last chunk.
    fn put_end(&mut self) {
        self.after = if self.is_empty() { b"0\r\n\r\n" } else { b"\r\n0\r\n\r\n" };
    }

    /// Frees what was written at once: others may wait for the memory.
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

/// The head of the response as hyper would write it, with `connection: close`.
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
