//! Accepting connections: within the limits, and when the operating system refuses.

use super::ConnectionContext;
use super::connections::Connections;
use super::http1::serve;
use crate::limits::LogLimit;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// How long to wait after a first failure, as when no file descriptors are left; after each further one twice as long.
const WAIT: Duration = Duration::from_millis(20);
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How often the log says that no connection can be accepted.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Accepts connections until the service stops.
pub(crate) async fn accept(listener: &TcpListener, context: ConnectionContext) {
    let stopping = context.stopping.clone();
    // It never ends by itself.
    stopping.run_until_cancelled(accept_all(listener, &context)).await;
}

async fn accept_all(listener: &TcpListener, context: &ConnectionContext) {
    let log = LogLimit::new(LOG_EVERY);
    let mut wait = WAIT;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                wait = WAIT;
                begin(stream, peer, context).await;
            }
            Err(error) if concerns_one_connection(&error) => tracing::debug!(%error, "a connection broke"),
            Err(error) => {
                context.metrics.accept_errors.inc();
                if let Some(suppressed) = log.allow() {
                    tracing::warn!(
                        %error,
                        suppressed,
                        "no connection can be accepted: connections without a stream are closed, and it is tried again"
                    );
                }
                context.connections.close_longest_waiting();
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_WAIT);
            }
        }
    }
}

/// Serves a connection, once there is room for it.
async fn begin(stream: TcpStream, peer: SocketAddr, context: &ConnectionContext) {
    // Without room the socket is closed: the client's library sees a connection that failed, and tries again.
    let Some(slot) = Connections::admit(&context.connections, peer.ip()).await else { return };
    let slot = Arc::new(slot);
    let task = context.tasks.spawn({
        let (slot, context) = (Arc::clone(&slot), context.clone());
        async move { serve(stream, peer, slot, context).await }
    });
    slot.set_task(task.abort_handle());
}

/// Whether it is the fault of the connection that would have been accepted: the next one is not affected.
fn concerns_one_connection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}
