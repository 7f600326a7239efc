//! The bytes on the wire: heads, frames and refusals, over a raw socket.

use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use tests::http::{self, Response};
use tests::sse::{Frame, Item, Parser};
use tests::{Binary, Case, Client, Context, SOON, Site, Subscribe, cases, within};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each the_first_events_byte_for_byte,
        once ways_of_asking,
        once head_sends_headers_and_nothing_else,
        once refusals,
        once other_names_in_host_are_refused,
        once a_quiet_stream_gets_comment_lines,
        once nothing_but_loopback_without_authorization,
        once health_and_metrics,
    ]
}

pub(crate) const EVENTS: &str = "Prefer: respond-eventsource\r\nAccept: application/fhir+json\r\n";

/// Reads frames until one satisfies.
pub(crate) async fn frames(
    response: &mut Response,
    last: impl Fn(&Frame) -> bool,
) -> Result<(Vec<u8>, Vec<Frame>)> {
    let (mut bytes, mut parser, mut frames) = (Vec::new(), Parser::default(), Vec::new());
    let read = async {
        loop {
            while let Some(item) = parser.next_item() {
                let Item::Frame(frame) = item else { continue };
                let enough = last(&frame);
                frames.push(frame);
                if enough {
                    return Ok(());
                }
            }
            let more = response.next().await?.context("the stream ended")?;
            parser.push(&more);
            bytes.extend_from_slice(&more);
        }
    };
    within("frames", SOON, read).await?;
    Ok((bytes, frames))
}

pub(crate) fn says(frame: &Frame, code: &str) -> bool {
    frame.get("data").is_some_and(|data| data.contains(&format!(r#""code":"{code}""#)))
}

async fn the_first_events_byte_for_byte(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    // Keys in an order of their own, a decimal with a nought at its end, white space, a line end, and a meta of which all
    // but version and time stays.
    let stored = "{ \"resourceType\" : \"Observation\",\n \"status\":\"final\",\"valueQuantity\":{\"value\":1.50},\
                  \"id\":\"other\",\"meta\":{\"profile\":[\"urn:x\"],\"versionId\":\"99\"}}";
    let insert = "insert into fhir.resource (resource_type, id, content) values ('Observation', 'o1', ($1::text)::json) \
                  returning version_id, to_char(last_updated at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let row = site.sql.query_one(insert, &[&stored]).await?;
    let (version, updated): (i64, String) = (row.get(0), row.get(1));

    let mut response = http::get(site.server.listening()?, "/fhir/$export", EVENTS).await?;
    let head = String::from_utf8(response.head.clone())?;
    let date = response.header("date").context("no date")?;
    let mut lines: BTreeSet<&str> = head.trim_end().lines().collect();
    ensure!(lines.remove(format!("date: {date}").as_str()), "{head}");
    let expected = BTreeSet::from([
        "HTTP/1.1 200 OK",
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "vary: Accept, Prefer, Origin",
        "preference-applied: respond-eventsource",
        "connection: close",
        "transfer-encoding: chunked",
    ]);
    ensure!(lines == expected, "{head}");

    let (bytes, frames) = frames(&mut response, |frame| says(frame, "live")).await?;
    let text = String::from_utf8(bytes)?;
    let [start, change, live] = &frames[..] else { anyhow::bail!("not three frames: {text}") };
    let retry: u32 = start.get("retry").context("no retry")?.parse()?;
    ensure!((1_000..=4_000).contains(&retry), "retry: {retry}");
    ensure!(says(start, "start") && start.get("event").as_deref() == Some("OperationOutcome"), "{start:?}");
    let ids: Vec<String> = frames.iter().filter_map(|frame| frame.get("id")).collect();
    let data = change.get("data").context("no data")?;
    let meta: serde_json::Value = serde_json::from_str(&data)?;
    ensure!(meta["meta"]["versionId"] == version.to_string().as_str(), "{data}");
    ensure!(meta["meta"]["lastUpdated"] == updated.as_str(), "{data} was stamped {updated}");
    ensure!(meta["id"] == "o1" && meta["meta"]["profile"] == serde_json::json!(["urn:x"]), "{data}");
    ensure!(data.contains("\"valueQuantity\":{\"value\":1.50}"), "{data}");
    ensure!(data.starts_with("{ \"resourceType\" : \"Observation\""), "{data}");
    // And nothing else on the wire than these fields in this order.
    let expected = format!(
        "retry: {retry}\nid: {}\nevent: OperationOutcome\ndata: {}\n\nid: {}\nevent: Observation\ndata: {data}\n\n\
         id: {}\nevent: OperationOutcome\ndata: {}\n\n",
        ids[0],
        start.get("data").context("no data")?,
        ids[1],
        ids[2],
        live.get("data").context("no data")?,
    );
    ensure!(text == expected, "{text}\nis not\n{expected}");
    ensure!(
        ids.iter().all(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')),
        "{ids:?}"
    );

    site.delete("Observation", "o1").await?;
    let (bytes, _) =
        self::frames(&mut response, |frame| frame.get("event").as_deref() == Some("Bundle")).await?;
    let text = String::from_utf8(bytes)?;
    let data = text.split_once("event: Bundle\ndata: ").context("no Bundle")?.1.trim_end();
    let bundle: serde_json::Value = serde_json::from_str(data)?;
    ensure!(bundle.get("id").is_none(), "what we make has no id: {data}");
    ensure!(
        bundle["entry"][0]["request"] == serde_json::json!({"method": "DELETE", "url": "Observation/o1"}),
        "{data}"
    );
    Ok(())
}

async fn ways_of_asking(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let at = site.server.listening()?;
    for (headers, applied) in [
        ("Accept: text/event-stream\r\n", false),
        ("Prefer: RESPOND-eventsource; x=1\r\nAccept: application/fhir+json\r\n", true),
        ("Prefer: handling=lenient\r\nPrefer: respond-async, respond-eventsource\r\n", true),
    ] {
        for target in [
            "/fhir/$export",
            "/fhir/%24export?_type=Patient",
            "/fhir/Patient%2F$export/..",
            "/fhir/Group/$export",
        ] {
            // The last two are no way of asking.
            let fine = target.starts_with("/fhir/$") || target.starts_with("/fhir/%24");
            let mut response = http::get(at, target, headers).await?;
            ensure!((response.status == 200) == fine, "{target} {headers}: {}", response.status);
            if fine {
                let is = response.header("preference-applied");
                ensure!(is == applied.then_some("respond-eventsource"), "{headers}: {is:?}");
                frames(&mut response, |frame| says(frame, "start")).await?;
            }
        }
    }
    // HTTP/1.0: no chunks, and the connection's end is the end.
    let request = format!("GET /fhir/$export HTTP/1.0\r\nHost: {at}\r\n{EVENTS}\r\n");
    let mut response = http::send(at, &request).await?;
    ensure!(response.status == 200 && response.header("transfer-encoding").is_none(), "HTTP/1.0");
    frames(&mut response, |frame| says(frame, "live")).await?;
    Ok(())
}

async fn head_sends_headers_and_nothing_else(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let ask = |method: &str| {
        format!("{method} /fhir/$export HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{EVENTS}\r\n")
    };
    let mut head = http::send(at, &ask("HEAD")).await?;
    ensure!(head.status == 200, "{}", head.status);
    let got = http::send(at, &ask("GET")).await?;
    for name in ["content-type", "cache-control", "x-accel-buffering", "vary", "preference-applied"] {
        ensure!(head.header(name).is_some() && head.header(name) == got.header(name), "{name}");
    }
    ensure!(within("the end", SOON, head.closes()).await?, "something follows the head");
    let metrics = metrics(&site).await?;
    ensure!(!metrics.is_empty(), "no metrics");
    Ok(())
}

async fn refusals(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.ready().await?;
    let at = site.server.listening()?;
    let async_only = "Prefer: respond-async\r\n";
    let html = "Accept: */*\r\n";
    let lenient = "Prefer: respond-eventsource, handling=lenient\r\n";
    // Status, and what the OperationOutcome must name.
    let table: &[(&str, &str, u16, &[&str])] = &[
        ("/fhir/$export", html, 400, &["respond-eventsource", "text/event-stream"]),
        ("/fhir/$export", "", 400, &["respond-eventsource", "text/event-stream"]),
        ("/fhir/$export", async_only, 501, &["respond-async"]),
        ("/fhir/$export?colour=red&_shape=1", EVENTS, 400, &["colour", "_shape"]),
        ("/fhir/$export?_type=Patient,Patent", EVENTS, 400, &["Patent"]),
        ("/fhir/$export?_since=2026-01-01", EVENTS, 400, &["_since"]),
        ("/fhir/$export?_since=yesterday", EVENTS, 400, &["_since"]),
        ("/fhir/$export?_heartbeat=1", EVENTS, 400, &["_heartbeat"]),
        ("/fhir/$export?_heartbeat=61", EVENTS, 400, &["_heartbeat"]),
        ("/fhir/$export?_lastEventId=never-ours", EVENTS, 400, &["_lastEventId"]),
        ("/fhir/$export?_type=Patent", lenient, 400, &["_type"]),
        ("/fhir/Patent/$export", EVENTS, 404, &["Patent"]),
        ("/fhir/Patient/nobody/$export", EVENTS, 404, &["nobody"]),
        ("/fhir/Patient/$export?patient=Patient/nobody", EVENTS, 400, &["patient", "nobody"]),
        ("/fhir/Patient/$export?_type=Location", EVENTS, 400, &["_type", "Location"]),
        ("/fhir/$export?patient=1", EVENTS, 400, &["patient"]),
        ("/fhir/Group/none/$export", EVENTS, 404, &["none"]),
        ("/fhir/Group/$export", EVENTS, 404, &["_type=Group"]),
        ("/fhir/nothing/here", EVENTS, 404, &[]),
    ];
    for (target, headers, status, names) in table {
        let mut response = http::get(at, target, headers).await?;
        ensure!(response.status == *status, "{target} {headers:?}: {} instead of {status}", response.status);
        let kind = response.header("content-type").unwrap_or_default().to_owned();
        ensure!(kind.starts_with("application/fhir+json"), "{target}: {kind}");
        let outcome = response.json().await?;
        ensure!(
            outcome["resourceType"] == "OperationOutcome" && outcome.get("id").is_none(),
            "{target}: {outcome}"
        );
        let text = outcome.to_string();
        ensure!(names.iter().all(|name| text.contains(name)), "{target}: {text} does not name {names:?}");
    }
    // What is unknown is passed over if that is asked for, and named.
    let mut response = http::get(at, "/fhir/$export?colour=red", lenient).await?;
    ensure!(response.status == 200, "lenient: {}", response.status);
    let (_, start) = frames(&mut response, |frame| says(frame, "start")).await?;
    ensure!(
        start[0].get("data").is_some_and(|data| data.contains("colour")),
        "start does not name it: {start:?}"
    );
    let post = format!("POST /fhir/$export HTTP/1.1\r\nHost: {at}\r\n{EVENTS}Content-Length: 0\r\n\r\n");
    ensure!(http::send(at, &post).await?.status == 501, "POST");
    Ok(())
}

async fn other_names_in_host_are_refused(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let port = at.port();
    let ask = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{EVENTS}\r\n");
    for (target, host, status) in [
        ("/fhir/$export", format!("evil.example:{port}"), 421),
        ("/fhir/$export", "127.0.0.1.evil.example".to_owned(), 421),
        ("/fhir/", format!("192.168.0.1:{port}"), 421),
        ("/fhir/$export", format!("localhost:{port}"), 200),
        ("/fhir/$export", "[::1]:1".to_owned(), 200),
        ("/fhir/$export", format!("LOCALHOST:{port}"), 200),
        ("/metrics", "prometheus.example".to_owned(), 421),
        ("/metrics", "10.0.0.1:8080".to_owned(), 200),
        ("/health/live", "10.0.0.1:8080".to_owned(), 200),
        ("/health/live", "anything.example".to_owned(), 200),
    ] {
        let response = http::send(at, &ask(target, &host)).await?;
        ensure!(response.status == status, "{target} at {host}: {} instead of {status}", response.status);
    }
    site.ready().await?;
    for (host, details) in [("anything.example", false), ("10.0.0.1:8080", true)] {
        let mut response = http::send(at, &ask("/health/ready", host)).await?;
        ensure!(response.status == 200, "{host}: {}", response.status);
        let body = response.json().await?;
        ensure!(body["ready"] == true && body["database"].is_object() == details, "{host}: {body}");
    }
    for _ in 0..100 {
        http::send(at, &ask("/fhir/", "ward-7.example:8080")).await?;
    }
    let log = site.server.log()?;
    ensure!(log.contains("--public-url http://"), "the log does not say what would help:\n{log}");
    let told = log.matches("a request named an unknown host").count();
    ensure!(told < 20, "the log says it {told} times");
    Ok(())
}

async fn a_quiet_stream_gets_comment_lines(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let mut response = http::get(site.server.listening()?, "/fhir/$export?_heartbeat=2", EVENTS).await?;
    frames(&mut response, |frame| says(frame, "live")).await?;
    let (mut comments, mut bytes) = (0, Vec::new());
    while comments < 2 {
        let more = within("a comment", SOON, response.next()).await?.context("the stream ended")?;
        bytes.extend(more);
        comments = String::from_utf8_lossy(&bytes).lines().filter(|line| line.starts_with(':')).count();
    }
    let text = String::from_utf8(bytes)?;
    ensure!(
        text.lines().all(|line| line.starts_with(':')),
        "an empty line would be an event to some: {text:?}"
    );
    // A frame right after a comment is whole.
    site.put("Patient", "p").await?;
    let (bytes, _) = frames(&mut response, |frame| frame.get("event").as_deref() == Some("Patient")).await?;
    ensure!(bytes.starts_with(b"id: ") || bytes.starts_with(b":"), "{bytes:?}");
    Ok(())
}

async fn nothing_but_loopback_without_authorization(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    let url = site.cluster.url("fhir_tail");
    let data = context.directory().join("elsewhere").display().to_string();
    let arguments = ["serve", "--database-url", &url, "--data-dir", &data, "--listen", "0.0.0.0:0"];
    let output = tokio::task::spawn_blocking({
        let arguments = arguments.map(str::to_owned);
        move || Binary::find()?.run(&arguments.each_ref().map(String::as_str))
    });
    let output = within("the refusal", SOON, async { output.await? }).await?;
    let wrote = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it serves the world: {wrote}");
    ensure!(wrote.contains("insecure-no-auth"), "the way out is not named: {wrote}");
    Ok(())
}

async fn metrics(site: &Site) -> Result<String> {
    let mut response = http::get(site.server.listening()?, "/metrics", "").await?;
    ensure!(response.status == 200, "/metrics: {}", response.status);
    Ok(String::from_utf8(response.body().await?)?)
}

async fn health_and_metrics(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let live = site.live(Subscribe::all(Client::Raw)).await?;
    let ready = http::get(at, "/health/ready", "").await?;
    ensure!(ready.status == 200, "ready: {}", ready.status);
    let text = metrics(&site).await?;
    let open =
        text.lines().any(|line| !line.starts_with('#') && line.contains("open") && line.ends_with(" 1"));
    ensure!(open, "no metric says that one stream is open:\n{text}");
    drop(live);
    // Without its database it lives, but is not ready.
    site.cluster.stop_fast().await?;
    tests::until("unready", SOON, || async {
        Ok((http::get(at, "/health/ready", "").await?.status == 503).then_some(()))
    })
    .await?;
    ensure!(http::get(at, "/health/live", "").await?.status == 200, "live");
    site.cluster.start_again().await?;
    tests::until("ready again", SOON, || async {
        Ok((http::get(at, "/health/ready", "").await?.status == 200).then_some(()))
    })
    .await?;
    Ok(())
}
