//! Where the service listens. There is no authentication, so only this machine may connect unless
//! the operator says otherwise.

use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpListener;

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No address was given.
    #[error("no address to listen on: give one, such as 127.0.0.1:8080")]
    NoAddress,
    /// Other machines can reach the address.
    #[error(
        "{0} can be reached from other machines, which could then read every patient's data: listen on 127.0.0.1 \
         behind a proxy that authorizes clients, or accept the risk with --insecure-no-auth"
    )]
    NotLoopback(SocketAddr),
    /// The operating system refused the address.
    #[error(
        "cannot listen on {address}: if another program uses it, choose another port with --listen (0 for a free one)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Two metrics have the same name.
    #[error("the metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Listens on every address, or on none of them.
pub(crate) async fn listen(
    addresses: &[SocketAddr],
    insecure_no_auth: bool,
) -> Result<Vec<(TcpListener, SocketAddr)>, ListenError> {
    if addresses.is_empty() {
        return Err(ListenError::NoAddress);
    }
    if let Some(open) = addresses.iter().find(|address| !insecure_no_auth && !is_loopback(address.ip())) {
        return Err(ListenError::NotLoopback(*open));
    }
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let failed = |source| ListenError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        listeners.push((listener, local));
    }
    Ok(listeners)
}

/// Whether only this machine can reach an address. `::ffff:127.0.0.1` is 127.0.0.1 in IPv6 notation.
pub fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_beyond_loopback_need_insecure_no_auth() {
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:10.0.0.1]:0"] {
            let refused = listen(&["127.0.0.1:0".parse().unwrap(), open.parse().unwrap()], false).await;
            assert!(matches!(refused, Err(ListenError::NotLoopback(address)) if address.to_string() == open));
        }
        assert!(listen(&["0.0.0.0:0".parse().unwrap()], true).await.is_ok());
        assert!(matches!(listen(&[], true).await, Err(ListenError::NoAddress)));
    }

    #[tokio::test]
    async fn error_names_a_port_in_use() {
        let first = listen(&["127.0.0.1:0".parse().unwrap()], false).await.unwrap();
        let taken = first[0].1;
        let error = listen(&[taken], false).await.unwrap_err();
        assert!(error.to_string().contains(&taken.to_string()));
    }

    #[test]
    fn loopback_is_recognized_in_every_notation() {
        for (text, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(text.parse().unwrap()), expected, "{text}");
        }
    }
}
