//! The database: its URL, and ordinary connections to it.
//!
//! `settings` reads the URL as libpq would, `socket` opens the socket, `tls` does what `sslmode` says.
//! The replication connection uses the same three, so that whatever lets one in
//! lets the other in. What a session states of itself is in `session`.

mod client_certificate;
mod conninfo;
mod keywords;
mod passfile;
pub(crate) mod pooler;
mod service;
pub(crate) mod session;
mod settings;
pub(crate) mod socket;
pub(crate) mod tls;

pub use session::Session;

use crate::Retry;
use settings::Settings;
use socket::Endpoint;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tls::{Attempt, TlsMode};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long one attempt may take, if the URL has no `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the database is and how to get in. Its `Debug` and `Display` never show the password.
#[derive(Clone)]
pub struct Database(Arc<Settings>);

/// The URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDatabaseUrl(pub(crate) String);

/// No connection could be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {database}")]
pub struct ConnectError {
    database: String,
    sql_state: Option<String>,
    retry: Retry,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ConnectError {
    /// The server's own code for the refusal, if it was the server that refused.
    pub fn sql_state(&self) -> Option<&str> {
        self.sql_state.as_deref()
    }

    /// Whether and when to try again.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

/// An ordinary connection, where it is, and how it ends.
pub struct Connected {
    /// For statements.
    pub client: Client,
    /// Which of the hosts answered.
    pub endpoint: Endpoint,
    /// Ends when the connection does.
    pub ended: Ended,
}

/// Ends with the connection: with the server's code, if the server said why.
pub type Ended = tokio::task::JoinHandle<Option<String>>;

/// Why one attempt failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Socket(std::io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the server offers no TLS, and sslmode asks for it")]
    NoTls,
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
    #[error("the server is a standby; the primary is needed")]
    Standby,
    #[error("{}", pooler::ADVICE)]
    Pooler,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        if pooler::is_of(&error) { Self::Pooler } else { Self::Postgres(error) }
    }
}

impl Failure {
    fn retry(&self) -> Retry {
        match self {
            Self::Socket(_) | Self::Timeout(_) | Self::Standby => Retry::Backoff,
            Self::NoTls | Self::Pooler => Retry::Operator,
            Self::Postgres(error) => retry_of(error),
        }
    }

    fn sql_state(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => error.code().map(|code| code.code().to_owned()),
            _ => None,
        }
    }
}

/// What an error of an ordinary connection asks for.
pub fn retry_of(error: &tokio_postgres::Error) -> Retry {
    use std::error::Error as _;
    let io = |error: &std::io::Error| match error.kind() {
        // How `postgres-protocol` says that SCRAM failed or that a message made no sense.
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => tls::retry(error),
        _ => Retry::Backoff,
    };
    match (error.code(), error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>())) {
        (Some(code), _) => Retry::of_sql_state(code.code()),
        (None, Some(error)) => io(error),
        (None, None) if error.is_closed() => Retry::Backoff,
        // Configuration, authentication (`password missing`), types.
        (None, None) => Retry::Operator,
    }
}

impl Database {
    /// Reads a URL or a keyword/value string as libpq does, completed from the service file, the environment (`PGHOST`
    /// and the others), `~/.pgpass` and `~/.postgresql`. A keyword of libpq's that means something else here, or
    /// nothing, is refused by its name. Reads files.
    pub fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        Self::parse_with(url, &|name| std::env::var(name).ok())
    }

    /// [`parse`](Self::parse) with an environment of the caller's.
    pub fn parse_with(
        url: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidDatabaseUrl> {
        settings::read(url, environment).map(|settings| Self(Arc::new(settings)))
    }

    /// An ordinary connection to the primary, for a session of this kind; its task runs until the client is
    /// dropped.
    pub async fn connect(&self, session: impl Into<Session>) -> Result<Client, ConnectError> {
        self.connect_watched(session.into()).await.map(|connected| connected.client)
    }

    /// As [`connect`](Self::connect), and says at which of the hosts it was, and how it ended.
    pub async fn connect_watched(&self, session: Session) -> Result<Connected, ConnectError> {
        self.0.warn();
        let mut last = None;
        for endpoint in &self.0.endpoints {
            match self.connect_at(endpoint, session).await {
                Ok((client, ended)) => return Ok(Connected { client, endpoint: endpoint.clone(), ended }),
                Err(failure) => last = Some((endpoint, failure)),
            }
        }
        // `settings` leaves no list of endpoints empty, so there was an attempt.
        let (endpoint, failure) = last.unwrap_or_else(|| (&self.0.endpoints[0], Failure::Standby));
        Err(ConnectError {
            database: self.describe_at(endpoint),
            sql_state: failure.sql_state(),
            retry: failure.retry(),
            source: Box::new(failure),
        })
    }

    async fn connect_at(&self, endpoint: &Endpoint, session: Session) -> Result<(Client, Ended), Failure> {
        let timeout = self.connect_timeout();
        let mut first_failure = None;
        for attempt in self.tls(endpoint).attempts() {
            let client = tokio::time::timeout(timeout, self.connect_once(endpoint, attempt, session));
            match client.await.unwrap_or(Err(Failure::Timeout(timeout))) {
                Ok(connected) => return Ok(connected),
                // Without a socket the other way of using it fails as well.
                Err(failure @ (Failure::Socket(_) | Failure::Timeout(_))) => {
                    return Err(first_failure.unwrap_or(failure));
                }
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        Err(first_failure.unwrap_or(Failure::NoTls))
    }

    async fn connect_once(
        &self,
        endpoint: &Endpoint,
        attempt: Attempt,
        session: Session,
    ) -> Result<(Client, Ended), Failure> {
        let socket = self.open_socket(endpoint).await.map_err(Failure::Socket)?;
        let mut config = self.0.config.clone();
        config.application_name(session.application_name());
        config.options(session.options(self.0.config.get_options()));
        if let Some(password) = self.0.password(endpoint) {
            config.password(password);
        }
        let (client, after_login, ended) = match attempt {
            Attempt::Plain => {
                config.ssl_mode(SslMode::Disable);
                let (client, connection) = config.connect_raw(socket, NoTls).await?;
                let after_login = after_login(&connection, session);
                (client, after_login, drive(connection))
            }
            Attempt::Tls { config: tls, required } => {
                config.ssl_mode(if required { SslMode::Require } else { SslMode::Prefer });
                let mut maker = tokio_postgres_rustls::MakeRustlsConnect::new((*tls).clone());
                let connector = <tokio_postgres_rustls::MakeRustlsConnect as MakeTlsConnect<
                    socket::Socket,
                >>::make_tls_connect(&mut maker, endpoint.server_name())
                .unwrap_or_else(|never| match never {});
                let (client, connection) = config.connect_raw(socket, connector).await?;
                let after_login = after_login(&connection, session);
                (client, after_login, drive(connection))
            }
        };
        if let Some(statements) = after_login {
            client.batch_execute(&statements).await?;
        }
        let server = ServerState::of(&client).await?;
        if !server.knows_us {
            return Err(Failure::Pooler);
        }
        if server.is_standby && (self.0.primary_only || session.needs_primary()) {
            return Err(Failure::Standby);
        }
        Ok((client, ended))
    }

    /// The name of the database.
    pub fn dbname(&self) -> &str {
        self.0.config.get_dbname().unwrap_or_default()
    }

    /// The role that it is entered as.
    pub fn user(&self) -> &str {
        self.0.config.get_user().unwrap_or_default()
    }

    /// Where it is, for logs: `postgres://user@host:port/db`, without the password; of several hosts all.
    pub fn describe(&self) -> String {
        let endpoints: Vec<_> = self.0.endpoints.iter().map(ToString::to_string).collect();
        format!("postgres://{}@{}/{}", self.user(), endpoints.join(","), self.dbname())
    }

    pub(crate) async fn open_socket(&self, endpoint: &Endpoint) -> std::io::Result<socket::Socket> {
        socket::open(endpoint, &self.0.config, self.0.require_peer.as_deref()).await
    }

    /// The password for one of the hosts: that of the URL, or the password file's.
    pub(crate) fn password(&self, endpoint: &Endpoint) -> Option<String> {
        self.0.password(endpoint)
    }

    /// The database at one of the hosts, for people: without the password.
    pub fn describe_at(&self, endpoint: &Endpoint) -> String {
        format!("postgres://{}@{endpoint}/{}", self.user(), self.dbname())
    }

    pub(crate) fn config(&self) -> &tokio_postgres::Config {
        &self.0.config
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.0.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT)
    }

    /// A Unix socket never carries TLS, whatever `sslmode` says, as in libpq.
    pub(crate) fn tls(&self, endpoint: &Endpoint) -> TlsMode {
        if endpoint.is_unix() { TlsMode::Disable } else { self.0.tls.clone() }
    }
}

/// What the server says right after the login.
struct ServerState {
    is_standby: bool,
    /// What our startup message stated has come to the session.
    knows_us: bool,
}

impl ServerState {
    /// Asked without a prepared statement: of a pooler the next one may come to another session.
    async fn of(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let question = format!(
            "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('{}', true)",
            session::MARKER
        );
        let answer = client.simple_query(&question).await?;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let is = |column, text| row.and_then(|row| row.get(column)) == Some(text);
        Ok(Self { is_standby: is(0, "t"), knows_us: is(1, "on") })
    }
}

fn after_login<S, T>(connection: &tokio_postgres::Connection<S, T>, session: Session) -> Option<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (version, encoding) =
        (connection.parameter("server_version"), connection.parameter("server_encoding"));
    session::after_login(version, encoding, session.reads_as_stored())
}

/// Runs the connection until its client is dropped.
fn drive<S, T>(connection: tokio_postgres::Connection<S, T>) -> Ended
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        let error = connection.await.err()?;
        // The text of a server's error may quote data, its code does not.
        let sql_state = error.code().map(|code| code.code().to_owned());
        tracing::debug!(sql_state, "a connection to the database ended");
        sql_state
    })
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.describe())
    }
}
