//! The hosts that requests may name. Others are rejected, so that a web page whose name resolves to
//! this machine (DNS rebinding) cannot read a stream on the loopback interface.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A URL under which the service is reached from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicUrl {
    origin: String,
    host: String,
    base: String,
}

/// The text cannot be a public URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is not a public URL: give it as https://host, with a port and a path if it has them")]
pub struct InvalidPublicUrl(String);

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPublicUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(invalid());
        };
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority.as_str()).ok_or_else(invalid)?;
        if !matches!(scheme.as_str(), "http" | "https") || uri.query().is_some() || text.contains('#') {
            return Err(invalid());
        }
        let standard = if scheme == "https" { 443 } else { 80 };
        let port = port.filter(|port| *port != standard).map(|port| format!(":{port}")).unwrap_or_default();
        let origin = format!("{scheme}://{host}{port}");
        let base = format!("{origin}{}", uri.path().trim_end_matches('/'));
        Ok(Self { origin, host, base })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// A host without its port in lower case, and the port; `None` where the text is neither.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    // `Authority` also takes user information, which `Host` has no place for.
    let parsed: Authority = authority.parse().ok().filter(|_| !authority.contains('@'))?;
    let host = parsed.host();
    let port = match authority.get(host.len()..)? {
        "" | ":" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

/// Whether a host is an IP address: `192.0.2.1`, `[2001:db8::1]`.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Why a host is not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HostError {
    /// HTTP/1.1 without a host, with several, or with one that cannot be read: 400.
    Malformed,
    /// A host that is not configured: 421.
    Foreign(ForeignHost),
}

/// A host with its port as a client sent it, escaped and shortened for display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ForeignHost(String);

/// More than the longest name of a service in a cluster.
const SHOWN: usize = 120;

impl ForeignHost {
    fn new(authority: &str) -> Self {
        let mut shown: String = authority.chars().take(SHOWN).flat_map(char::escape_default).collect();
        if authority.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        Self(shown)
    }
}

impl fmt::Display for ForeignHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The accepted hosts.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    public: Vec<PublicUrl>,
}

impl Hosts {
    pub(crate) fn new(public: Vec<PublicUrl>) -> Self {
        Self { public }
    }

    /// Checks the host of a request, in its target and in `Host`.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), HostError> {
        let headers = request.headers();
        let mut named = headers.get_all(HOST).iter();
        let header = named.next();
        if named.next().is_some() {
            return Err(HostError::Malformed);
        }
        match header {
            Some(value) => self.check_name(value.to_str().map_err(|_| HostError::Malformed)?)?,
            // Only HTTP/1.0 may omit it, and no browser speaks that.
            None if request.version() < Version::HTTP_11 => {}
            None => return Err(HostError::Malformed),
        }
        match request.uri().authority() {
            Some(authority) => self.check_name(authority.as_str()),
            None => Ok(()),
        }
    }

    fn check_name(&self, authority: &str) -> Result<(), HostError> {
        let (host, _) = host_and_port(authority).ok_or(HostError::Malformed)?;
        let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        if local || self.public.iter().any(|url| url.host == host) {
            return Ok(());
        }
        Err(HostError::Foreign(ForeignHost::new(authority)))
    }

    /// Like [`check`](Self::check), but accepts IP addresses: probes and scrapes use any address that the
    /// orchestrator assigns. DNS rebinding needs a name, so no web page can send them.
    pub(crate) fn check_or_address<B>(&self, request: &Request<B>) -> Result<(), HostError> {
        self.check(request).or_else(|bad| {
            let named = request.headers().get_all(HOST).iter().map(|value| value.to_str().ok());
            let named = named.chain(request.uri().authority().map(|authority| Some(authority.as_str())));
            let mut hosts = named.map(|name| host_and_port(name?));
            let address = |host: Option<(String, _)>| host.is_some_and(|(host, _)| is_address(&host));
            // With several headers it is unclear which one counts.
            if bad != HostError::Malformed && hosts.all(address) { Ok(()) } else { Err(bad) }
        })
    }

    /// Whether pages of this origin may read responses.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        self.public.iter().any(|url| url.origin.as_bytes() == origin.as_bytes())
    }

    /// The base URL: the first public URL, or else the host that the client used.
    pub(crate) fn base_url(&self, headers: &HeaderMap) -> String {
        if let Some(url) = self.public.first() {
            return url.to_string();
        }
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
        format!("http://{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(vec!["https://FHIR.example.org".parse().unwrap(), "http://gaps:8443/x/".parse().unwrap()])
    }

    fn request(lines: &[&str], target: &str, version: Version) -> Request<()> {
        let request = lines.iter().fold(Request::get(target), |request, line| request.header(HOST, *line));
        request.version(version).body(()).unwrap()
    }

    fn check(lines: &[&str], target: &str, version: Version) -> Result<(), HostError> {
        hosts().check(&request(lines, target, version))
    }

    fn not_ours(host: &str) -> Result<(), HostError> {
        Err(HostError::Foreign(ForeignHost(host.to_owned())))
    }

    #[test]
    fn loopback_and_public_hosts_are_accepted() {
        let ours = [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:8080",
            "fhir.example.org",
            "fhir.EXAMPLE.org:8443",
            "gaps",
            "localhost:",
        ];
        for host in ours {
            assert_eq!(check(&[host], "/fhir/", Version::HTTP_11), Ok(()), "{host}");
        }
        let foreign = [
            "evil.example",
            "localhost.evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "0.0.0.0",
            "[::]",
            "localhost.",
        ];
        for host in foreign {
            let checked = check(&[host], "/fhir/", Version::HTTP_11);
            assert_eq!(checked, not_ours(host), "{host}");
        }
        for host in
            ["", "localhost:x", "localhost:80:80", "evil@localhost", "local host", "::1", "localhost:99999"]
        {
            let checked = check(&[host], "/fhir/", Version::HTTP_11);
            assert_eq!(checked, Err(HostError::Malformed), "{host}");
        }
    }

    #[test]
    fn host_in_the_target_is_checked_too() {
        let foreign = check(&["localhost"], "http://evil.example/fhir/", Version::HTTP_11);
        assert_eq!(foreign, not_ours("evil.example"));
        assert_eq!(check(&["localhost"], "http://localhost/fhir/", Version::HTTP_11), Ok(()));
    }

    #[test]
    fn host_is_required_once_except_in_http_1_0() {
        assert_eq!(check(&[], "/", Version::HTTP_10), Ok(()));
        assert_eq!(check(&[], "/", Version::HTTP_11), Err(HostError::Malformed));
        assert_eq!(check(&["evil.example"], "/", Version::HTTP_10), not_ours("evil.example"));
        let both = check(&["localhost", "localhost"], "/", Version::HTTP_11);
        assert_eq!(both, Err(HostError::Malformed));
    }

    #[test]
    fn only_origins_of_public_urls_may_read() {
        let allowed = |origin: &'static str| hosts().allows(&HeaderValue::from_static(origin));
        assert!(allowed("https://fhir.example.org") && allowed("http://gaps:8443"));
        for other in [
            "http://fhir.example.org",
            "https://fhir.example.org:8443",
            "https://fhir.example.org.evil.example",
            "http://localhost:8080",
            "null",
            "",
        ] {
            assert!(!allowed(other), "{other}");
        }
    }

    #[test]
    fn probes_may_use_ip_addresses() {
        let checked = |lines: &[&str], target: &str, version| {
            hosts().check_or_address(&request(lines, target, version))
        };
        for host in ["10.1.2.3:8080", "10.1.2.3", "[2001:db8::1]:8080", "localhost", "gaps", "127.0.0.2"] {
            assert_eq!(checked(&[host], "/metrics", Version::HTTP_11), Ok(()), "{host}");
        }
        assert_eq!(checked(&[], "/metrics", Version::HTTP_10), Ok(()));
        for host in ["evil.example", "10.1.2.3.evil.example", "10.1.2", "0x7f.1", "2130706433", "10.1.2.3."] {
            let checked = checked(&[host], "/metrics", Version::HTTP_11);
            assert!(matches!(checked, Err(HostError::Foreign(_))), "{host}: {checked:?}");
        }
        let both = checked(&["10.1.2.3", "evil.example"], "/metrics", Version::HTTP_11);
        assert_eq!(both, Err(HostError::Malformed));
        let target = checked(&["10.1.2.3"], "http://evil.example/metrics", Version::HTTP_11);
        assert!(matches!(target, Err(HostError::Foreign(_))), "{target:?}");
        let target = checked(&["evil.example"], "http://10.1.2.3/metrics", Version::HTTP_11);
        assert!(matches!(target, Err(HostError::Foreign(_))), "{target:?}");
    }

    #[test]
    fn foreign_host_is_shortened_and_escaped() {
        assert_eq!(ForeignHost::new("fhir.example:8080").to_string(), "fhir.example:8080");
        let long = ForeignHost::new(&"x".repeat(10_000)).to_string();
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert_eq!(ForeignHost::new("a\"\n\u{7f}é").to_string(), "a\\\"\\n\\u{7f}\\u{e9}");
    }

    #[test]
    fn public_urls_are_parsed_and_displayed() {
        let written = |text: &str| text.parse::<PublicUrl>().map(|url| url.to_string());
        assert_eq!(written("https://A.example:443/").unwrap(), "https://a.example");
        assert_eq!(written("http://a:8080/base/").unwrap(), "http://a:8080/base");
        assert_eq!(written("http://[::1]:80").unwrap(), "http://[::1]");
        for bad in [
            "",
            "a.example",
            "ftp://a",
            "https://",
            "https://a?b",
            "https://u@a",
            "https://a:x",
            "http://a#b",
        ] {
            assert!(written(bad).is_err(), "{bad}");
        }
        assert!(written("a.example").unwrap_err().to_string().contains("'a.example'"));
    }
}
