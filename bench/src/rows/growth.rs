//! How things grow: fan-out, latency and memory with the number of subscribers, replay with the number of resources.

use super::{Measured, replay as pages};
use crate::lab::{self, Lab, ready, settled};
use crate::latency::Latencies;
use crate::report::{Growth, Line};
use crate::statistics::Sample;
use crate::writer::Paced;
use crate::{clock, usage, writer};
use anyhow::Result;
use std::time::Duration;

async fn with(lab: &Lab, counts: &[u32]) -> Result<Vec<Growth>> {
    /// Few enough that ten thousand can take them.
    const PER_SECOND: u32 = 20;
    let (context, mut site) = lab.running(&[]).await?;
    let record = context.directory().join("record");
    let (mut rates, mut p50, mut p99, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut next_numbered) = (0, 0);
    for streams in counts.iter().copied() {
        let deliveries = lab.scaled(1_000_000, 10_000);
        let events = u64::from((deliveries / streams).clamp(20, 20_000));
        let commits = lab.scaled(100, 20);
        let (mut rate, mut middle, mut slow, mut each) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..lab.runs {
            site.server.terminate(Duration::from_secs(60)).await?;
            site.server.start().await?;
            ready(site.server.listening()?).await?;
            let (alone, _) = usage::memory(site.server.id()?)?;
            let mut crowd = lab::subscribers(&site, usize::try_from(streams)?, Some(&record)).await?;
            each.push((usage::memory(site.server.id()?)?.0 - alone).max(1.0) / 1024.0 / f64::from(streams));
            let mut paced = Paced::connect(&site.cluster).await?;
            // A COMMIT waits for the disk, which may be busy with what the run before has written.
            settled(&site).await?;
            crowd.count(u64::from(commits) * u64::from(streams)).await?;
            let sent = paced.write(next_numbered..next_numbered + commits, PER_SECOND).await?;
            next_numbered += commits;
            crowd.counted().await?;
            let latencies = Latencies::of(&sent, &crowd.record()?, usize::try_from(streams)?)?;
            middle.push(latencies.p50());
            slow.push(latencies.p99());
            // Without a record, which costs the client more than reading.
            drop(crowd);
            let mut crowd = lab::subscribers(&site, usize::try_from(streams)?, None).await?;
            crowd.count(events * u64::from(streams)).await?;
            let began = writer::at_once(&site.sql, next..next + events).await?;
            next += events;
            let counted = crowd.counted().await?;
            rate.push(counted.frames as f64 / clock::seconds(counted.ended - began));
        }
        let at = f64::from(streams);
        rates.push((at, Sample(rate)));
        p50.push((at, Sample(middle)));
        p99.push((at, Sample(slow)));
        memory.push((at, Sample(each)));
    }
    let line = |name: &str, points| Line { name: name.to_owned(), points };
    let growth = |what: &str, unit, lines| Growth {
        row: "growth-subscribers",
        what: what.to_owned(),
        unit,
        over: "subscribers of one filter",
        lines,
    };
    Ok(vec![
        growth("Fan-out", "deliveries/s", vec![line("fhir-tail", rates)]),
        growth("COMMIT to client", "ms", vec![line("p50", p50), line("p99", p99)]),
        growth("Memory for each subscriber", "KB", vec![line("fhir-tail", memory)]),
    ])
}

pub(super) async fn subscribers(lab: &Lab) -> Result<Measured> {
    let most = lab.scaled(10_000, 100);
    let counts: Vec<u32> = [1, 10, 100, 1_000, 10_000].into_iter().filter(|count| *count <= most).collect();
    Ok(Measured { growth: with(lab, &counts).await?, findings: Vec::new() })
}

pub(super) async fn replay(lab: &Lab) -> Result<Measured> {
    let sizes = [10_000, 100_000, 1_000_000].map(|rows| u64::from(lab.scaled(rows, rows / 100)));
    let (context, site) = lab.running(&[]).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut written = 0;
    for rows in sizes {
        writer::at_once(&site.sql, written..rows).await?;
        written = rows;
        settled(&site).await?;
        let (mut replayed, mut copied) = (Vec::new(), Vec::new());
        for _ in 0..lab.runs {
            copied.push(pages::copy(&context, &site).await?);
            replayed.push(pages::replay(&site, rows).await?);
        }
        ours.push((rows as f64, Sample(replayed)));
        theirs.push((rows as f64, Sample(copied)));
    }
    let lines = [("fhir-tail", ours), ("COPY", theirs)];
    let lines = lines.into_iter().map(|(name, points)| Line { name: name.to_owned(), points }).collect();
    let growth =
        Growth { row: "growth-replay", what: "Replay".to_owned(), unit: "s", over: "resources", lines };
    Ok(Measured { growth: vec![growth], findings: Vec::new() })
}
