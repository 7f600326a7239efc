//! What each setting accepts, and what it is when nobody says anything.

use super::Environment;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

pub(super) const DEFAULT_SLOT: &str = "fhir_tail";
pub(super) const DEFAULT_PUBLICATION: &str = "fhir_tail";
pub(super) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("invalid log format '{text}': use text or json")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// An address with a port, in digits.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    // No other name is looked up: what a resolver answers must not decide who can reach the service.
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        format!("'{text}' is not an address with a port, such as 127.0.0.1:8080, [::1]:8080 or 127.0.0.1:0")
    })
}

pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("'{text}' is not a whole number above 0")),
    }
}

pub(super) fn directory(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("is empty: name a directory".to_owned());
    }
    // Postgres is started elsewhere and must find the same place.
    std::path::absolute(text).map_err(|error| format!("invalid path '{text}': {error}"))
}

/// What Postgres takes as an identifier without cutting it off.
pub(super) fn identifier(text: &str) -> Result<String, String> {
    if (1..=63).contains(&text.len()) && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(format!("invalid Postgres name '{text}': use 1 to 63 bytes"))
    }
}

/// Kept as it is written, because references are compared with it as text.
pub(super) fn fhir_base_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(format!("'{text}' is not a FHIR base URL: give it as https://host/path")),
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "invalid log level '{text}': use error, warn, info, debug or trace, or info,cdc=debug"
        )),
    }
}

/// A variable that names an absolute path; the XDG rules say that a relative one is to be ignored.
fn absolute(environment: &Environment, name: &str) -> Option<PathBuf> {
    environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// `/var/lib` for root, whose home directory the embedded Postgres could not enter.
pub(super) fn default_data_dir(environment: &Environment, root: bool) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from("/var/lib/fhir-tail"));
    }
    absolute(environment, "XDG_DATA_HOME")
        .or_else(|| absolute(environment, "HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("fhir-tail"))
}

pub(super) fn usual_config_file(environment: &Environment) -> Option<PathBuf> {
    absolute(environment, "XDG_CONFIG_HOME")
        .or_else(|| absolute(environment, "HOME").map(|home| home.join(".config")))
        .map(|config| config.join("fhir-tail.toml"))
}
