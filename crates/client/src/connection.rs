//! The request for a stream, and what its answer means.

use crate::content;
use crate::error::{Context as _, Result};
use crate::target::Target;
use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, redirect};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// For a server that accepts a connection and does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(20);
/// The most bytes of a refusal that are read: an OperationOutcome.
const REFUSAL: usize = 64 << 10;

/// How the service knows who asks. Not shown by `Debug`: both may hold secrets.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Headers for each request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A file with a token for `Authorization: Bearer`, read again for each connection.
    pub bearer_token_file: Option<PathBuf>,
}

/// Speaks HTTP to one service.
pub(crate) struct Connector {
    client: Client,
    target: Target,
    credentials: Credentials,
}

/// An answer.
pub(crate) enum Answer {
    /// The stream has begun.
    Stream(Response),
    /// Retry later.
    Later { why: String, wait: Option<Duration> },
    /// A retry would be refused again.
    Refused(String),
}

impl Connector {
    pub(crate) fn new(target: Target, credentials: Credentials) -> Result<Self> {
        let builder = Client::builder()
            .user_agent(concat!("fhir-tail/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN)
            .tcp_keepalive(Duration::from_secs(30))
            // The credentials are for this service only.
            .redirect(redirect::Policy::none());
        // Tests talk to this machine whatever its environment says.
        let builder = if cfg!(test) { builder.no_proxy() } else { builder };
        let client = builder.build().context("cannot prepare for HTTP")?;
        Ok(Self { client, target, credentials })
    }

    /// Asks for the stream after an event; `None`: from its beginning.
    pub(crate) async fn open(&self, after: Option<&str>) -> Result<Answer> {
        let mut headers = self.credentials.headers()?;
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream, application/fhir+json"));
        // So that a refusal has a status.
        headers.append("prefer", HeaderValue::from_static("respond-eventsource"));
        if let Some(id) = after {
            headers.insert("last-event-id", HeaderValue::from_bytes(id.as_bytes()).context("the last id")?);
        }
        let asking = self.client.get(self.target.url().clone()).headers(headers).send();
        let response = match tokio::time::timeout(ANSWER_WITHIN, asking).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Ok(Answer::Later { why: reason(error), wait: None }),
            Err(_) => return Ok(Answer::Later { why: "no answer".to_owned(), wait: None }),
        };
        Ok(self.judge(response).await)
    }

    async fn judge(&self, response: Response) -> Answer {
        let status = response.status();
        if status == StatusCode::OK {
            let media_type = text(response.headers(), CONTENT_TYPE.as_str()).to_ascii_lowercase();
            if media_type.split(';').next().is_some_and(|kind| kind.trim() == "text/event-stream") {
                return Answer::Stream(response);
            }
            return Answer::Refused(format!(
                "{} answers with '{media_type}' instead of a stream (text/event-stream): is it the URL of fhir-tail?",
                self.target.name()
            ));
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(retry_after);
        let location = text(response.headers(), LOCATION.as_str());
        let said = match tokio::time::timeout(ANSWER_WITHIN, beginning(response)).await {
            Ok(body) => content::diagnostics(&body).map(|said| format!(": {said}")).unwrap_or_default(),
            Err(_) => String::new(),
        };
        if is_retryable(status) {
            return Answer::Later { why: format!("{status}{said}"), wait };
        }
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; authenticate with --bearer-token-file or --header".to_owned()
            }
            status if status.is_redirection() => format!("; it has moved to '{location}': use that URL"),
            _ => String::new(),
        };
        Answer::Refused(format!("{} refuses: {status}{said}{remedy}", self.target.name()))
    }
}

/// Whether a retry may succeed. Not for 501: what is not implemented stays so.
fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 506..)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// Seconds, or the time when: <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    // The longest wait that is accepted.
    let longest = Duration::from_secs(3_600);
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(longest))
}

async fn beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > REFUSAL {
            break;
        }
    }
    body
}

/// The innermost cause: what is around it repeats the URL, and that may hold a password.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The next bytes of a stream; `None`: it has ended.
pub(crate) async fn next(response: &mut Response, silence: Duration) -> Result<Option<Bytes>, String> {
    match tokio::time::timeout(silence, response.chunk()).await {
        Ok(result) => result.map_err(reason),
        Err(_) => Err(format!("no data for {} s", silence.as_secs())),
    }
}

impl Credentials {
    /// The headers; the token is read each time, since it may have been renewed.
    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        if let Some(path) = &self.bearer_token_file {
            let token = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token in {}", path.display()))?;
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .with_context(|| format!("{} does not hold a token on one line", path.display()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999"), Some(Duration::from_secs(3_600)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Fri, 31 Dec 9999 23:59:59 GMT"), Some(Duration::from_secs(3_600)));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn retryable_statuses_are_distinguished_from_permanent_ones() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_retryable(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [204, 301, 400, 401, 403, 404, 410, 421, 501, 505] {
            assert!(!is_retryable(StatusCode::from_u16(status).unwrap()), "{status}");
        }
    }

    #[test]
    fn token_is_read_for_each_connection_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let credentials = Credentials {
            headers: vec![("x-key".parse().unwrap(), HeaderValue::from_static("k"))],
            bearer_token_file: Some(file.path().to_owned()),
        };
        for token in ["one", "two"] {
            std::fs::write(file.path(), format!("{token}\n")).unwrap();
            let headers = credentials.headers().unwrap();
            assert_eq!(headers[AUTHORIZATION], format!("Bearer {token}"));
            assert!(!format!("{headers:?}").contains(token));
            assert_eq!(headers["x-key"], "k");
        }
        std::fs::write(file.path(), "a\nb").unwrap();
        let error = format!("{:#}", credentials.headers().unwrap_err());
        assert!(error.contains("one line") && !error.contains("a\nb"), "{error}");
        drop(file);
        assert!(format!("{:#}", credentials.headers().unwrap_err()).contains("cannot read the token"));
    }
}
