//! HTTP/1.1 without TLS.
//!
//! hyper reads requests and writes responses. A connection that becomes a stream is detached from
//! hyper, since a stream does not need its buffers.

mod chunk_writer;
mod detach;
mod socket;

use self::chunk_writer::ChunkWriter;
use self::detach::{DetachSlot, DetachedStream};
use self::socket::Socket;
use super::connections::Connection;
use super::{ConnectionContext, Detachable, Peer};
use axum::Router;
use axum::response::Response;
use feed::poll_on_wake;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Limit of the time to send a request's headers, and of the time that a connection is idle.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Limit of a request's headers. hyper buffers as much for a client that does not read.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Limit of unsent bytes in the kernel per connection.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 128 * 1024;

/// Serves one connection until it ends or becomes a stream, which gets a task of its own.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Arc<Connection>,
    context: ConnectionContext,
) {
    let ConnectionContext { service, client_timeout, keep_alive, pressure, tasks, stopping, cut, .. } =
        context;
    // No buffers are needed until the first request.
    let begun = tokio::time::timeout(HEADERS_WITHIN, stream.readable());
    if !matches!(stopping.run_until_cancelled(begun).await, Some(Ok(Ok(())))) {
        return;
    }
    let detach = Arc::new(DetachSlot::default());
    let service = ConnectionService { service, peer, slot: Arc::clone(&slot), detach: Arc::clone(&detach) };
    // Events are small: none may be delayed until the next.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    set_socket_options(&stream, client_timeout);
    let socket = Socket::new(stream, client_timeout, Arc::clone(&detach));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEADERS_WITHIN)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let ended = match stopping.run_until_cancelled(answer(&mut connection, &detach)).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            cut.run_until_cancelled(answer(&mut connection, &detach)).await.unwrap_or(Ok(None))
        }
    };
    match ended {
        Ok(None) => {}
        // An evicted connection does not become a stream.
        Ok(Some(detached)) if slot.becomes_stream() => {
            let parts = connection.into_parts();
            let socket = parts.io.into_inner().into_inner();
            match ChunkWriter::new(socket, client_timeout, pressure, detached, parts.read_buf.len()) {
                Ok(writer) => drop(tasks.spawn(write(writer, slot, cut))),
                Err(error) => tracing::error!(%error, "stream cannot begin"),
            }
        }
        Ok(Some(_)) => {}
        Err(error) => tracing::debug!(%error, "connection failed"),
    }
}

/// Answers requests until the connection ends or becomes a stream.
async fn answer(
    connection: &mut http1::Connection<TokioIo<Socket>, ConnectionService>,
    detach: &DetachSlot,
) -> hyper::Result<Option<DetachedStream>> {
    poll_fn(|context| match Pin::new(&mut *connection).poll(context) {
        Poll::Ready(ended) => Poll::Ready(ended.map(|()| None)),
        Poll::Pending => detach.take().map_or(Poll::Pending, |detached| Poll::Ready(Ok(Some(detached)))),
    })
    .await
}

/// Writes a stream until it ends, its client disconnects, or the grace period is over.
async fn write(writer: ChunkWriter, slot: Arc<Connection>, cut: CancellationToken) {
    let ended = tokio::select! {
        biased;
        () = poll_on_wake(cut.cancelled()) => Ok(()),
        ended = writer => ended,
    };
    // The socket is closed by now.
    drop(slot);
    if let Err(error) = ended {
        tracing::debug!(%error, "connection failed");
    }
}

/// Limits unsent bytes, and how long the kernel waits for a client that has vanished.
///
/// By default the kernel buffers megabytes for each client, and lets a third of them drain before the
/// socket is writable again, so that a slow client would look stalled. It waits a quarter of an hour
/// for a vanished client.
fn set_socket_options(stream: &TcpStream, client_timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(stream);
        if let Err(error) = socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES) {
            tracing::debug!(%error, "TCP_NOTSENT_LOWAT cannot be set");
        }
        if let Err(error) = socket.set_tcp_user_timeout(Some(client_timeout)) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT cannot be set");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, client_timeout);
}

/// The service of one connection: adds the [`Peer`], and detaches a response that is [`Detachable`].
struct ConnectionService {
    service: TowerToHyperService<Router>,
    peer: SocketAddr,
    slot: Arc<Connection>,
    detach: Arc<DetachSlot>,
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.slot.request_received();
        let version = request.version();
        request.extensions_mut().insert(Peer(self.peer));
        let response = self.service.call(request);
        let detach = Arc::clone(&self.detach);
        Box::pin(async move {
            let response = response.await?;
            if response.extensions().get::<Detachable>().is_none() {
                return Ok(response);
            }
            detach.put(DetachedStream { response, version });
            // hyper's connection is dropped while it waits for this response.
            std::future::pending().await
        })
    }
}
