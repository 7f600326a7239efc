//! The client socket that hyper uses, and the write timeouts. The socket can be taken back when a
//! response is a stream, and a stalled client is disconnected in time.

use super::detach::DetachSlot;
use feed::Pressure;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a write may take while others wait for its memory.
const UNDER_PRESSURE: Duration = Duration::from_secs(1);

/// Disconnects a client that reads nothing for `client_timeout` while data waits for it.
pub(super) struct WriteTimeout {
    client_timeout: Duration,
    /// Set while a write is blocked.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Disconnects a client whose write takes longer than [`UNDER_PRESSURE`] while others wait for memory.
pub(super) struct PressureTimeout {
    pressure: Pressure,
    /// Set from the first blocked write until everything is written.
    blocked: Option<Blocked>,
}

struct Blocked {
    since: Instant,
    pressed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl PressureTimeout {
    pub(super) const fn new(pressure: Pressure) -> Self {
        Self { pressure, blocked: None }
    }

    /// Fails if others wait for these bytes and the time is over. Call it whenever a write is blocked.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, bytes: usize) -> Result<()> {
        let pressure = &self.pressure;
        let blocked = self
            .blocked
            .get_or_insert_with(|| Blocked { since: Instant::now(), pressed: Box::pin(pressure.asked()) });
        while blocked.pressed.as_mut().poll(context).is_ready() {
            if blocked.since.elapsed() >= UNDER_PRESSURE && pressure.gives_up(bytes) {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    "client reads too slowly while others wait for memory",
                ));
            }
            blocked.pressed = Box::pin(pressure.asked());
        }
        Ok(())
    }

    /// Resets the timeout: everything is written.
    pub(super) fn done(&mut self) {
        self.blocked = None;
    }
}

impl WriteTimeout {
    pub(super) const fn new(client_timeout: Duration) -> Self {
        Self { client_timeout, deadline: None }
    }

    /// Limits how long a write is blocked.
    pub(super) fn bound<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<Result<T>>,
    ) -> Poll<Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let timeout = self.client_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "client does not read")))
    }
}

/// The socket.
pub(super) struct Socket {
    stream: TcpStream,
    write_timeout: WriteTimeout,
    detach: Arc<DetachSlot>,
}

impl Socket {
    pub(super) const fn new(stream: TcpStream, client_timeout: Duration, detach: Arc<DetachSlot>) -> Self {
        Self { stream, write_timeout: WriteTimeout::new(client_timeout), detach }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.write_timeout.bound(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.write_timeout.bound(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written everything that it holds. A TCP socket has nothing to flush.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        self.detach.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
