//! Accepting connections within the limits, and retrying when the operating system refuses.

use super::ConnectionContext;
use super::connections::Connections;
use super::http1::serve;
use crate::limits::LogLimit;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// The delay after a first failure, for example without free file descriptors; each further failure
/// doubles it.
const WAIT: Duration = Duration::from_millis(20);
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The shortest interval between log lines about failed accepts.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Accepts connections until the service stops.
pub(crate) async fn accept(listener: &TcpListener, context: ConnectionContext) {
    let stopping = context.stopping.clone();
    // `accept_all` never returns.
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
            Err(error) if concerns_one_connection(&error) => tracing::debug!(%error, "connection failed"),
            Err(error) => {
                context.metrics.accept_errors.inc();
                if let Some(suppressed) = log.allow() {
                    tracing::warn!(
                        %error,
                        suppressed,
                        "no connection can be accepted: closing idle connections and retrying"
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
    // Without room the socket is closed. The client's library sees a failed connection and retries.
    let Some(slot) = Connections::admit(&context.connections, peer.ip()).await else { return };
    let slot = Arc::new(slot);
    let task = context.tasks.spawn({
        let (slot, context) = (Arc::clone(&slot), context.clone());
        async move { serve(stream, peer, slot, context).await }
    });
    slot.set_task(task.abort_handle());
}

/// Whether the error concerns only the connection that would have been accepted.
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
