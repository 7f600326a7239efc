//! What the URL says, completed as libpq would from the service file, the environment and its other files.
//!
//! [`conninfo`] takes the text apart, [`keywords`] knows what each keyword means here. Errors never repeat a
//! value, which may be the password.

use super::conninfo::{self, may_show};
use super::keywords::{self, KEYWORDS};
use super::passfile::{self, Wanted};
use super::socket::{Address, Endpoint};
use super::tls::{self, ClientSide, Roots, TlsMode, Verify};
use super::{InvalidDatabaseUrl, client_certificate, service};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

/// Everything that is needed to connect. `config` always has a user and a database.
pub(super) struct Settings {
    pub(super) config: Config,
    /// Never empty.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) passwords: Passwords,
    pub(super) tls: TlsMode,
    /// Of several hosts the primary is the one that is wanted.
    pub(super) primary_only: bool,
    /// The user that a server at a Unix socket has to run as.
    pub(super) require_peer: Option<String>,
    /// What somebody should know, to be said when it is first connected.
    warnings: Vec<String>,
    warned: Once,
}

/// Where the password comes from.
pub(super) struct Passwords {
    given: Option<String>,
    /// What the password file holds.
    file: Option<String>,
}

pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

const DEFAULT_PORT: u16 = 5432;

pub(super) fn read(url: &str, environment: Environment<'_>) -> Result<Settings, InvalidDatabaseUrl> {
    let environment = &|name: &str| environment(name).filter(|value| !value.is_empty());
    let words = Words::gather(url, environment)?;
    let mut warnings = Vec::new();
    let mut config = Config::new();
    let user = words.get("user").map(str::to_owned).or_else(system_user).ok_or_else(|| {
        InvalidDatabaseUrl("the database URL names no user: write postgres://user@host/db".to_owned())
    })?;
    config.dbname(words.get("dbname").unwrap_or(&user)).user(user);
    if let Some(options) = words.get("options") {
        config.options(options);
    }
    sockets(&words, &mut config)?;
    let endpoints = endpoints(&words)?;
    let passwords = Passwords {
        given: words.get("password").map(str::to_owned),
        file: password_file(&words, environment, &mut warnings),
    };
    let tls = tls_mode(&words, environment, &mut warnings)?;
    if let Some(binding) = words.get("channel_binding") {
        config.channel_binding(match binding {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return Err(words.one_of("channel_binding", "disable, prefer, require")),
        });
    }
    match words.get("sslnegotiation") {
        None | Some("postgres") => {}
        Some("direct") if matches!(tls, TlsMode::Require(_)) => {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        Some("direct") => {
            return Err(words.wrong("sslnegotiation", "direct needs sslmode=require or stronger"));
        }
        Some(_) => return Err(words.one_of("sslnegotiation", "postgres, direct")),
    }
    if words.get("sslmode").is_none() && !matches!(tls, TlsMode::Require(_)) {
        let open = |endpoint: &&Endpoint| !endpoint.is_unix() && !endpoint.is_loopback();
        if let Some(endpoint) = endpoints.iter().find(open) {
            warnings.push(format!(
                "no sslmode for {endpoint}: where TLS cannot be had, or somebody in between says so, the connection is not \
                 encrypted; set sslmode=verify-full, or at least require"
            ));
        }
    }
    let primary_only =
        endpoints.len() > 1 || matches!(words.get("target_session_attrs"), Some("read-write" | "primary"));
    let require_peer = words.get("requirepeer").map(str::to_owned);
    let warned = Once::new();
    Ok(Settings { config, endpoints, passwords, tls, primary_only, require_peer, warnings, warned })
}

impl Settings {
    /// Says once what somebody should know.
    pub(super) fn warn(&self) {
        self.warned.call_once(|| {
            for warning in &self.warnings {
                tracing::warn!("{warning}");
            }
        });
    }

    /// The password for one of the hosts.
    pub(super) fn password(&self, endpoint: &Endpoint) -> Option<String> {
        let Passwords { given, file } = &self.passwords;
        given.clone().or_else(|| {
            let host = match &endpoint.address {
                Address::Unix(_) => "localhost",
                Address::Tcp { host, .. } => host,
            };
            let (dbname, user) = (self.config.get_dbname()?, self.config.get_user()?);
            passfile::find(file.as_deref()?, &Wanted { host, port: endpoint.port, dbname, user })
        })
    }

    #[cfg(test)]
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A value, and where it was written, for errors.
struct Word {
    value: String,
    written: String,
}

/// The keywords that were given, by whichever way. Empty values are as if left out, as in libpq.
struct Words(BTreeMap<&'static str, Word>);

impl Words {
    fn gather(url: &str, environment: Environment<'_>) -> Result<Self, InvalidDatabaseUrl> {
        let mut words = Self(BTreeMap::new());
        let pairs = conninfo::parse(url)?;
        for (index, (name, value)) in pairs.iter().enumerate() {
            let keyword = keywords::find(name).ok_or_else(|| {
                InvalidDatabaseUrl(if may_show(url, &pairs, index) {
                    format!("the database URL has the keyword '{name}', which libpq does not know")
                } else {
                    conninfo::ENCODE.to_owned()
                })
            })?;
            words.put(keyword.name, value, format!("{} in the database URL", keyword.name))?;
        }
        let named = words.get("service").map(str::to_owned).or_else(|| environment("PGSERVICE"));
        if let Some(named) = named {
            let file = words.get("servicefile").map(PathBuf::from);
            let (file, entries) = service::find(&named, file, environment)?;
            for (name, value) in entries {
                let written = format!("{name} in {}", file.display());
                let Some(keyword) = keywords::find(&name) else {
                    return Err(InvalidDatabaseUrl(format!("{written} is not a keyword of libpq")));
                };
                words.put_new(keyword.name, &value, written)?;
            }
        }
        for keyword in KEYWORDS {
            if let Some(variable) = keyword.variable
                && let Some(value) = environment(variable)
            {
                words.put_new(keyword.name, &value, variable.to_owned())?;
            }
        }
        Ok(words)
    }

    fn put_new(
        &mut self,
        name: &'static str,
        value: &str,
        written: String,
    ) -> Result<(), InvalidDatabaseUrl> {
        if self.get(name).is_some() { Ok(()) } else { self.put(name, value, written) }
    }

    fn put(&mut self, name: &'static str, value: &str, written: String) -> Result<(), InvalidDatabaseUrl> {
        if let Some(refusal) = keywords::find(name).and_then(|keyword| keyword.refusal(value, &written)) {
            return Err(InvalidDatabaseUrl(refusal));
        }
        self.0.insert(name, Word { value: value.to_owned(), written });
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|word| word.value.as_str()).filter(|value| !value.is_empty())
    }

    fn wrong(&self, name: &str, what: &str) -> InvalidDatabaseUrl {
        let written = self.0.get(name).map_or(name, |word| &word.written);
        InvalidDatabaseUrl(format!("{written}: {what}"))
    }

    fn one_of(&self, name: &str, values: &str) -> InvalidDatabaseUrl {
        self.wrong(name, &format!("it is one of {values}"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, InvalidDatabaseUrl> {
        // libpq takes negative ones for nought.
        let number = |text: &str| match text.trim().strip_prefix('-') {
            Some(digits) => digits.parse::<u64>().map(|_| 0),
            None => text.trim().parse(),
        };
        self.get(name)
            .map(|text| number(text).map_err(|_| self.wrong(name, "it is a whole number")))
            .transpose()
    }

    fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default()
    }
}

fn system_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.name)
}

/// How sockets are opened. What is nought is as if left out.
fn sockets(words: &Words, config: &mut Config) -> Result<(), InvalidDatabaseUrl> {
    let positive = |name| words.number(name).map(|number| number.filter(|number| *number > 0));
    if let Some(seconds) = positive("connect_timeout")? {
        config.connect_timeout(Duration::from_secs(seconds));
    }
    if let Some(on) = words.number("keepalives")? {
        config.keepalives(on != 0);
    }
    if let Some(seconds) = positive("keepalives_idle")? {
        config.keepalives_idle(Duration::from_secs(seconds));
    }
    if let Some(seconds) = positive("keepalives_interval")? {
        config.keepalives_interval(Duration::from_secs(seconds));
    }
    if let Some(count) = positive("keepalives_count")? {
        config.keepalives_retries(u32::try_from(count).unwrap_or(u32::MAX));
    }
    if let Some(milliseconds) = positive("tcp_user_timeout")? {
        config.tcp_user_timeout(Duration::from_millis(milliseconds));
    }
    Ok(())
}

fn endpoints(words: &Words) -> Result<Vec<Endpoint>, InvalidDatabaseUrl> {
    let (hosts, addresses, ports) = (words.list("host"), words.list("hostaddr"), words.list("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
        return Err(words.wrong("hostaddr", "there are as many as there are hosts"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(words.wrong("port", "there are as many as there are hosts, or one, or none"));
    }
    let port_of = |index: usize| match ports.get(index).or(ports.first().filter(|_| ports.len() == 1)) {
        None | Some(&"") => Ok(DEFAULT_PORT),
        Some(port) => {
            let port = port.parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| words.wrong("port", "it is a number from 1 to 65535"))
        }
    };
    (0..count)
        .map(|index| {
            let port = port_of(index)?;
            let ip: Option<IpAddr> = match addresses.get(index) {
                None | Some(&"") => None,
                Some(text) => Some(text.parse().map_err(|_| words.wrong("hostaddr", "it is an IP address"))?),
            };
            let address = match (hosts.get(index).copied().filter(|host| !host.is_empty()), ip) {
                (Some(host), _) if host.starts_with('/') => Address::Unix(PathBuf::from(host)),
                (Some(host), _) if host.contains('@') => {
                    return Err(InvalidDatabaseUrl(conninfo::ENCODE.to_owned()));
                }
                (Some(host), ip) => Address::Tcp { host: host.to_owned(), ip },
                (None, Some(ip)) => Address::Tcp { host: ip.to_string(), ip: Some(ip) },
                (None, None) => default_host(port),
            };
            Ok(Endpoint { address, port })
        })
        .collect()
}

/// The socket that lies where distributions put it; else this machine.
fn default_host(port: u16) -> Address {
    ["/var/run/postgresql", "/tmp"]
        .into_iter()
        .map(Path::new)
        .find(|directory| directory.join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(
            || Address::Tcp { host: "localhost".to_owned(), ip: None },
            |directory| Address::Unix(directory.to_owned()),
        )
}

fn password_file(words: &Words, environment: Environment<'_>, warnings: &mut Vec<String>) -> Option<String> {
    let path = words.get("passfile").map(PathBuf::from).or_else(|| home(environment, ".pgpass"))?;
    let metadata = std::fs::metadata(&path).ok()?;
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        warnings.push("the password file is ignored: others can read it; set its mode to 0600".to_owned());
        return None;
    }
    std::fs::read_to_string(&path).ok()
}

pub(super) fn home(environment: Environment<'_>, file: &str) -> Option<PathBuf> {
    environment("HOME").map(|home| Path::new(&home).join(file))
}

fn tls_mode(
    words: &Words,
    environment: Environment<'_>,
    warnings: &mut Vec<String>,
) -> Result<TlsMode, InvalidDatabaseUrl> {
    let default_file = |name: &str| home(environment, name).filter(|path| path.exists());
    let default_roots = default_file(".postgresql/root.crt");
    let roots = match words.get("sslrootcert") {
        Some("system") => Roots::System,
        Some(path) => Roots::File(Path::new(path)),
        None => default_roots.as_deref().map_or(Roots::None, Roots::File),
    };
    let system = matches!(roots, Roots::System);
    // As in libpq: who names the system's authorities wants the name verified, and nothing weaker.
    let sslmode = words.get("sslmode").unwrap_or(if system { "verify-full" } else { "prefer" });
    if system && sslmode != "verify-full" {
        return Err(InvalidDatabaseUrl(
            "sslrootcert=system needs sslmode=verify-full: anybody can get a certificate from those authorities"
                .to_owned(),
        ));
    }
    if sslmode == "disable" {
        return Ok(TlsMode::Disable);
    }
    if !matches!(roots, Roots::None) && default_file(".postgresql/root.crl").is_some() {
        warnings
            .push("~/.postgresql/root.crl is ignored: lists of revoked certificates are not read".to_owned());
    }
    let client = ClientSide {
        certificate: match words.get("sslcertmode") {
            Some("disable") => None,
            _ => client_certificate::read(
                words.get("sslcert").map(Path::new),
                words.get("sslkey"),
                environment,
            )?,
        },
        versions: versions(words)?,
        names_the_host: words.number("sslsni")? != Some(0),
    };
    let configuration = |verify, roots: &Roots<'_>| tls::configuration(verify, roots, client);
    Ok(match sslmode {
        "allow" => TlsMode::Allow(configuration(Verify::Nothing, &Roots::None)?),
        "prefer" => TlsMode::Prefer(configuration(Verify::Nothing, &Roots::None)?),
        "require" => {
            let verify = if matches!(roots, Roots::None) { Verify::Nothing } else { Verify::Chain };
            TlsMode::Require(configuration(verify, &roots)?)
        }
        "verify-ca" => TlsMode::Require(configuration(Verify::Chain, &roots)?),
        "verify-full" => TlsMode::Require(configuration(Verify::Name, &roots)?),
        _ => {
            return Err(words.one_of("sslmode", "disable, allow, prefer, require, verify-ca, verify-full"));
        }
    })
}

/// The versions of TLS that are offered: of 1.2 and 1.3 those between the two keywords.
fn versions(words: &Words) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, InvalidDatabaseUrl> {
    const NAMES: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let bound = |name, default| match words.get(name) {
        None => Ok(default),
        Some(text) => NAMES
            .iter()
            .position(|version| version.eq_ignore_ascii_case(text))
            .ok_or_else(|| words.one_of(name, "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3")),
    };
    let (least, most) = (bound("ssl_min_protocol_version", 2)?, bound("ssl_max_protocol_version", 3)?);
    let offered = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let versions: Vec<_> = offered
        .into_iter()
        .filter(|(at, _)| (least..=most).contains(at))
        .map(|(_, version)| version)
        .collect();
    if versions.is_empty() {
        return Err(words.wrong("ssl_max_protocol_version", "TLSv1.2 and TLSv1.3 are what is offered"));
    }
    Ok(versions)
}

#[cfg(test)]
mod tests;
