//! Routes other than streams.

use super::*;

#[tokio::test]
async fn url_list_is_text_or_html() {
    let service = Service::start().await;
    for target in ["/fhir/", "/fhir"] {
        let response = service.answer("GET", target, &[]).await;
        assert_eq!(response.status, 200);
        assert!(response.header("content-type").unwrap().starts_with("text/plain"));
        assert!(response.text().contains("/fhir/$export") && response.text().contains("curl -N"));
    }
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let response = service.answer("GET", "/fhir/", &[browser]).await;
    assert!(response.header("content-type").unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn the_page_keeps_to_itself() {
    let service = Service::start().await;
    for (path, media_type) in
        [("/", "text/html"), ("/page/main.js", "text/javascript"), ("/page/style.css", "text/css")]
    {
        let response = service.answer("GET", path, &[]).await;
        assert_eq!(response.status, 200);
        assert!(response.header("content-type").unwrap().starts_with(media_type));
        let policy = response.header("content-security-policy").unwrap();
        for rule in
            ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.split("; ").any(|there| there == rule), "{policy}");
        }
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(response.header("cache-control"), Some("no-cache"));
    }
    assert_eq!(service.answer("GET", "/page/", &[]).await.status, 404);
    assert_eq!(service.answer("GET", "/page/index.html", &[]).await.status, 404);
    assert_eq!(service.answer("GET", "/", &["Host: elsewhere.example"]).await.status, 400);
    assert_eq!(service.answer("POST", "/", &[]).await.status, 405);
}

#[tokio::test]
async fn a_browser_that_has_the_page_does_not_get_it_again() {
    let service = Service::start().await;
    let first = service.answer("GET", "/", &[]).await;
    let tag = first.header("etag").unwrap();
    for (asked, status) in
        [(tag.to_owned(), 304), (format!("\"other\", W/{tag}"), 304), ("\"other\"".to_owned(), 200)]
    {
        let response = service.answer("GET", "/", &[&format!("If-None-Match: {asked}")]).await;
        assert_eq!(response.status, status, "{asked}");
        assert_eq!(response.header("etag"), Some(tag));
        assert_eq!(response.body.is_empty(), status == 304);
    }
}

#[tokio::test]
async fn metadata_is_a_capability_statement() {
    let service = Service::start().await;
    let response = service.answer("GET", "/fhir/metadata", &[]).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/fhir+json"));
    let statement: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(statement["resourceType"], "CapabilityStatement");
    assert_eq!(statement["implementation"]["url"], "http://localhost/fhir");
}

#[tokio::test]
async fn liveness_and_readiness_differ() {
    let service = Service::start().await;
    let ready = service.answer("GET", "/health/ready", &[]).await;
    assert_eq!(ready.status, 200);
    let details: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!(details["database"]["connected"], true);

    service.disconnect();
    assert_eq!(service.answer("GET", "/health/ready", &[]).await.status, 503);
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
}

#[tokio::test]
async fn metrics_count_streams_and_rejections() {
    let mut service = Service::start().await;
    let (client, stream) = service.stream("/fhir/$export", &[]).await;
    stream.send(crate::scripted_feed::change("x", fhir::ResourceType::PATIENT, b"{}"));
    let mut client = client;
    client.until("{}\n\n").await;
    drop(client);
    stream.dropped().await;
    service.answer("GET", "/fhir/$export", &[]).await;
    let response = service.answer("GET", "/metrics", &[]).await;
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4"));
    for sample in [
        "fhir_tail_streams_open 0",
        "fhir_tail_streams_ended_total{reason=\"client\"} 1",
        "fhir_tail_events_sent_total{type=\"Patient\"} 1",
        "fhir_tail_notices_sent_total{code=\"start\"} 1",
        "fhir_tail_refusals_total{status=\"400\"} 1",
        "fhir_tail_source_connected 1",
    ] {
        assert!(response.text().lines().any(|line| line == sample), "{sample}\n{}", response.text());
    }
}

#[tokio::test]
async fn headers_are_short() {
    let service = Service::start().await;
    let mut client = service.connect().await;
    let long = "x".repeat(20_000);
    client.write(format!("GET /fhir/ HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").as_bytes()).await;
    assert!(client.until("\r\n").await.starts_with("HTTP/1.1 431 "));
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
}
