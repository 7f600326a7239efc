//! The list of URLs, for people who try the service.

use crate::request::negotiate::weight;
use crate::response::{HTML, TEXT, content};
use axum::response::Response;
use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderMap, HeaderValue};

/// The page runs no script. `connect-src` allows an EventSource in the browser's console.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Path and meaning.
const URLS: [(&str, &str); 6] = [
    ("/fhir/$export", "everything: the current state, then every change as it commits"),
    ("/fhir/{Type}/$export", "one resource type, such as /fhir/Condition/$export"),
    ("/fhir/Patient/$export", "what belongs to patients: all of them, or those that patient= names"),
    ("/fhir/Patient/{id}/$export", "what belongs to one patient"),
    ("/fhir/Group/{id}/$export", "what belongs to a Group's members, as they come and go"),
    ("/fhir/metadata", "the CapabilityStatement"),
];

/// The parameters of the operation.
const PARAMETERS: [(&str, &str); 5] = [
    ("_type", "resource types, comma-separated or repeated"),
    ("_since", "an instant: only what changed after it, and deletions"),
    ("patient", "ids, comma-separated or repeated, at /fhir/Patient/$export and /fhir/Group/{id}/$export"),
    ("_lastEventId", "the id of the last event received, where no Last-Event-ID header can be sent"),
    ("_heartbeat", "seconds, 2 to 60, after which a quiet stream sends a comment line (15)"),
];

/// The list of URLs: HTML for a browser, otherwise text.
pub(crate) fn front(base: &str, headers: &HeaderMap) -> Response {
    if weight(headers, "text/html") > 0 {
        let item = |(name, meaning): &(&str, &str)| {
            format!("<dt><code>{}</code></dt><dd>{}</dd>\n", escaped(name), escaped(meaning))
        };
        let urls: String = URLS.iter().map(item).collect();
        let parameters: String = PARAMETERS.iter().map(item).collect();
        let command = escaped(&command(base));
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>fhir-tail</title>\n\
             <h1>fhir-tail</h1>\n<h2>URLs</h2>\n<dl>\n{urls}</dl>\n<h2>Parameters of $export</h2>\n\
             <dl>\n{parameters}</dl>\n<h2>Try it</h2>\n<pre>{command}</pre>\n"
        );
        let mut response = content(HTML, page);
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
        return response;
    }
    let item = |(name, meaning): &(&str, &str)| format!("  {name:<28}{meaning}\n");
    let urls: String = URLS.iter().map(item).collect();
    let parameters: String = PARAMETERS.iter().map(item).collect();
    let command = command(base);
    content(TEXT, format!("URLs\n{urls}\nParameters of $export\n{parameters}\nTry it\n  {command}\n"))
}

fn command(base: &str) -> String {
    format!("curl -N -H 'Prefer: respond-eventsource' '{base}/fhir/$export'")
}

/// Escapes for HTML: `base` can contain the `Host` that a client sent.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_no_markup() {
        assert_eq!(escaped("<a href=\"&\">"), "&lt;a href=&quot;&amp;&quot;&gt;");
    }
}
