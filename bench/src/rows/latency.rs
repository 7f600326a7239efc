//! How long an event takes from the moment its COMMIT is sent (so what the database's disk takes is in it) until the
//! client has read it. `pg_recvlogical` reads the same commits at the same time.

use super::{Measured, finding, reference};
use crate::lab::{Lab, subscribers};
use crate::latency::Latencies;
use crate::receive::Receiver;
use crate::report::{Finding, above_by_at_most, at_most};
use crate::usage;
use crate::writer::Paced;
use anyhow::Result;

pub(super) async fn one(lab: &Lab) -> Result<Measured> {
    const PER_SECOND: u32 = 1_000;
    let commits = lab.scaled(5_000, 300);
    let (context, site) = lab.running(&[]).await?;
    site.sql.batch_execute("select pg_create_logical_replication_slot('reference', 'pgoutput')").await?;
    let receiver = Receiver::start(&context, &site.cluster, "reference")?;
    let record = context.directory().join("record");
    let mut crowd = subscribers(&site, 1, Some(&record)).await?;
    let mut paced = Paced::connect(&site.cluster).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first only warms up.
    for run in 0..=u32::try_from(lab.runs)? {
        crowd.count(commits.into()).await?;
        let sent = paced.write(run * commits..(run + 1) * commits, PER_SECOND).await?;
        crowd.counted().await?;
        ours.push(Latencies::of(&sent, &crowd.record()?, 1)?);
        theirs.push(Latencies::of(&sent, &receiver.take(sent.len())?, 1)?);
    }
    let part = |all: &[Latencies], of: fn(&Latencies) -> f64| all.iter().skip(1).map(of).collect::<Vec<_>>();
    let line = |what: &str, of, most| Finding {
        reference: reference("pg_recvlogical", part(&theirs, of)),
        goal: above_by_at_most(most),
        ..finding("latency-one", format!("COMMIT to one client, {what}"), "ms", part(&ours, of))
    };
    Ok(vec![line("p50", Latencies::p50, 0.2), line("p99", Latencies::p99, 1.0)].into())
}

pub(super) async fn crowd(lab: &Lab) -> Result<Measured> {
    const PER_SECOND: u32 = 100;
    let (commits, streams) = (lab.scaled(1_000, 50), lab.scaled(1_000, 20));
    let (context, site) = lab.running(&[]).await?;
    let record = context.directory().join("record");
    let mut crowd = subscribers(&site, usize::try_from(streams)?, Some(&record)).await?;
    let mut paced = Paced::connect(&site.cluster).await?;
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    let (mut service_cost, mut client_cost) = (Vec::new(), Vec::new());
    let deliveries = u64::from(commits) * u64::from(streams);
    for run in 0..=u32::try_from(lab.runs)? {
        let used = usage::processor(site.server.id()?)?;
        crowd.count(deliveries).await?;
        let sent = paced.write(run * commits..(run + 1) * commits, PER_SECOND).await?;
        let client = crowd.counted().await?.processor as f64 / deliveries as f64;
        let service = (usage::processor(site.server.id()?)? - used) * 1e6 / deliveries as f64;
        let latencies = Latencies::of(&sent, &crowd.record()?, usize::try_from(streams)?)?;
        if run > 0 {
            p50.push(latencies.p50());
            p99.push(latencies.p99());
            service_cost.push(service);
            client_cost.push(client);
        }
    }
    let own =
        |whose: &str, cost| finding("latency-crowd", format!("processor time: {whose}"), "µs/delivery", cost);
    let what = |part: &str| format!("COMMIT to {streams} clients, {PER_SECOND} commits/s, {part}");
    Ok(vec![
        finding("latency-crowd", what("p50"), "ms", p50),
        Finding { goal: at_most(25.0), ..finding("latency-crowd", what("p99"), "ms", p99) },
        own("the service", service_cost),
        own("the client", client_cost),
    ]
    .into())
}
