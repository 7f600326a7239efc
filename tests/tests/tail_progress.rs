//! What `fhir-tail tail` shows: how far a replay is, where it resumed, and metrics.

use crate::documents::TAIL;
use crate::tail::{fill, is_live};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use tests::markdown::Document;
use tests::tail::{Tail, state};
use tests::{Case, Context, Proxy, SOON, Site, Target, cases, http, metric, until};
use tokio::net::TcpStream;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_replay_begins_with_estimates,
        once it_says_how_far_it_is_and_where_it_resumed,
        once the_metrics_are_those_of_the_document,
    ]
}

/// What the database estimates, of each type; `None`: no notice came before `live`.
async fn estimates(site: &Site, path: &str) -> Result<Option<BTreeMap<String, f64>>> {
    let at = site.server.listening()?;
    let mut response = http::get(at, path, "Prefer: respond-eventsource\r\n").await?;
    ensure!(response.status == 200, "{path}: {}", response.status);
    let mut text = String::new();
    while !text.contains(r#""code":"live""#) {
        let more = response.next().await?.context("the stream ended")?;
        text.push_str(std::str::from_utf8(&more)?);
    }
    let notices: Vec<_> = text.lines().filter(|line| line.contains(r#""code":"position""#)).collect();
    let [notice] = &notices[..] else {
        ensure!(notices.is_empty(), "{notices:?}");
        return Ok(None);
    };
    // Before the first resource.
    let (before, _) = text.split_once(notice).context("no notice")?;
    ensure!(before.matches("event: ").count() == 2, "{before}");
    let notice: serde_json::Value = serde_json::from_str(notice.trim_start_matches("data: "))?;
    let extensions = notice["issue"][0]["extension"].as_array().context("no extension")?;
    let of_type = |extension: &serde_json::Value| {
        let parts = extension["extension"].as_array()?;
        Some((parts[0]["valueCode"].as_str()?.to_owned(), parts[1]["valueDecimal"].as_f64()?))
    };
    Ok(Some(extensions.iter().map(of_type).collect::<Option<_>>().context("not an estimate")?))
}

async fn a_replay_begins_with_estimates(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.sql.batch_execute("alter table fhir.resource set (autovacuum_enabled = false)").await?;
    fill(&site, 40).await?;
    // Nothing is known yet.
    ensure!(estimates(&site, "/fhir/$export").await?.is_none(), "an estimate of nothing");
    site.sql.batch_execute("analyze fhir.resource").await?;
    let all = ["Condition", "Observation", "Patient"].map(|name| (name.to_owned(), 40.0));
    ensure!(estimates(&site, "/fhir/$export").await? == Some(all.into()), "not what was analyzed");
    let some = estimates(&site, "/fhir/$export?_type=Patient,Basic").await?;
    ensure!(some == Some([("Patient".to_owned(), 40.0)].into()), "{some:?}");
    // What was written since counts by what it takes.
    let more = "insert into fhir.resource (resource_type, id, content) \
                select 'Patient', 'g' || i, format('{\"resourceType\":\"Patient\",\"n\":%s}', i)::json \
                from generate_series(1, 20000) i";
    site.sql.batch_execute(more).await?;
    let grown = estimates(&site, "/fhir/$export?_type=Patient").await?.context("no estimate")?;
    ensure!(grown["Patient"] > 400.0, "{grown:?}");
    // Of these nobody has an estimate.
    for path in [
        "/fhir/$export?_since=2020-01-01T00:00:00Z&_type=Condition",
        "/fhir/$export?_type=Basic",
        "/fhir/Patient/f1/$export",
        "/fhir/Patient/$export?_type=Condition",
    ] {
        ensure!(estimates(&site, path).await?.is_none(), "{path} has estimates");
    }
    Ok(())
}

/// One that was killed within the replay, and its folder.
async fn killed_in_the_replay(context: &Context, url: &str) -> Result<(Tail, PathBuf)> {
    for attempt in 0..20 {
        let within = context.within(&format!("attempt-{attempt}"))?;
        let output = within.directory().join("output");
        let shown = output.display().to_string();
        let mut tail = Tail::new(within.directory(), url, &["--output", &shown, "--sync-interval", "0ms"])?;
        tail.start()?;
        until("a line in the files", SOON, || {
            let state = state(&output.join("state.json"));
            async move { Ok(state?.filter(|state| state["position"]["lines"].is_u64())) }
        })
        .await?;
        tail.kill().await?;
        if !is_live(&output)? {
            return Ok((tail, output));
        }
    }
    bail!("it was always live before it could be killed")
}

async fn it_says_how_far_it_is_and_where_it_resumed(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    fill(&site, 6_000).await?;
    site.sql.batch_execute("analyze fhir.resource").await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let (mut tail, output) = killed_in_the_replay(&context, &url).await?;
    let log = tail.log()?;
    ensure!(log.contains("the current state comes: about 18,000 resources"), "{log}");
    ensure!(!log.contains("resumes"), "{log}");
    let lines = state(&output.join("state.json"))?.context("no state")?["position"]["lines"].clone();
    let lines = lines.as_u64().context("no lines")?;
    tail.start()?;
    until("it to be live", SOON, || {
        let live = is_live(&output);
        async move { Ok(live?.then_some(())) }
    })
    .await?;
    ensure!(tail.terminate(SOON).await?.success(), "{}", tail.log()?);
    let log = tail.log()?.replace(',', "");
    ensure!(log.contains(&format!("resumes after line {lines} within the current state")), "{log}");
    let per_cent = lines * 100 / 18_000;
    ensure!(log.contains(&format!("goes on at {per_cent} % of about 18000 resources")), "{log}");
    tail.start()?;
    until("it to resume", SOON, || {
        let log = tail.log();
        async move { Ok(log?.contains("it was live as of 20").then_some(())) }
    })
    .await?;
    Ok(())
}

/// Where its metrics are, as it says.
async fn address(tail: &Tail) -> Result<SocketAddr> {
    until("the address of the metrics", SOON, || {
        let log = tail.log();
        async move {
            let log = log?;
            let Some((_, rest)) = log.rsplit_once("metrics are at http://") else { return Ok(None) };
            Ok(rest.split_once("/metrics").and_then(|(address, _)| address.parse().ok()))
        }
    })
    .await
}

async fn the_metrics_are_those_of_the_document(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "p1").await?;
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let output = context.directory().join("output").display().to_string();
    let url = format!("http://{}/fhir?_heartbeat=2", proxy.address());
    let mut tail = Tail::new(context.directory(), &url, &["--output", &output, "--metrics", "0"])?;
    tail.start()?;
    let at = address(&tail).await?;
    ensure!(at.ip().is_loopback(), "{at}");
    let is =
        |name: &'static str, wanted: fn(f64) -> bool| {
            until(name, SOON, move || async move {
                Ok(Some(metric(at, name).await?).filter(|value| wanted(*value)))
            })
        };
    let upserts = r#"fhir_tail_client_events_total{op="upsert"}"#;
    is(upserts, |count| count >= 1.0).await?;
    is("fhir_tail_client_connected", |is| is == 1.0).await?;
    is("fhir_tail_client_last_event_timestamp_seconds", |time| time > 1e9).await?;
    is("fhir_tail_client_bytes_total", |bytes| bytes > 100.0).await?;
    site.delete("Patient", "p1").await?;
    is(r#"fhir_tail_client_events_total{op="delete"}"#, |count| count == 1.0).await?;
    proxy.cut();
    is("fhir_tail_client_reconnects_total", |count| count >= 1.0).await?;
    // A comment line every two seconds says that there is nothing else.
    is("fhir_tail_client_seconds_behind", |seconds| seconds < 5.0).await?;
    site.settle().await?;
    site.server.terminate(SOON).await?;
    is("fhir_tail_client_seconds_behind", |seconds| seconds > 5.0).await?;
    is("fhir_tail_client_connected", |is| is == 0.0).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    site.server.start().await?;
    is(r#"fhir_tail_client_resets_total{code="reset-all"}"#, |count| count == 1.0).await?;
    is("fhir_tail_client_seconds_behind", |seconds| seconds < 5.0).await?;

    let text = String::from_utf8(http::get(at, "/metrics", "").await?.body().await?)?;
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rows = Document::read(TAIL)?.rows();
    let documented: BTreeSet<&str> = rows
        .iter()
        .filter_map(|row| row[0].strip_prefix("`fhir_tail_client_").map(|_| row[0].trim_matches('`')))
        .map(|name| name.split('{').next().unwrap_or_default())
        .collect();
    ensure!(shown == documented, "{TAIL} has {documented:?}, there are {shown:?}");
    ensure!(http::get(at, "/", "").await?.status == 404);
    // Connections that ask for nothing keep nobody out for long.
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(TcpStream::connect(at).await?);
    }
    is("fhir_tail_client_connected", |is| is == 1.0).await?;
    drop(idle);
    // Its address is taken: said, and the end.
    let within = context.within("taken")?;
    let mut other = Tail::new(within.directory(), &url, &["--metrics", &at.to_string()])?;
    other.start()?;
    let status = other.exited(SOON).await?;
    let log = other.log()?;
    ensure!(status.code() == Some(1) && log.contains("--metrics"), "{status}: {log}");
    Ok(())
}
