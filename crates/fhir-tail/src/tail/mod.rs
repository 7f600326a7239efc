//! `fhir-tail tail`: flags, a progress line, logs and metrics over [`client::record`].

mod metrics;
mod options;
mod progress;

pub(crate) use options::{TAIL_HELP, TailOptions};

use crate::data_dir::make_all;
use crate::output::say;
use crate::settings::{InvalidSettings, Origin, Problem};
use crate::signals::Signals;
use anyhow::Context as _;
use client::{Destination, Download, Mismatch};
use metrics::Metrics;
use options::Subscription;
use progress::Progress;
use std::sync::Arc;

/// Follows until a signal, or with `--until-live` until nothing is left to do.
pub(crate) async fn run(options: TailOptions) -> anyhow::Result<()> {
    let Subscription { target, credentials, recording, metrics: address } = Subscription::of(options)?;
    let mut signals = Signals::new()?;
    if let Some(directory) = recording.destination.directory() {
        make_all(directory, 0o700).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let metrics = Arc::new(Metrics::new().context("cannot prepare the metrics")?);
    if let Some(address) = address {
        let at = metrics::serve(Arc::clone(&metrics), address).await?;
        tracing::info!("metrics are at http://{at}/metrics");
    }
    let mut progress = Progress::new(recording.destination == Destination::Stdout, metrics);
    let stop = async || signals.next().await;
    let recorded = client::record(recording, target, credentials, stop, |update| progress.shows(update));
    match recorded.await {
        Ok(Some(download)) => say(format_args!("{}", completed(&download))),
        Ok(None) => {}
        Err(client::Error::Mismatch { mismatch, message }) => {
            let flag = match mismatch {
                Mismatch::Url => "state",
                Mismatch::LineFormat => "envelope",
            };
            return Err(InvalidSettings(vec![Problem { origin: Origin::Flag(flag), message }]).into());
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// What a download that is complete has, and how to get what changes later.
fn completed(download: &Download) -> String {
    let Download { directory, files, run, everything, as_of } = download;
    let (whole, shown) = (directory.display(), files.display());
    let of = as_of.as_ref().map(|as_of| format!(" as of {as_of}")).unwrap_or_default();
    let said = match (run, everything) {
        (1, _) => format!("{whole} is complete{of}"),
        _ if !files.is_dir() => format!("{whole} is complete{of}: nothing has changed"),
        (_, false) => format!("{whole} is complete{of}: {shown} has what changed"),
        (_, true) => {
            format!("{whole} is complete{of}: {shown} has everything, and earlier files no longer count")
        }
    };
    match as_of {
        Some(since) => {
            format!("{said}; the next run, or --since {since}, brings what changes later")
        }
        None => said,
    }
}
