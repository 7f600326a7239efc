//! Negotiation, hosts, and permanent rejections.

use super::*;

#[tokio::test]
async fn unspecified_mode_is_rejected_with_both_ways_to_ask() {
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
async fn unimplemented_requests_get_501() {
    let service = Service::start().await;
    let stream = "Prefer: respond-eventsource";
    for (method, target, header) in [
        ("GET", "/fhir/$export", "Prefer: respond-async"),
        ("POST", "/fhir/$export", stream),
        ("POST", "/fhir/Group/g1/$export", stream),
    ] {
        let response = service.answer(method, target, &[header]).await;
        assert_eq!(response.status, 501, "{method} {target} {header}");
        assert_eq!(response.issue()["code"], "not-supported");
    }
}

#[tokio::test]
async fn unknown_paths_get_404() {
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
async fn writing_methods_get_405() {
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
async fn only_accepted_hosts_are_answered() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let service = Service::start_with(ServerSettings { public_urls, ..ServerSettings::default() }).await;
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
    for target in ["/fhir/$export", "/fhir/", "/fhir/metadata", "/", "/nothing", "/metrics"] {
        let response = ask(target, "Host: evil.example").await;
        assert_eq!(response.status, 421, "{target}");
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    for target in ["/fhir/$export", "/fhir/", "/"] {
        assert_eq!(ask(target, "Host: 10.1.2.3:8080").await.status, 421, "{target}");
    }
    assert_eq!(ask("http://evil.example/fhir/$export", "Host: localhost").await.status, 421);
    assert_eq!(ask("/fhir/$export", "X: y").await.status, 400);
    assert_eq!(ask("/fhir/$export", "Host: localhost\r\nHost: localhost").await.status, 400);
    for target in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(ask(target, "Host: 10.1.2.3:8080").await.status, 200, "{target}");
    }
}

/// In a container or a cluster it is seldom the name that the operator thinks of.
#[tokio::test]
async fn unknown_host_is_named_with_the_setting_that_accepts_it() {
    let service = Service::start().await;
    let ask = async |host: &str| {
        let mut client = service.connect().await;
        let request = format!("GET /fhir/$export HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        client.write(request.as_bytes()).await;
        client.rest().await
    };
    let told = ask("fhir-tail.ward.svc.cluster.local:8080").await;
    assert_eq!(told.status, 421);
    let flag = "--public-url http://fhir-tail.ward.svc.cluster.local:8080 ";
    assert!(told.diagnostics().contains(flag), "{}", told.diagnostics());
    // Whatever came, the answer is short and has no line ends.
    let long = ask(&"x".repeat(5_000)).await;
    assert_eq!(long.status, 421);
    assert!(long.diagnostics().len() < 700 && !long.diagnostics().contains('\n'), "{}", long.diagnostics());
    for odd in ["a\tb", "a\"b", "<script>", "caf\u{e9}", "a b"] {
        assert!([400, 421].contains(&ask(odd).await.status), "{odd}");
    }
}

/// A page whose name was made to point here may ask whether we are ready, and learns nothing else.
#[tokio::test]
async fn details_and_metrics_need_an_accepted_host_or_an_address() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let service = Service::start_with(ServerSettings { public_urls, ..ServerSettings::default() }).await;
    let ask = async |target: &str, hosts: &str| {
        let mut client = service.connect().await;
        client.write(format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n").as_bytes()).await;
        client.rest().await
    };
    for ours in ["localhost", "10.1.2.3:8080", "[2001:db8::7]:8080", "fhir.example.org", "127.0.0.1"] {
        let ready = ask("/health/ready", &format!("Host: {ours}\r\n")).await;
        assert!(ready.status == 200 && ready.text().contains("\"database\""), "{ours}: {}", ready.text());
        assert_eq!(ask("/metrics", &format!("Host: {ours}\r\n")).await.status, 200, "{ours}");
    }
    for (hosts, status) in [
        ("Host: evil.example\r\n", 421),
        ("Host: 10.1.2.3.evil.example:8080\r\n", 421),
        ("Host: 10.1.2.3\r\nHost: localhost\r\n", 400),
        ("", 400),
    ] {
        for connected in ["true", "false"] {
            service.connected.store(connected == "true", std::sync::atomic::Ordering::SeqCst);
            let ready = ask("/health/ready", hosts).await;
            assert_eq!(ready.status, if connected == "true" { 200 } else { 503 }, "{hosts}");
            assert_eq!(ready.text(), format!("{{\"ready\":{connected}}}"), "{hosts}");
        }
        assert_eq!(ask("/health/live", hosts).await.text(), "{\"live\":true}", "{hosts}");
        let metrics = ask("/metrics", hosts).await;
        assert!(metrics.status == status && !metrics.text().contains("fhir_tail_"), "{hosts}");
    }
}

#[tokio::test]
async fn preflight_lists_the_allowed_headers() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let mut service = Service::start_with(ServerSettings { public_urls, ..ServerSettings::default() }).await;
    let ours = "Origin: https://fhir.example.org";
    let asks = ["Access-Control-Request-Method: GET", "Access-Control-Request-Headers: last-event-id,prefer"];
    for target in ["/fhir/$export", "/fhir/Patient/$export?_type=Patient", "/fhir/metadata", "/nothing"] {
        let told = service.answer("OPTIONS", target, &[&[ours][..], &asks].concat()).await;
        assert_eq!(told.status, 204, "{target}");
        assert!(told.body.is_empty());
        assert_eq!(told.header("access-control-allow-origin"), Some("https://fhir.example.org"));
        assert_eq!(told.header("access-control-allow-methods"), Some("GET, HEAD"));
        let allowed = told.header("access-control-allow-headers").unwrap();
        assert_eq!(allowed, "Accept, Authorization, Content-Type, Last-Event-ID, Prefer");
        assert!(told.header("vary").unwrap().contains("Origin"));
        assert_eq!(told.header("access-control-allow-credentials"), None);
    }
    let exposed = "Preference-Applied, Retry-After, WWW-Authenticate";
    let (client, _stream) = service.stream("/fhir/$export", &[ours]).await;
    assert_eq!(Response::of(&client.read).header("access-control-expose-headers"), Some(exposed));
    let refused = service.answer("GET", "/fhir/$export", &[ours]).await;
    assert_eq!(refused.header("access-control-expose-headers"), Some(exposed));

    for (origin, asks) in [
        (&["Origin: https://evil.example"][..], &asks[..]),
        (&["Origin: null"], &asks),
        (&[], &asks),
        (&[ours, "Origin: https://evil.example"], &asks),
        // It asks for nothing: no browser sends it.
        (&[ours], &[]),
    ] {
        let told = service.answer("OPTIONS", "/fhir/$export", &[origin, asks].concat()).await;
        assert_eq!(told.status, 405, "{origin:?}");
        assert_eq!(told.header("access-control-allow-headers"), None);
        assert_eq!(told.header("allow"), Some("GET, HEAD"));
    }
    let mut client = service.connect().await;
    let foreign = format!("OPTIONS /fhir/ HTTP/1.1\r\nHost: evil.example\r\n{ours}\r\n{}\r\n\r\n", asks[0]);
    client.write(foreign.as_bytes()).await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 421 "));
}

/// Whatever the answer is, a browser takes it for nothing else, runs nothing of it, and embeds it nowhere.
#[tokio::test]
async fn every_response_has_the_browser_policy() {
    let service = Service::start().await;
    service.disconnect();
    let stream = "Accept: text/event-stream";
    for (method, target, headers, status) in [
        ("GET", "/", &[][..], 200),
        ("GET", "/page/main.js", &[], 200),
        ("GET", "/", &["If-None-Match: *"], 304),
        ("GET", "/fhir/", &["Accept: text/html"], 200),
        ("GET", "/fhir/metadata", &[], 200),
        ("GET", "/metrics", &[], 200),
        ("GET", "/health/live", &[], 200),
        ("GET", "/health/ready", &[], 503),
        ("GET", "/fhir/$export", &[stream], 200),
        ("HEAD", "/fhir/$export", &["Prefer: respond-eventsource"], 503),
        ("GET", "/fhir/$export", &[], 400),
        ("POST", "/fhir/$export", &[], 501),
        ("POST", "/", &[], 405),
        ("GET", "/nothing", &[], 404),
        ("GET", "/fhir/Widget/$export", &[], 404),
        ("GET", "/", &["Host: two.example"], 400),
    ] {
        let response = service.answer(method, target, headers).await;
        assert_eq!(response.status, status, "{method} {target}");
        restricted(&response, &format!("{method} {target}"));
    }
    let mut service = Service::start().await;
    let (client, _stream) = service.stream("/fhir/$export", &[]).await;
    restricted(&Response::of(&client.read), "a stream");
    let mut client = service.connect().await;
    client.write(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    restricted(&client.rest().await, "another name");
}

fn restricted(response: &Response, what: &str) {
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{what}");
    assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"), "{what}");
    assert_eq!(response.header("referrer-policy"), Some("no-referrer"), "{what}");
    let policies: Vec<_> =
        response.headers.iter().filter(|(name, _)| name == "content-security-policy").collect();
    let [(_, policy)] = policies.as_slice() else { panic!("{what}: {policies:?}") };
    for rule in ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(policy.split("; ").any(|there| there == rule), "{what}: {policy}");
    }
}

#[tokio::test]
async fn only_origins_of_public_urls_get_cors_headers() {
    let public_urls = vec!["https://fhir.example.org".parse().unwrap()];
    let service = Service::start_with(ServerSettings { public_urls, ..ServerSettings::default() }).await;
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
