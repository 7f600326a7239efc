//! What a client missed, from the journal: it comes back with the id of the first of very many events.

use super::{Measured, finding};
use crate::client::{Crowd, Ready, Spec, get};
use crate::lab::{Lab, caught_up, live_request};
use crate::report::{Finding, at_least};
use crate::{clock, writer};
use anyhow::{Context as _, Result, ensure};
use bench::documents;
use tests::{Site, http, sse};

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let rows = u64::from(lab.scaled(300_000, 2_000));
    let (_context, site) = lab.running(&[]).await?;
    let id = first_id(&site).await?;
    writer::at_once(&site.sql, 0..rows).await?;
    caught_up(&site, "fhir_tail").await?;
    let address = site.server.listening()?;
    let headers = format!("Last-Event-ID: {id}\r\n");
    let target = format!("/fhir/{}/$export", documents::TYPE);
    let mut rates = Vec::new();
    // The first only warms up.
    for _ in 0..=lab.runs {
        let requests = vec![(get(address, &target, &headers), 1)];
        let (_crowd, read) =
            Crowd::start(Spec { address, requests, ready: Ready::Live, record: None }).await?;
        // The notices `start` and `live` are frames too.
        ensure!(read.frames == rows + 2, "{} frames came instead of {rows} and two", read.frames);
        rates.push(read.bytes as f64 / 1e6 / clock::seconds(read.ended - read.began));
    }
    rates.remove(0);
    let what = format!("resume over {rows} events, one client");
    Ok(vec![Finding { goal: at_least(400.0), ..finding("resume", what, "MB/s", rates) }].into())
}

/// The id of an event that is written for it.
async fn first_id(site: &Site) -> Result<String> {
    let address = site.server.listening()?;
    let request = live_request(address);
    let mut response = http::send(address, &request).await?;
    let mut parser = sse::Parser::default();
    let mut written = false;
    loop {
        let bytes = response.next().await?.context("the stream ended")?;
        parser.push(&bytes);
        while let Some(item) = parser.next_item() {
            let sse::Item::Frame(frame) = item else { continue };
            if frame.get("event").as_deref() == Some(documents::TYPE) {
                return frame.get("id").context("an event without id");
            }
            if !written && frame.get("data").is_some_and(|data| data.contains(r#""code":"live""#)) {
                site.put(documents::TYPE, "first").await?;
                written = true;
            }
        }
    }
}
