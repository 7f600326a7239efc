//! Whose name a request used: only our own are answered, so that a web page whose name was made to
//! point here (DNS rebinding) cannot read a stream on the loopback interface.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Uri, Version};
use std::fmt;
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

/// Why a request is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadHost {
    /// HTTP/1.1 without a host, with several, or with one that cannot be read: 400.
    Unreadable,
    /// A name that is not ours: 421.
    NotOurs,
}

/// The names that are ours.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    public: Vec<PublicUrl>,
}

impl Hosts {
    pub(crate) fn new(public: Vec<PublicUrl>) -> Self {
        Self { public }
    }

    /// Checks the name that a request used, in its target as well as in `Host`.
    pub(crate) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), BadHost> {
        let mut named = headers.get_all(HOST).iter();
        let header = named.next();
        if named.next().is_some() {
            return Err(BadHost::Unreadable);
        }
        match header {
            Some(value) => self.check_name(value.to_str().map_err(|_| BadHost::Unreadable)?)?,
            // Only what is older than every browser may leave it out, so no web page is behind this.
            None if version < Version::HTTP_11 => {}
            None => return Err(BadHost::Unreadable),
        }
        match uri.authority() {
            Some(authority) => self.check_name(authority.as_str()),
            None => Ok(()),
        }
    }

    fn check_name(&self, authority: &str) -> Result<(), BadHost> {
        let (host, _) = host_and_port(authority).ok_or(BadHost::Unreadable)?;
        let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        if local || self.public.iter().any(|url| url.host == host) { Ok(()) } else { Err(BadHost::NotOurs) }
    }

    /// The value of `Access-Control-Allow-Origin`: the page's origin if it is one of our public URLs.
    /// Without it a browser keeps the answer from the page.
    pub(crate) fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.public.iter().any(|url| url.origin.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }

    /// The URL of the service as the client or, if it is set, as the operator names it.
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

    fn check(lines: &[&str], target: &str, version: Version) -> Result<(), BadHost> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HOST, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        hosts().check(version, &target.parse().unwrap(), &headers)
    }

    #[test]
    fn our_own_names_are_answered() {
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
            assert_eq!(check(&[host], "/fhir/", Version::HTTP_11), Err(BadHost::NotOurs), "{host}");
        }
        for host in
            ["", "localhost:x", "localhost:80:80", "evil@localhost", "local host", "::1", "localhost:99999"]
        {
            let checked = check(&[host], "/fhir/", Version::HTTP_11);
            assert_eq!(checked, Err(BadHost::Unreadable), "{host}");
        }
    }

    #[test]
    fn a_target_with_a_name_is_checked_too() {
        let foreign = check(&["localhost"], "http://evil.example/fhir/", Version::HTTP_11);
        assert_eq!(foreign, Err(BadHost::NotOurs));
        assert_eq!(check(&["localhost"], "http://localhost/fhir/", Version::HTTP_11), Ok(()));
    }

    #[test]
    fn only_http_1_0_may_leave_the_host_out_and_nobody_may_send_two() {
        assert_eq!(check(&[], "/", Version::HTTP_10), Ok(()));
        assert_eq!(check(&[], "/", Version::HTTP_11), Err(BadHost::Unreadable));
        assert_eq!(check(&["evil.example"], "/", Version::HTTP_10), Err(BadHost::NotOurs));
        let both = check(&["localhost", "localhost"], "/", Version::HTTP_11);
        assert_eq!(both, Err(BadHost::Unreadable));
    }

    #[test]
    fn only_the_origin_of_a_public_url_may_read() {
        let allowed = |origin: &'static str| {
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            hosts().allowed_origin(&headers)
        };
        assert_eq!(allowed("https://fhir.example.org").unwrap(), "https://fhir.example.org");
        assert_eq!(allowed("http://gaps:8443").unwrap(), "http://gaps:8443");
        for other in
            ["http://fhir.example.org", "https://fhir.example.org:8443", "http://localhost:8080", "null"]
        {
            assert_eq!(allowed(other), None, "{other}");
        }
        assert_eq!(hosts().allowed_origin(&HeaderMap::new()), None);
    }

    #[test]
    fn public_urls_are_read_and_written() {
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
