//! From a [`Database`] to a [`Connection`]: the socket, TLS, the login.

use super::connection::Connection;
use super::error::Error;
use super::login::{Login, login};
use crate::Database;
use crate::database::socket::{Endpoint, Socket};
use crate::database::tls::{self, Attempt};
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// What a replication connection runs over.
pub type Channel = Either<Socket, TlsStream<Socket>>;

/// Opens a replication connection to one of the database's hosts: the one where the ordinary connection
/// is, so that both see the same server.
pub async fn connect(database: &Database, endpoint: &Endpoint) -> Result<Connection<Channel>, Error> {
    let timeout = database.connect_timeout();
    let mut first_error = None;
    for attempt in database.tls(endpoint).attempts() {
        let connection = tokio::time::timeout(timeout, connect_once(database, endpoint, attempt));
        match connection.await.unwrap_or(Err(Error::Timeout(timeout))) {
            Ok(connection) => return Ok(connection),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(Error::Closed))
}

async fn connect_once(
    database: &Database,
    endpoint: &Endpoint,
    attempt: Attempt,
) -> Result<Connection<Channel>, Error> {
    let config = database.config();
    let socket = database.open_socket(endpoint).await.map_err(Error::Io)?;
    let password = database.password(endpoint);
    let channel = match attempt {
        Attempt::Plain => Either::Left(socket),
        Attempt::Tls { config: tls, required } => {
            let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
            encrypt(socket, endpoint, tls, required, direct).await?
        }
    };
    let server_end_point = match &channel {
        Either::Left(_) => None,
        Either::Right(encrypted) => {
            let certificates = encrypted.get_ref().1.peer_certificates();
            certificates.and_then(<[_]>::first).and_then(|first| tls::server_end_point(first))
        }
    };
    let private = endpoint.is_unix() || matches!(channel, Either::Right(_));
    let settings = Login {
        user: database.user(),
        password: password.as_deref().map(str::as_bytes),
        dbname: database.dbname(),
        options: config.get_options(),
        binding_policy: config.get_channel_binding(),
        server_end_point,
        private,
    };
    let mut connection = login(channel, &settings).await?;
    connection.settle().await?;
    Ok(connection)
}

/// Asks for TLS and shakes hands. Not `required` and not offered: goes on without.
async fn encrypt(
    mut socket: Socket,
    endpoint: &Endpoint,
    config: Arc<ClientConfig>,
    required: bool,
    direct: bool,
) -> Result<Channel, Error> {
    if !direct {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        socket.write_all(&request).await?;
        // One byte, so that nothing that was not encrypted can be taken for what was (CVE-2021-23222).
        match socket.read_u8().await? {
            b'S' => {}
            b'N' if !required => return Ok(Either::Left(socket)),
            b'N' => return Err(Error::NoTls { server: endpoint.to_string() }),
            _ => return Err(Error::Protocol("neither yes nor no to TLS")),
        }
    }
    let failed = |source| Error::Tls { server: endpoint.to_string(), source };
    let name = ServerName::try_from(endpoint.server_name().to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let encrypted = TlsConnector::from(config).connect(name, socket).await.map_err(failed)?;
    Ok(Either::Right(encrypted))
}
