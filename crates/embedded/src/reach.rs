//! How to reach the embedded Postgres: kept in `embedded.toml`, for people, for our other commands, and
//! so that port and password stay the same from one start to the next.

use crate::folder::write_private;
use anyhow::Context as _;
use pg::Database;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// The database in the cluster that is ours.
pub(super) const DATABASE: &str = "fhir";
/// The cluster's superuser.
pub(super) const ADMINISTRATOR: &str = "postgres";

/// Where the server listens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// For programs that want a host and a password.
    pub url: String,
    /// The directory of the Unix socket, which asks for no password: only its user may enter it.
    pub(super) socket: PathBuf,
    pub(super) port: u16,
    /// The superuser's, over TCP.
    pub(super) password: String,
}

impl Reach {
    pub(super) fn new(socket: PathBuf, port: u16, password: String) -> Self {
        let url = format!("postgres://{ADMINISTRATOR}:{password}@127.0.0.1:{port}/{DATABASE}");
        Self { url, socket, port, password }
    }

    fn file(directory: &Path) -> PathBuf {
        directory.join("embedded.toml")
    }

    /// What the last start left.
    pub(super) fn load(directory: &Path) -> anyhow::Result<Option<Self>> {
        let file = Self::file(directory);
        match std::fs::read_to_string(&file) {
            Ok(text) => match toml::from_str(&text) {
                Ok(reach) => Ok(Some(reach)),
                // Its content is made anew at each start.
                Err(_) => Ok(None),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    pub(super) fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let file = Self::file(directory);
        let text = format!(
            "# How to reach the Postgres in this directory while fhir-tail runs. Written at each start.\n{}",
            toml::to_string(self)?
        );
        write_private(&file, &text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// For psql and for people: through the socket, so that there is no password in it.
    pub fn psql_url(&self) -> String {
        let socket: String = self
            .socket
            .to_string_lossy()
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("postgres://{ADMINISTRATOR}@/{DATABASE}?host={socket}&port={}", self.port)
    }

    /// Through the socket, as this role.
    pub(super) fn database(&self, role: &str) -> anyhow::Result<Database> {
        let quote = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let text = format!(
            "host={} port={} user={} dbname={DATABASE}",
            quote(&self.socket.to_string_lossy()),
            self.port,
            quote(role)
        );
        Database::parse(&text).context("the embedded Postgres cannot be addressed")
    }
}

/// From the system's source of randomness: whoever guesses it is in the database.
pub(super) fn new_password() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Reach::load(directory.path()).unwrap().is_none());
        let reach = Reach::new("/a b/söcket".into(), 5433, new_password().unwrap());
        reach.save(directory.path()).unwrap();
        assert!(Reach::load(directory.path()).unwrap() == Some(reach));
        std::fs::write(Reach::file(directory.path()), "port = 'x'").unwrap();
        assert!(Reach::load(directory.path()).unwrap().is_none());
    }

    #[test]
    fn the_url_for_psql_has_no_password_and_odd_paths_survive() {
        let reach = Reach::new("/a b/s&cket".into(), 5433, "secret".to_owned());
        assert_eq!(reach.psql_url(), "postgres://postgres@/fhir?host=/a%20b/s%26cket&port=5433");
        let config: tokio_postgres::Config = reach.psql_url().parse().unwrap();
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Unix("/a b/s&cket".into())]);
        assert_eq!(config.get_ports(), [5433]);
        assert!(reach.url.contains("secret"));
    }

    #[test]
    fn passwords_differ_and_need_no_quotes() {
        let password = new_password().unwrap();
        assert_eq!(password.len(), 48);
        assert!(password.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(password, new_password().unwrap());
    }
}
