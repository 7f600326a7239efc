//! What is asked, and what is refused for good.

use super::*;

#[tokio::test]
async fn who_asks_for_nothing_is_told_both_ways_to_ask() {
    let service = Service::start().await;
    for headers in [&[][..], &["Accept: */*"], &["Accept: application/fhir+json"]] {
        let response = service.answer("GET", "/fhir/$export", headers).await;
        assert_eq!(response.status, 400);
        assert_eq!(response.header("vary"), Some("Accept, Prefer, Origin"));
        let diagnostics = response.diagnostics();
        assert!(diagnostics.contains("Prefer: respond-eventsource"), "{diagnostics}");
        assert!(diagnostics.contains("Accept: text/event-stream"), "{diagnostics}");
    }
}

#[tokio::test]
async fn what_comes_later_is_said_to_come_later() {
    let service = Service::start().await;
    let stream = "Prefer: respond-eventsource";
    for (method, target, header) in [
        ("GET", "/fhir/$export", "Prefer: respond-async"),
        ("POST", "/fhir/$export", stream),
        ("GET", "/fhir/Patient/$export", stream),
        ("GET", "/fhir/Patient/p1/$export", stream),
        ("GET", "/fhir/Group/g1/$export", stream),
        ("POST", "/fhir/Group/g1/$export", stream),
        ("GET", "/fhir/Group/$export", stream),
        ("GET", "/fhir/Patient/$export", "Accept: text/event-stream"),
    ] {
        let response = service.answer(method, target, &[header]).await;
        assert_eq!(response.status, 501, "{method} {target} {header}");
        assert_eq!(response.issue()["code"], "not-supported");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let service = Service::start().await;
    for target in
        ["/fhir/Widget/$export", "/fhir/Condition", "/fhir/Condition/1", "/x", "/fhirx", "/fhir/$exports"]
    {
        let response = service.answer("GET", target, &["Prefer: respond-eventsource"]).await;
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.issue()["code"], "not-found");
    }
    let response = service.answer("GET", "/fhir/Widget/$export", &[]).await;
    assert!(response.diagnostics().contains("'Widget'"));
}

#[tokio::test]
async fn what_would_write_is_not_allowed() {
    let service = Service::start().await;
    for (method, target) in [
        ("PUT", "/fhir/$export"),
        ("DELETE", "/fhir/Condition/$export"),
        ("POST", "/fhir/metadata"),
        ("POST", "/fhir/"),
        ("POST", "/metrics"),
        ("DELETE", "/"),
    ] {
        let response = service.answer(method, target, &["Content-Length: 0"]).await;
        assert_eq!(response.status, 405, "{method} {target}");
        assert_eq!(response.header("allow").map(|allow| allow.replace(' ', "")).as_deref(), Some("GET,HEAD"));
        assert_eq!(response.issue()["code"], "not-supported");
    }
}

#[tokio::test]
async fn only_our_own_names_are_answered() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let service = Service::start_with(Settings { public_urls, ..Settings::default() }).await;
    let ask = async |target: &str, host: &str| {
        let mut client = service.connect().await;
        let request = format!(
            "GET {target} HTTP/1.1\r\n{host}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
        );
        client.write(request.as_bytes()).await;
        client.until("\r\n\r\n").await;
        Response::of(&client.read)
    };
    for host in ["Host: localhost", "Host: 127.0.0.1:80", "Host: [::1]:8080", "Host: FHIR.example.org"] {
        assert_eq!(ask("/fhir/$export", host).await.status, 200, "{host}");
    }
    for target in ["/fhir/$export", "/fhir/", "/fhir/metadata", "/", "/nothing"] {
        let response = ask(target, "Host: evil.example").await;
        assert_eq!(response.status, 421, "{target}");
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert_eq!(ask("http://evil.example/fhir/$export", "Host: localhost").await.status, 421);
    assert_eq!(ask("/fhir/$export", "X: y").await.status, 400);
    assert_eq!(ask("/fhir/$export", "Host: localhost\r\nHost: localhost").await.status, 400);
    for target in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(ask(target, "Host: 10.1.2.3:8080").await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn only_pages_of_a_public_url_may_read() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let service = Service::start_with(Settings { public_urls, ..Settings::default() }).await;
    for (origin, allowed) in [
        ("https://fhir.example.org", Some("https://fhir.example.org")),
        ("https://evil.example", None),
        ("http://localhost:3000", None),
    ] {
        let mut client = service
            .send("GET", "/fhir/$export", &["Accept: text/event-stream", &format!("Origin: {origin}")])
            .await;
        client.until("\r\n\r\n").await;
        assert_eq!(Response::of(&client.read).header("access-control-allow-origin"), allowed, "{origin}");
    }
}

#[tokio::test]
async fn unknown_parameters_are_named_or_when_lenient_ignored_and_named() {
    let mut service = Service::start().await;
    let strict = service.answer("GET", "/fhir/$export?foo=1&bar=2", &["Prefer: respond-eventsource"]).await;
    assert_eq!(strict.status, 400);
    assert!(strict.text().contains("foo") && strict.text().contains("bar"), "{}", strict.text());

    let (client, _stream) = service.stream("/fhir/$export?foo=1", &["Prefer: handling=lenient"]).await;
    let response = Response::of(&client.read);
    let start = response.text().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let start: serde_json::Value = serde_json::from_str(start).unwrap();
    assert!(start["issue"][0]["diagnostics"].as_str().unwrap().contains("ignored: foo"), "{start}");
}
