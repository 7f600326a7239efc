//! The whole state, as a subscriber without `_since` gets it, from the request to the notice `live`. The reference
//! is one `COPY` of the same rows through psql, into nothing: a snapshot held open, which the service avoids.

use super::{Measured, finding, reference};
use crate::client::{Crowd, Ready, Spec, get};
use crate::clock;
use crate::lab::Lab;
use crate::report::{Finding, times_at_least};
use anyhow::{Context as _, Result, ensure};
use std::process::Stdio;
use tests::{Context, Site};

pub(super) async fn measure(lab: &Lab) -> Result<Measured> {
    let rows = u64::from(lab.scaled(200_000, 1_000));
    let (context, site) = lab.loaded(rows).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first only warms up.
    for run in 0..=lab.runs {
        let (copied, replayed) = (copy(&context, &site).await?, replay(&site, rows).await?);
        if run > 0 {
            theirs.push(rows as f64 / copied);
            ours.push(rows as f64 / replayed);
        }
    }
    Ok(vec![Finding {
        reference: reference("COPY", theirs),
        goal: times_at_least(0.8),
        ..finding("replay", format!("replay of {rows} resources to one client"), "resources/s", ours)
    }]
    .into())
}

/// Seconds for one client to get everything.
pub(super) async fn replay(site: &Site, rows: u64) -> Result<f64> {
    let address = site.server.listening()?;
    let requests = vec![(get(address, "/fhir/$export", ""), 1)];
    let (_crowd, read) = Crowd::start(Spec { address, requests, ready: Ready::Live, record: None }).await?;
    // The notices `start` and `live` are frames too.
    ensure!(read.frames == rows + 2, "{} frames came instead of {rows} and two", read.frames);
    Ok(clock::seconds(read.ended - read.began))
}

/// Seconds for psql to get everything.
pub(super) async fn copy(context: &Context, site: &Site) -> Result<f64> {
    let mut psql = context.postgres().command("psql");
    psql.args(["--no-psqlrc", "--quiet", "--dbname"]).arg(site.cluster.url("postgres"));
    let columns = "resource_type, id, version_id, last_updated, content";
    psql.arg("--command").arg(format!("copy (select {columns} from fhir.resource) to stdout"));
    psql.stdin(Stdio::null()).stdout(Stdio::null());
    let began = clock::now();
    let output =
        tokio::process::Command::from(psql).stderr(Stdio::piped()).spawn().context("cannot run psql")?;
    let output = output.wait_with_output().await?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(clock::seconds(clock::now() - began))
}
