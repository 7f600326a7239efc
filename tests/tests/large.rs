//! What large rows cost in memory: at most three times their size, however many clients there are, and not for long.

use crate::wire::{EVENTS, says};
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;
use tests::sse::{Item, Parser};
use tests::{Case, Client, Context, SOON, Site, Subscribe, cases, http, until, within};
use tokio::task::JoinSet;

pub(crate) fn cases() -> Vec<Case> {
    cases![once a_large_row_is_in_memory_at_most_three_times]
}

const MEGABYTE: u64 = 1 << 20;
const ROW: u64 = 32 * MEGABYTE;
const CLIENTS: usize = 10;
/// What is not of the row: what clients have in hand, the journal's memory and caches, the allocator.
const SLACK: u64 = 32 * MEGABYTE;

/// Inserts resources of about the size, which cannot be compressed much, in one transaction.
async fn insert(site: &Site, ids: &[&str]) -> Result<()> {
    let sums = ROW / 32;
    let ids: Vec<String> = ids.iter().map(|id| format!("('{id}')")).collect();
    let insert = format!(
        "insert into fhir.resource (resource_type, id, content) \
         select 'Binary', id, ('{{\"resourceType\":\"Binary\",\"data\":\"' || sums || '\"}}')::json \
         from (values {}) ids(id), (select string_agg(md5(i::text), '') sums from generate_series(1, {sums}) i) s",
        ids.join(", ")
    );
    site.sql.batch_execute(&insert).await?;
    Ok(())
}

/// Reads up to the resource with the id, or to `live`; the ids of the resources that came, all of them whole.
async fn hears(mut response: http::Response, last: &'static str) -> Result<(http::Response, Vec<String>)> {
    let (mut parser, mut heard) = (Parser::default(), Vec::new());
    loop {
        let bytes = within("bytes", SOON * 2, response.next()).await?.context("the stream ended")?;
        parser.push(&bytes);
        while let Some(item) = parser.next_item() {
            let Item::Frame(frame) = item else { continue };
            if says(&frame, "live") && last == "live" {
                return Ok((response, heard));
            }
            if frame.get("event").as_deref() != Some("Binary") {
                continue;
            }
            let data = frame.get("data").context("no data")?;
            ensure!(data.len() as u64 > ROW && data.ends_with("\"}"), "{} bytes", data.len());
            let (_, id) = data[..400].split_once("\"id\":\"").context("no id at its beginning")?;
            let id = id.split_once('"').context("no end of the id")?.0.to_owned();
            heard.push(id.clone());
            if id == last {
                return Ok((response, heard));
            }
        }
    }
}

/// All of them hear the same.
async fn all_hear(
    responses: Vec<http::Response>,
    last: &'static str,
    expected: &[&str],
) -> Result<Vec<http::Response>> {
    let mut tasks = JoinSet::new();
    for response in responses {
        tasks.spawn(hears(response, last));
    }
    let mut all = Vec::new();
    while let Some(heard) = tasks.join_next().await {
        let (response, ids) = heard??;
        ensure!(ids == expected, "{ids:?} instead of {expected:?}");
        all.push(response);
    }
    Ok(all)
}

#[allow(clippy::print_stderr, reason = "a figure for whoever runs it")]
async fn a_large_row_is_in_memory_at_most_three_times(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let first = site.live(Subscribe::with(Client::Raw, "_type=Binary")).await?;
    let first = first.last_id.context("no id")?;
    let ask = async |count: usize, query: &str, headers: &str| {
        let mut responses = Vec::new();
        for _ in 0..count {
            responses.push(http::get(at, &format!("/fhir/$export?_type=Binary{query}"), headers).await?);
        }
        Ok::<_, anyhow::Error>(responses)
    };
    let before = site.server.memory()?;
    let live = ask(CLIENTS, "&_since=2999-01-01T00:00:00Z", EVENTS).await?;
    // Until they are live the row would come to some of them in a replay.
    until("the streams", SOON, || async {
        let open = site.metric("fhir_tail_streams_open").await?;
        Ok((open >= CLIENTS as f64).then_some(()))
    })
    .await?;
    insert(&site, &["one"]).await?;
    let live = all_hear(live, "one", &["one"]).await?;
    let resume = format!("{EVENTS}Last-Event-ID: {first}\r\n");
    all_hear(ask(CLIENTS, "", &resume).await?, "one", &["one"]).await?;
    site.settle().await?;
    all_hear(ask(4, "", EVENTS).await?, "live", &["one"]).await?;
    // All at once: two in a transaction for the live, and the first in replays.
    let replays = ask(4, "", EVENTS).await?;
    insert(&site, &["two", "three"]).await?;
    let (heard, replayed) =
        tokio::join!(all_hear(live, "three", &["two", "three"]), all_hear(replays, "one", &["one"]));
    drop((heard?, replayed?));

    let peak = site.server.peak_memory()?;
    eprintln!(
        "rows of {} MB: {} MB before, {} MB at most, {} MB after",
        ROW / MEGABYTE,
        before / MEGABYTE,
        peak / MEGABYTE,
        site.server.memory()? / MEGABYTE
    );
    ensure!(peak - before < 3 * ROW + SLACK, "{before} bytes before, {peak} at most");
    until("the memory to be given back", Duration::from_secs(30), || async {
        Ok((site.server.memory()? < before + 2 * SLACK).then_some(()))
    })
    .await
}
