//! Sockets to the server: which hosts there are, and how a socket to one is opened.

use nix::unistd::{Uid, User};
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_util::either::Either;

/// A socket to the server.
pub(crate) type Socket = Either<TcpStream, UnixStream>;

/// One host of the list in the URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub(crate) address: Address,
    pub(crate) port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// The directory in which the socket lies.
    Unix(PathBuf),
    /// A name, and where it is if that need not be looked up.
    Tcp { host: String, ip: Option<IpAddr> },
}

/// What libpq leaves to the kernel (two hours) is too long for a stream that people watch.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Keepalives rest while sent data waits to be acknowledged; then this ends a dead connection.
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
/// The value that [`Config`] has when the URL names none.
const UNSET_IDLE: Duration = Duration::from_secs(2 * 60 * 60);

impl Endpoint {
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// Whether nothing of it leaves this machine.
    pub(super) fn is_loopback(&self) -> bool {
        match &self.address {
            Address::Unix(_) => true,
            Address::Tcp { ip: Some(ip), .. } => ip.is_loopback(),
            Address::Tcp { host, ip: None } => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }

    /// The name that a certificate has to be for.
    pub(crate) fn server_name(&self) -> &str {
        match &self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp { host, .. } => host,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(directory) => write!(f, "[{}]:{}", directory.display(), self.port),
            Address::Tcp { host, .. } if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Address::Tcp { host, .. } => write!(f, "{host}:{}", self.port),
        }
    }
}

/// Opens a socket to the first of the host's addresses that takes one. At a Unix socket the server has to run as
/// `require_peer`, if that is set.
pub(super) async fn open(
    endpoint: &Endpoint,
    config: &Config,
    require_peer: Option<&str>,
) -> io::Result<Socket> {
    match &endpoint.address {
        Address::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", endpoint.port));
            let socket = UnixStream::connect(&path)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            if let Some(wanted) = require_peer {
                let uid = Uid::from_raw(socket.peer_cred()?.uid());
                let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
                if name.as_deref() != Some(wanted) {
                    let message = format!(
                        "requirepeer: the server at {} runs as {}, not as {wanted}",
                        path.display(),
                        name.unwrap_or_else(|| uid.to_string())
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
                }
            }
            Ok(Either::Right(socket))
        }
        Address::Tcp { ip: Some(ip), .. } => tcp(TcpStream::connect((*ip, endpoint.port)).await?, config),
        Address::Tcp { host, ip: None } => {
            tcp(TcpStream::connect((host.as_str(), endpoint.port)).await?, config)
        }
    }
}

fn tcp(stream: TcpStream, config: &Config) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    if config.get_keepalives() {
        let idle = Some(config.get_keepalives_idle()).filter(|idle| *idle != UNSET_IDLE);
        let keepalive = TcpKeepalive::new()
            .with_time(idle.unwrap_or(KEEPALIVE_IDLE))
            .with_interval(config.get_keepalives_interval().unwrap_or(KEEPALIVE_INTERVAL))
            .with_retries(config.get_keepalives_retries().unwrap_or(KEEPALIVE_RETRIES));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(config.get_tcp_user_timeout().copied().unwrap_or(TCP_USER_TIMEOUT)))?;
    Ok(Either::Left(stream))
}
