//! What others cost: one subscriber of the type that changes, alone, and then among very many of another type. These are
//! sent heartbeats, which cost the same whether anything changes or not: so the processor time of as long a while without
//! changes is taken off.

use super::{Measured, finding, reference};
use crate::client::{Crowd, LIVE_ONLY, get};
use crate::lab::{Lab, crowd, subscribers};
use crate::latency::Latencies;
use crate::report::{Finding, times_at_most};
use crate::usage;
use crate::writer::Paced;
use anyhow::Result;
use std::time::Duration;
use tests::Site;

const PER_SECOND: u32 = 200;
/// Each run takes as long as it is from heartbeat to heartbeat, so that all have as many.
const RUN: u32 = 15;

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let (commits, others) = (lab.scaled(RUN * PER_SECOND, 100), lab.scaled(10_000, 200));
    let (context, site) = lab.running(&[]).await?;
    let record = context.directory().join("record");
    let mut listener = subscribers(&site, 1, Some(&record)).await?;
    let mut paced = Paced::connect(&site.cluster).await?;
    let mut next = 0;
    let alone = runs(lab, &site, &mut listener, &mut paced, commits, &mut next).await?;
    let address = site.server.listening()?;
    let request = get(address, &format!("/fhir/Condition/$export?{LIVE_ONLY}"), "");
    // They hear nothing but heartbeats, and nobody reads those.
    let _others = crowd(address, vec![(request, usize::try_from(others)?)], None).await?;
    let among = runs(lab, &site, &mut listener, &mut paced, commits, &mut next).await?;
    let heartbeats = idle(&site).await? * 1e3;
    Ok(vec![
        Finding {
            reference: reference("alone", alone.0),
            goal: times_at_most(2.0),
            ..finding("isolation", format!("p99 of one client among {others} of another type"), "ms", among.0)
        },
        Finding {
            reference: reference("alone", alone.1),
            ..finding("isolation", "processor time of the service for it", "µs/commit", among.1)
        },
        finding(
            "isolation",
            format!("processor time of the service for heartbeats of {others}"),
            "ms in 15 s",
            vec![heartbeats],
        ),
    ]
    .into())
}

/// Seconds of the service's processor time in as long as a run takes, while nothing changes.
async fn idle(site: &Site) -> Result<f64> {
    let before = usage::processor(site.server.id()?)?;
    tokio::time::sleep(Duration::from_secs(RUN.into())).await;
    Ok(usage::processor(site.server.id()?)? - before)
}

/// The p99, and microseconds of the service's processor time for a commit beyond what it takes without any.
async fn runs(
    lab: &Lab,
    site: &Site,
    listener: &mut Crowd,
    paced: &mut Paced,
    commits: u32,
    next: &mut u32,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut p99, mut used) = (Vec::new(), Vec::new());
    let without = idle(site).await? * 1e6 / f64::from(RUN * PER_SECOND);
    // The first only warms up.
    for run in 0..=lab.runs {
        let before = usage::processor(site.server.id()?)?;
        listener.count(commits.into()).await?;
        let sent = paced.write(*next..*next + commits, PER_SECOND).await?;
        *next += commits;
        listener.counted().await?;
        if run > 0 {
            p99.push(Latencies::of(&sent, &listener.record()?, 1)?.p99());
            used.push((usage::processor(site.server.id()?)? - before) * 1e6 / f64::from(commits) - without);
        }
    }
    Ok((p99, used))
}
