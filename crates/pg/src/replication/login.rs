//! The login: startup message, authentication, and what the server says until it is ready.

use super::codec::{Backend, Codec};
use super::connection::{Connection, Server};
use super::error::{Error, ServerError};
use crate::database::session;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use futures_util::{SinkExt, StreamExt};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::ChannelBinding as ChannelBindingPolicy;
use tokio_util::codec::Framed;

/// What a login needs to know.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a [u8]>,
    pub(super) dbname: &'a str,
    pub(super) options: Option<&'a str>,
    pub(super) binding_policy: ChannelBindingPolicy,
    /// The hash of the server's certificate, if the channel has one.
    pub(super) server_end_point: Option<Vec<u8>>,
    /// Nobody can listen: TLS or a Unix socket.
    pub(super) private: bool,
}

const NO_PASSWORD: &str =
    "the server asks for a password: put it in the database URL, PGPASSWORD or ~/.pgpass";

/// Logs in over a channel that is open.
pub(super) async fn login<S>(channel: S, login: &Login<'_>) -> Result<Connection<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut framed = Framed::new(channel, Codec::for_login());
    let mut parameters: Vec<(&str, &str)> = vec![
        ("user", login.user),
        ("database", login.dbname),
        ("replication", "database"),
        ("application_name", super::APPLICATION_NAME),
    ];
    for setting in session::replication() {
        parameters.push(setting);
    }
    parameters.extend(login.options.map(|options| ("options", options)));
    send(&mut framed, |buffer| frontend::startup_message(parameters, buffer)).await?;
    authenticate(&mut framed, login).await?;
    let server = ready(&mut framed).await?;
    framed.codec_mut().logged_in();
    Ok(Connection::new(framed, server))
}

async fn authenticate<S>(framed: &mut Framed<S, Codec>, login: &Login<'_>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let password = || login.password.ok_or(Error::Login(NO_PASSWORD));
    let must_bind = login.binding_policy == ChannelBindingPolicy::Require;
    match receive(framed).await? {
        Message::AuthenticationSasl(body) => sasl(framed, login, &body, password()?).await?,
        _ if must_bind => {
            return Err(Error::Login("channel_binding=require, and the server asks for no SCRAM"));
        }
        Message::AuthenticationOk => return Ok(()),
        Message::AuthenticationCleartextPassword => {
            if !login.private {
                return Err(Error::Login(
                    "the server asks for the password in clear over an open network: set sslmode=require",
                ));
            }
            let password = password()?;
            send(framed, |buffer| frontend::password_message(password, buffer)).await?;
        }
        Message::AuthenticationMd5Password(body) => {
            let hash = md5_hash(login.user.as_bytes(), password()?, body.salt());
            send(framed, |buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
        }
        Message::AuthenticationGss
        | Message::AuthenticationSspi
        | Message::AuthenticationKerberosV5
        | Message::AuthenticationScmCredential => {
            return Err(Error::Login(
                "the server asks for GSSAPI or SSPI: allow this role scram-sha-256 in pg_hba.conf",
            ));
        }
        _ => return Err(Error::Protocol("an answer to the startup message that is none")),
    }
    match receive(framed).await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(Error::Protocol("an end of the authentication that is none")),
    }
}

async fn sasl<S>(
    framed: &mut Framed<S, Codec>,
    login: &Login<'_>,
    body: &AuthenticationSaslBody,
    password: &[u8],
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = body.mechanisms();
    while let Some(mechanism) = mechanisms.next()? {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let end_point =
        login.server_end_point.clone().filter(|_| login.binding_policy != ChannelBindingPolicy::Disable);
    let (mechanism, binding) = match end_point {
        Some(end_point) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point)),
        // "I would have bound it, you do not offer it": lets the server notice who takes the offer away.
        Some(_) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => return Err(Error::Login("the server offers no SCRAM-SHA-256")),
    };
    if login.binding_policy == ChannelBindingPolicy::Require && mechanism != SCRAM_SHA_256_PLUS {
        return Err(Error::Login("channel_binding=require, and this connection cannot be bound"));
    }

    let failed =
        |_| Error::Login("the server's part of SCRAM is wrong: is it the right server and password?");
    let mut scram = ScramSha256::new(password, binding);
    send(framed, |buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer)).await?;
    match receive(framed).await? {
        Message::AuthenticationSaslContinue(body) => scram.update(body.data()).map_err(failed)?,
        _ => return Err(Error::Protocol("a step of SCRAM that is none")),
    }
    send(framed, |buffer| frontend::sasl_response(scram.message(), buffer)).await?;
    match receive(framed).await? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(failed),
        _ => Err(Error::Protocol("an end of SCRAM that is none")),
    }
}

/// Reads until the server takes commands; returns what it says of itself.
async fn ready<S>(framed: &mut Framed<S, Codec>) -> Result<Server, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut server = Server::default();
    loop {
        match receive_any(framed).await? {
            Message::BackendKeyData(body) => server.pid = body.process_id(),
            Message::ParameterStatus(body) => match body.name()? {
                "server_version" => server.version = Some(body.value()?.to_owned()),
                "server_encoding" => server.encoding = Some(body.value()?.to_owned()),
                _ => {}
            },
            Message::ReadyForQuery(_) => return Ok(server),
            Message::NoticeResponse(_) => {}
            _ => return Err(Error::Protocol("something else than that it is ready")),
        }
    }
}

/// Writes one message.
pub(super) async fn send<S>(
    framed: &mut Framed<S, Codec>,
    message: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    message(&mut buffer).map_err(|_| Error::Protocol("nothing yet: a setting of ours holds a zero byte"))?;
    Ok(framed.send(buffer).await?)
}

/// The next message that is neither a notice nor a parameter; an error of the server's is one here.
pub(super) async fn receive<S>(framed: &mut Framed<S, Codec>) -> Result<Message, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match receive_any(framed).await? {
            Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_) => {}
            message => return Ok(message),
        }
    }
}

/// The next message; an error of the server's is one here.
async fn receive_any<S>(framed: &mut Framed<S, Codec>) -> Result<Message, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match framed.next().await.ok_or(Error::Closed)?? {
        Backend::Other(Message::ErrorResponse(body)) => Err(ServerError::read(body.fields()).into()),
        Backend::Other(message) => Ok(message),
        Backend::Copy(_) | Backend::CopyBoth => Err(Error::Protocol("data of a stream that has not begun")),
    }
}
