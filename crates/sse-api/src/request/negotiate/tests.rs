use super::*;
use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn mode(lines: &[(&str, &str)]) -> ResponseMode {
    Negotiated::from_headers(&headers(lines)).mode
}

#[test]
fn headers_select_the_response_mode() {
    use ResponseMode::*;
    let table: &[(&[(&str, &str)], ResponseMode)] = &[
        (&[], Unspecified),
        (&[("accept", "*/*")], Unspecified),
        (&[("accept", "text/*")], Unspecified),
        (&[("accept", "application/fhir+json")], Unspecified),
        (&[("accept", "text/event-stream")], StreamByAccept),
        (&[("accept", "TEXT/Event-Stream; charset=utf-8")], StreamByAccept),
        (&[("accept", "text/html, text/event-stream;q=0.001")], StreamByAccept),
        (&[("accept", "text/html"), ("accept", "text/event-stream")], StreamByAccept),
        (&[("accept", "text/event-stream;q=0")], Unspecified),
        (&[("accept", "text/event-stream; Q=0.000")], Unspecified),
        (&[("accept", "text/event-stream;q=2")], Unspecified),
        (&[("accept", "text/event-stream;q=1.001")], Unspecified),
        (&[("accept", "text/event-stream;q=nonsense")], Unspecified),
        (&[("accept", "text/event-stream-not")], Unspecified),
        (&[("accept", r#"text/x;a=", text/event-stream,""#)], Unspecified),
        (&[("prefer", "respond-eventsource")], StreamByPrefer),
        (&[("prefer", "Respond-EventSource")], StreamByPrefer),
        (&[("prefer", "respond-eventsource"), ("accept", "application/fhir+json")], StreamByPrefer),
        (&[("prefer", "respond-eventsource"), ("accept", "text/event-stream")], StreamByPrefer),
        (&[("prefer", "respond-async, respond-eventsource")], StreamByPrefer),
        (&[("prefer", "respond-async"), ("prefer", "respond-eventsource")], StreamByPrefer),
        (&[("prefer", "respond-async"), ("accept", "text/event-stream")], Asynchronous),
        (&[("prefer", ",, respond-async;wait=10 ,")], Asynchronous),
        (&[("prefer", r#"respond-eventsource="""#)], StreamByPrefer),
        (&[("prefer", r#"wait=10, respond-eventsource; a="x,\"y;"; b"#)], StreamByPrefer),
        (&[("prefer", r#"note="respond-eventsource""#)], Unspecified),
        (&[("prefer", r#"note="a, respond-eventsource, b""#)], Unspecified),
        (&[("prefer", "note; respond-eventsource")], Unspecified),
        (&[("prefer", "respond-eventsources")], Unspecified),
        (&[("prefer", "return=minimal"), ("accept", "text/event-stream")], StreamByAccept),
    ];
    for (lines, expected) in table {
        assert_eq!(mode(lines), *expected, "{lines:?}");
    }
}

#[test]
fn the_first_handling_counts() {
    let lenient =
        |value: &str| Negotiated::from_headers(&headers(&[("prefer", value)])).handling == Handling::Lenient;
    assert!(lenient("handling=lenient"));
    assert!(lenient(r#"respond-eventsource, Handling = "Lenient""#));
    assert!(lenient("handling=lenient, handling=strict"));
    assert!(!lenient("handling=strict, handling=lenient"));
    assert!(!lenient("respond-eventsource"));
    assert!(!lenient("respond-eventsource; handling=lenient"));
}

#[test]
fn weights_are_read_to_the_thousandth() {
    let table =
        [("0", Some(0)), ("1", Some(1000)), ("0.5", Some(500)), ("0.", Some(0)), ("0.123", Some(123))];
    for (text, expected) in table {
        assert_eq!(qvalue(text.as_bytes()), expected, "{text}");
    }
    for bad in ["", ".5", "0.1234", "1.5", "2", "-1", "0,5", "0.x"] {
        assert_eq!(qvalue(bad.as_bytes()), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_header_is_parsed(prefer in prop::collection::vec(any::<u8>(), 0..80), accept in "[ -~]{0,80}") {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&prefer) {
            headers.append("prefer", value);
        }
        headers.append(ACCEPT, HeaderValue::from_str(&accept).unwrap());
        Negotiated::from_headers(&headers);
    }

    /// Whatever stands around it, in whatever case: a preference is heard exactly if it is there.
    #[test]
    fn a_preference_is_found_among_others(
        before in prop::collection::vec(r#"[a-z]{1,8}(=([a-z]{1,5}|"[ -!#-\[\]-~]{0,8}"))?(;[a-z]{1,4})?"#, 0..4),
        after in prop::collection::vec(r#"[a-z]{1,8}(=([a-z]{1,5}|"[ -!#-\[\]-~]{0,8}"))?"#, 0..4),
        upper in any::<bool>(),
        present in any::<bool>(),
    ) {
        let name = if upper { RESPOND_EVENTSOURCE.to_uppercase() } else { RESPOND_EVENTSOURCE.to_owned() };
        let mut list = before;
        if present {
            list.push(name);
        }
        list.extend(after);
        let one = mode(&[("prefer", &list.join(" , "))]);
        let lines: Vec<_> = list.iter().map(|value| ("prefer", value.as_str())).collect();
        prop_assert_eq!(one, if present { ResponseMode::StreamByPrefer } else { ResponseMode::Unspecified });
        prop_assert_eq!(mode(&lines), one);
    }

    #[test]
    fn a_weight_above_nothing_asks(thousandths in 0u16..=1000) {
        let value = format!("text/html;q=0.9, text/event-stream;q={}.{:03}", thousandths / 1000, thousandths % 1000);
        prop_assert_eq!(weight(&headers(&[("accept", &value)]), EVENT_STREAM), thousandths);
    }
}
