//! What the URL says, completed as libpq would from the environment and from its files.
//!
//! `tokio_postgres` reads all but `sslmode` and `sslrootcert`, which it knows only in part: they are taken
//! out first. Errors never repeat a value, which may be the password.

use super::InvalidDatabaseUrl;
use super::passfile::{self, Wanted};
use super::socket::{Address, Endpoint};
use super::tls::{self, Roots, TlsMode, Verify};
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, TargetSessionAttrs};

/// Everything that is needed to connect. `config` always has a user and a database.
pub(super) struct Settings {
    pub(super) config: Config,
    /// Never empty.
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) tls: TlsMode,
    /// Of several hosts the primary is the one that is wanted.
    pub(super) primary_only: bool,
}

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

const DEFAULT_PORT: u16 = 5432;

pub(super) fn read(url: &str, environment: Environment<'_>) -> Result<Settings, InvalidDatabaseUrl> {
    let environment = &|name: &str| environment(name).filter(|value| !value.is_empty());
    let Split { rest, sslmode, sslrootcert } = split(url)?;
    let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        InvalidDatabaseUrl(format!("the database URL cannot be read: {cause}"))
    })?;

    if config.get_user().is_none_or(str::is_empty) {
        config.user(environment("PGUSER").or_else(system_user).ok_or_else(|| {
            InvalidDatabaseUrl("the database URL names no user: write postgres://user@host/db".to_owned())
        })?);
    }
    if config.get_dbname().is_none_or(str::is_empty) {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(environment("PGDATABASE").unwrap_or(user));
    }
    if matches!(config.get_target_session_attrs(), TargetSessionAttrs::ReadOnly) {
        return Err(InvalidDatabaseUrl(
            "target_session_attrs=read-only cannot be used: changes and marks come from the primary"
                .to_owned(),
        ));
    }

    let endpoints = endpoints(&config, environment)?;
    if config.get_password().is_none()
        && let Some(password) = password(&config, &endpoints, environment)
    {
        config.password(password);
    }
    let sslmode = sslmode.or_else(|| environment("PGSSLMODE"));
    let sslrootcert = sslrootcert.or_else(|| environment("PGSSLROOTCERT"));
    let tls = tls_mode(sslmode.as_deref(), sslrootcert.as_deref(), environment)?;
    let primary_only =
        endpoints.len() > 1 || config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite;
    Ok(Settings { config, endpoints, tls, primary_only })
}

fn system_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.name)
}

fn endpoints(config: &Config, environment: Environment<'_>) -> Result<Vec<Endpoint>, InvalidDatabaseUrl> {
    let ports = config.get_ports();
    let default_port = match environment("PGPORT") {
        Some(port) => port.parse().map_err(|_| InvalidDatabaseUrl("PGPORT is not a port".to_owned()))?,
        None => DEFAULT_PORT,
    };
    let port_of = |index: usize| match ports {
        [] => Ok(default_port),
        [port] => Ok(*port),
        several => several.get(index).copied().ok_or_else(|| {
            InvalidDatabaseUrl("the database URL has as many ports as hosts, or one, or none".to_owned())
        }),
    };
    let addresses = config.get_hostaddrs();
    let hosts = config.get_hosts();
    if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
        return Err(InvalidDatabaseUrl("the database URL has as many hostaddr as host".to_owned()));
    }
    if hosts.is_empty() && addresses.is_empty() {
        return Ok(vec![Endpoint { address: default_host(environment, port_of(0)?), port: port_of(0)? }]);
    }
    (0..hosts.len().max(addresses.len()))
        .map(|index| {
            let port = port_of(index)?;
            let ip = addresses.get(index).copied();
            let address = match (hosts.get(index), ip) {
                (Some(Host::Unix(directory)), _) => Address::Unix(directory.clone()),
                (Some(Host::Tcp(host)), _) if !host.is_empty() => Address::Tcp { host: host.clone(), ip },
                (_, Some(ip)) => Address::Tcp { host: ip.to_string(), ip: Some(ip) },
                (_, None) => default_host(environment, port),
            };
            Ok(Endpoint { address, port })
        })
        .collect()
}

/// `PGHOST`; else the socket that lies where distributions put it; else this machine.
fn default_host(environment: Environment<'_>, port: u16) -> Address {
    match environment("PGHOST") {
        Some(host) if host.starts_with('/') => return Address::Unix(PathBuf::from(host)),
        Some(host) => return Address::Tcp { host, ip: None },
        None => {}
    }
    ["/var/run/postgresql", "/tmp"]
        .into_iter()
        .map(Path::new)
        .find(|directory| directory.join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(
            || Address::Tcp { host: "localhost".to_owned(), ip: None },
            |directory| Address::Unix(directory.to_owned()),
        )
}

fn password(config: &Config, endpoints: &[Endpoint], environment: Environment<'_>) -> Option<String> {
    if let Some(password) = environment("PGPASSWORD") {
        return Some(password);
    }
    let path = environment("PGPASSFILE").map(PathBuf::from).or_else(|| home(environment, ".pgpass"))?;
    let metadata = std::fs::metadata(&path).ok()?;
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        tracing::warn!("the password file is ignored: others can read it; set its mode to 0600");
        return None;
    }
    let file = std::fs::read_to_string(&path).ok()?;
    let endpoint = endpoints.first()?;
    let host = match &endpoint.address {
        Address::Unix(_) => "localhost",
        Address::Tcp { host, .. } => host,
    };
    let (dbname, user) = (config.get_dbname()?, config.get_user()?);
    passfile::find(&file, &Wanted { host, port: endpoint.port, dbname, user })
}

fn home(environment: Environment<'_>, file: &str) -> Option<PathBuf> {
    environment("HOME").map(|home| Path::new(&home).join(file))
}

fn tls_mode(
    sslmode: Option<&str>,
    sslrootcert: Option<&str>,
    environment: Environment<'_>,
) -> Result<TlsMode, InvalidDatabaseUrl> {
    let default_file = home(environment, ".postgresql/root.crt").filter(|path| path.exists());
    let roots = match sslrootcert {
        Some("system") => Roots::System,
        Some(path) => Roots::File(Path::new(path)),
        None => default_file.as_deref().map_or(Roots::None, Roots::File),
    };
    let system = matches!(roots, Roots::System);
    // As in libpq: who names the system's authorities wants the name verified, and nothing weaker.
    let sslmode = sslmode.unwrap_or(if system { "verify-full" } else { "prefer" });
    if system && sslmode != "verify-full" {
        return Err(InvalidDatabaseUrl(
            "sslrootcert=system needs sslmode=verify-full: anybody can get a certificate from those authorities"
                .to_owned(),
        ));
    }
    let mode = match sslmode {
        "disable" => TlsMode::Disable,
        "prefer" => TlsMode::Prefer(tls::configuration(Verify::Nothing, &Roots::None)?),
        "require" => {
            let verify = if matches!(roots, Roots::None) { Verify::Nothing } else { Verify::Chain };
            TlsMode::Require(tls::configuration(verify, &roots)?)
        }
        "verify-ca" => TlsMode::Require(tls::configuration(Verify::Chain, &roots)?),
        "verify-full" => TlsMode::Require(tls::configuration(Verify::Name, &roots)?),
        other => {
            return Err(InvalidDatabaseUrl(format!(
                "sslmode '{other}' is unknown: it is one of disable, prefer, require, verify-ca, verify-full"
            )));
        }
    };
    Ok(mode)
}

/// The URL without the two parameters, and the two.
struct Split {
    rest: String,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Split {
    /// Takes the parameter if it is one of the two.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.sslmode = Some(value.to_owned()),
            "sslrootcert" => self.sslrootcert = Some(value.to_owned()),
            _ => return false,
        }
        true
    }
}

fn split(text: &str) -> Result<Split, InvalidDatabaseUrl> {
    let text = text.trim();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        split_url(text)
    } else if text.split_once("://").is_none_or(|(scheme, _)| scheme.contains('=')) {
        // A value may have `://` in it, as a password may.
        split_keywords(text)
    } else {
        Err(InvalidDatabaseUrl(
            "the database URL begins with postgres:// or postgresql://, or is a list of keyword=value"
                .to_owned(),
        ))
    }
}

fn split_url(url: &str) -> Result<Split, InvalidDatabaseUrl> {
    // A password may have a `?`; as in `tokio_postgres` it ends at the first `@`.
    let after_credentials = url.find('@').map_or(0, |at| at + 1);
    let mut split = Split { rest: url.to_owned(), sslmode: None, sslrootcert: None };
    let Some(question) = url[after_credentials..].find('?').map(|at| after_credentials + at) else {
        return Ok(split);
    };
    let mut kept = Vec::new();
    for parameter in url[question + 1..].split('&') {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let decode = |text| {
            percent_decode_str(text).decode_utf8().map_err(|_| {
                InvalidDatabaseUrl("a parameter of the database URL is not UTF-8 when decoded".to_owned())
            })
        };
        if !split.take(&decode(key)?, &decode(value)?) && !parameter.is_empty() {
            kept.push(parameter);
        }
    }
    split.rest.truncate(question);
    if !kept.is_empty() {
        split.rest.push('?');
        split.rest.push_str(&kept.join("&"));
    }
    Ok(split)
}

/// `key = value`, `key='quoted \' value'`, separated by blanks.
fn split_keywords(text: &str) -> Result<Split, InvalidDatabaseUrl> {
    let mut split = Split { rest: String::new(), sslmode: None, sslrootcert: None };
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or_else(|| {
            InvalidDatabaseUrl(
                "the database URL cannot be read: write postgres://user@host/db or keyword=value pairs"
                    .to_owned(),
            )
        })?;
        let (value, after) = keyword_value(after.trim_start())?;
        let key = key.trim();
        if !split.take(key, &value) {
            split.rest.push_str(key);
            split.rest.push_str("='");
            for c in value.chars() {
                if matches!(c, '\'' | '\\') {
                    split.rest.push('\\');
                }
                split.rest.push(c);
            }
            split.rest.push_str("' ");
        }
        rest = after.trim_start();
    }
    Ok(split)
}

fn keyword_value(text: &str) -> Result<(String, &str), InvalidDatabaseUrl> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(InvalidDatabaseUrl("a quoted value of the database URL is not closed".to_owned()));
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests;
