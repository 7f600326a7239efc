//! Clients that read nothing, or next to nothing: hundreds of them keep nobody waiting, and lose nothing.

use crate::slow::fill;
use crate::wire::{EVENTS, says};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::time::Duration;
use tests::sse::{Frame, Item, Parser};
use tests::{Case, Client, Context, SOON, Site, Subscribe, cases, http, until, within};
use tokio::time::sleep;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once stalled_replays_keep_no_replay_waiting,
        once slow_replays_keep_no_replay_waiting,
        once stalled_resumes_keep_nobody_from_following,
    ]
}

/// Each holds a resource of 100 KB at least, which is more than there is room for in all.
const STALLED: usize = 400;
const RESOURCES: usize = 100;

/// A server that drops no client for being slow alone, and resources.
async fn site(context: &Context) -> Result<Site> {
    let mut site = Site::prepare(context, &[], &["--client-timeout", "1h"]).await?;
    site.server.start().await?;
    Ok(site)
}

/// Clients that ask, and read the head of the answer.
async fn stalled(site: &Site, headers: &str) -> Result<Vec<http::Response>> {
    let at = site.server.listening()?;
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(http::get_with_little_room(at, "/fhir/Basic/$export", headers).await?);
    }
    Ok(stalled)
}

/// Waits until every client has as much as it takes: nothing more is sent.
async fn all_stand_still(site: &Site) -> Result<()> {
    let sent = async || site.metric("fhir_tail_bytes_sent_total").await;
    until("the stalled clients to stand still", SOON, || async {
        let before = sent().await?;
        // The pace of looking: what still moves shows within it.
        sleep(Duration::from_millis(500)).await;
        Ok((sent().await? == before).then_some(()))
    })
    .await
}

/// What a client hears up to `live`, or to the resource that it waits for, resuming whenever it is dropped. Nothing may come
/// twice.
async fn hears_all(site: &Site, mut response: http::Response, last: &str) -> Result<BTreeSet<String>> {
    let mut heard = BTreeSet::new();
    let mut parser = Parser::default();
    let mut id = None;
    loop {
        let more = within("bytes", SOON, response.next()).await;
        let Ok(Some(bytes)) = more else {
            let header = id.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
            let at = site.server.listening()?;
            response = http::get(at, "/fhir/Basic/$export", &format!("{EVENTS}{header}")).await?;
            parser = Parser::default();
            continue;
        };
        parser.push(&bytes);
        while let Some(item) = parser.next_item() {
            let Item::Frame(frame) = item else { continue };
            id = frame.get("id").or(id);
            ensure!(!says(&frame, "reset") && !says(&frame, "reset-all"), "a reset");
            if says(&frame, "live") && last.is_empty() {
                return Ok(heard);
            }
            if frame.get("event").as_deref() == Some("Basic") {
                let name = name(&frame)?;
                let is_last = name == last;
                ensure!(heard.insert(name.clone()), "{name} came twice");
                if is_last {
                    return Ok(heard);
                }
            }
        }
    }
}

fn name(frame: &Frame) -> Result<String> {
    let data: serde_json::Value = serde_json::from_str(&frame.get("data").context("no data")?)?;
    Ok(data["id"].as_str().context("no id")?.to_owned())
}

async fn stalled_replays_keep_no_replay_waiting(context: Context) -> Result<()> {
    let site = site(&context).await?;
    fill(&site, RESOURCES).await?;
    let mut stalled = stalled(&site, EVENTS).await?;
    all_stand_still(&site).await?;
    let at = site.server.listening()?;
    for _ in 0..3 {
        let reading = http::get(at, "/fhir/Basic/$export", EVENTS).await?;
        let heard = hears_all(&site, reading, "").await?;
        ensure!(heard.len() == RESOURCES, "{} of {RESOURCES}", heard.len());
    }
    ensure!(site.metric("fhir_tail_reads_reclaimed_total").await? > 0.0, "there was room for all");
    // No more were dropped than were in the way, about.
    let dropped = site.metric("fhir_tail_stalled_dropped_total").await?;
    ensure!(dropped < STALLED as f64 * 0.75, "{dropped} were dropped");
    for _ in 0..3 {
        for stalled in [stalled.pop(), Some(stalled.remove(0))].into_iter().flatten() {
            let heard = hears_all(&site, stalled, "").await?;
            ensure!(heard.len() == RESOURCES, "{} of {RESOURCES} by one that stalled", heard.len());
        }
    }
    Ok(())
}

async fn slow_replays_keep_no_replay_waiting(context: Context) -> Result<()> {
    let site = site(&context).await?;
    fill(&site, RESOURCES).await?;
    let mut slow = stalled(&site, EVENTS).await?;
    all_stand_still(&site).await?;
    let at = site.server.listening()?;
    let reading = http::get(at, "/fhir/Basic/$export", EVENTS).await?;
    // A few bytes a second each, for as long as the other reads.
    let trickle = async {
        loop {
            for response in &mut slow {
                // Those that were dropped have nothing more.
                let _gone = within("a byte", Duration::from_millis(5), response.take_byte()).await;
            }
        }
    };
    let heard = tokio::select! {
        heard = hears_all(&site, reading, "") => heard?,
        () = trickle => unreachable!("it has no end"),
    };
    ensure!(heard.len() == RESOURCES, "{} of {RESOURCES}", heard.len());
    Ok(())
}

async fn stalled_resumes_keep_nobody_from_following(context: Context) -> Result<()> {
    let site = site(&context).await?;
    let mut live = site.live(Subscribe::with(Client::Raw, "_type=Basic")).await?;
    let first = live.last_id.clone().context("no id")?;
    fill(&site, RESOURCES).await?;
    live.hear("the last", SOON, |reader| reader.heard_of(&format!("b{RESOURCES}"))).await?;
    let resume = format!("{EVENTS}Last-Event-ID: {first}\r\n");
    let mut stalled = stalled(&site, &resume).await?;
    all_stand_still(&site).await?;
    // A resume, and those who are live.
    let reading = http::get(site.server.listening()?, "/fhir/Basic/$export", &resume).await?;
    let heard = hears_all(&site, reading, &format!("b{RESOURCES}")).await?;
    ensure!(heard.len() == RESOURCES, "{} of {RESOURCES}", heard.len());
    let mut live = site.live(Subscribe::with(Client::Raw, "_type=Basic&_since=2999-01-01T00:00:00Z")).await?;
    site.put("Basic", "after").await?;
    live.hear("what was written after", SOON, |reader| reader.heard_of("after")).await?;
    for stalled in [stalled.pop(), Some(stalled.remove(0))].into_iter().flatten() {
        let heard = hears_all(&site, stalled, "after").await?;
        ensure!(heard.len() == RESOURCES + 1, "{} by one that stalled", heard.len());
    }
    Ok(())
}
