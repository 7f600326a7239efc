//! Content negotiation by `Prefer` (RFC 7240) and `Accept` (RFC 9110), parsed by their grammars.
//!
//! `Prefer: respond-eventsource` wins over `respond-async`, and that over `Accept: text/event-stream`.
//! Wildcards are ignored: every tool sends `*/*` by default.

use fhir::Handling;
use http::HeaderMap;
use http::header::ACCEPT;

/// The media type of Server-Sent Events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// The preference that asks for Server-Sent Events.
pub(crate) const RESPOND_EVENTSOURCE: &str = "respond-eventsource";

/// The kind of response that a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ResponseMode {
    /// A stream, by `Prefer: respond-eventsource`: the client reads status codes.
    StreamByPrefer,
    /// A stream, by `Accept: text/event-stream`. A browser's EventSource sends this, and reconnects only
    /// after status 200.
    StreamByAccept,
    /// The classic asynchronous export.
    Asynchronous,
    /// Neither.
    Unspecified,
}

/// What a request's headers ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Negotiated {
    /// The answer.
    pub(crate) mode: ResponseMode,
    /// What becomes of unknown parameters: `Prefer: handling=lenient`.
    pub(crate) handling: Handling,
}

impl Negotiated {
    /// Reads the headers.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let (mut eventsource, mut asynchronous, mut handling) = (false, false, None);
        for value in headers.get_all("prefer") {
            for preference in elements(value.as_bytes()) {
                let (name, value) = pair(members(preference).next().unwrap_or_default());
                eventsource |= name.eq_ignore_ascii_case(RESPOND_EVENTSOURCE.as_bytes());
                asynchronous |= name.eq_ignore_ascii_case(b"respond-async");
                // Only the first instance of a preference counts (RFC 7240, section 2).
                if name.eq_ignore_ascii_case(b"handling") && handling.is_none() {
                    let lenient = unquoted(value).eq_ignore_ascii_case(b"lenient");
                    handling = Some(if lenient { Handling::Lenient } else { Handling::Strict });
                }
            }
        }
        let mode = if eventsource {
            ResponseMode::StreamByPrefer
        } else if asynchronous {
            ResponseMode::Asynchronous
        } else if weight(headers, EVENT_STREAM) > 0 {
            ResponseMode::StreamByAccept
        } else {
            ResponseMode::Unspecified
        };
        Self { mode, handling: handling.unwrap_or_default() }
    }
}

/// The weight, 0 to 1,000, that `Accept` gives to exactly this media type, without wildcards. Elements
/// with an invalid weight are ignored.
pub(crate) fn weight(headers: &HeaderMap, media_type: &str) -> u16 {
    let mut best = 0;
    for value in headers.get_all(ACCEPT) {
        for range in elements(value.as_bytes()) {
            let mut members = members(range);
            if members.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type.as_bytes())) {
                let weight = members
                    .map(pair)
                    .find(|(name, _)| name.eq_ignore_ascii_case(b"q"))
                    .map_or(Some(1000), |(_, value)| qvalue(value));
                best = best.max(weight.unwrap_or(0));
            }
        }
    }
    best
}

/// `0` to `1` with up to three decimals, in thousandths.
fn qvalue(text: &[u8]) -> Option<u16> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut value = u16::from(whole - b'0') * 1000;
    for (digit, unit) in decimals.iter().zip([100, 10, 1]) {
        value += digit.is_ascii_digit().then(|| u16::from(digit - b'0') * unit)?;
    }
    (value <= 1000).then_some(value)
}

/// The elements of a comma-separated list, trimmed, without empty ones.
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(list, b',').filter(|element| !element.is_empty())
}

/// The parts of an element: its name or range, then its parameters.
fn members(element: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(element, b';')
}

/// A name and its value, empty if it is missing.
fn pair(member: &[u8]) -> (&[u8], &[u8]) {
    match member.iter().position(|byte| *byte == b'=') {
        Some(at) => (member[..at].trim_ascii(), member[at + 1..].trim_ascii()),
        None => (member, &[]),
    }
}

/// The text of a quoted string, or the value itself. Escapes stay: no value that we compare with has one.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => bare,
    }
}

/// Splits at a separator outside quoted strings. An unclosed string extends to the end.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                byte => return *byte == separator && !quoted,
            }
            false
        });
        rest = end.map(|at| &text[at + 1..]);
        Some(text[..end.unwrap_or(text.len())].trim_ascii())
    })
}

#[cfg(test)]
mod tests;
