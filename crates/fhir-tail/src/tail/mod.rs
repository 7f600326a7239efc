//! `fhir-tail tail`: a subscriber that loses nothing.
//!
//! ```text
//! Connector → Parser → Subscriber (what an event means) → Batch → Writer (a thread) → Output, then StateFile
//! ```
//!
//! The state file is replaced after what it speaks of is on disk; at the start the output is cut back to it. So
//! whenever this ends, and whatever ends it, files hold every event once. Where a download ends, [`settle`] leaves of
//! each resource what counts.

mod batch;
mod connection;
mod content;
mod events;
mod line;
mod metrics;
mod options;
mod output;
mod pause;
mod progress;
mod settle;
mod state;
mod subscriber;
mod target;
mod writer;

pub(crate) use options::{TAIL_HELP, TailOptions};

use crate::data_dir::make_all;
use crate::output::say;
use crate::signals::Signals;
use anyhow::{Context as _, bail};
use batch::Batch;
use connection::Connector;
use metrics::Metrics;
use options::{Destination, Subscription};
use output::Output;
use pause::Pause;
use progress::Progress;
use state::{Position, Run, Stage, State, StateFile, Written};
use std::path::Path;
use std::sync::Arc;
use subscriber::Subscriber;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use writer::{Saved, Writer};

/// Follows until it is told to stop, or with `--until-live` until nothing is left to do.
pub(crate) async fn run(options: TailOptions) -> anyhow::Result<()> {
    let subscription = Subscription::of(options)?;
    let mut signals = Signals::new()?;
    if let Some(directory) = subscription.destination.directory() {
        make_all(directory, 0o700).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // Also where the position is kept elsewhere.
    let _folder = match (subscription.destination.directory(), &subscription.state) {
        (Some(directory), Some(state)) => state::lock_folder(directory, state)?,
        _ => None,
    };
    let (file, state) = match &subscription.state {
        Some(path) => {
            let (file, state) = StateFile::open(path, &subscription.target.name(), subscription.form)?;
            (Some(file), state.map(State::next_run))
        }
        None => (None, None),
    };
    let (position, written) = match state {
        Some(state) => (state.position, Some(state.written)),
        None => (Position::default(), None),
    };
    let metrics = Arc::new(Metrics::new().context("cannot prepare the metrics")?);
    if let Some(address) = subscription.metrics {
        let at = metrics::serve(Arc::clone(&metrics), address).await?;
        tracing::info!("metrics are at http://{at}/metrics");
    }
    let destination = subscription.destination.clone();
    let saved = match (&destination, written) {
        // All was received before.
        (Destination::Download { .. }, Some(written @ Written::Download { .. }))
            if position.live.is_some() =>
        {
            Saved { file, position, written }
        }
        (_, written) => {
            let output = Output::open(&destination, written)?;
            follow(subscription, file, position, output, metrics, &mut signals).await?
        }
    };
    if let Destination::Download { directory } = destination {
        if saved.position.live.is_none() {
            bail!("stopped before all was there: start it again to go on");
        }
        let completing = tokio::task::spawn_blocking(move || complete(&directory, saved));
        tokio::select! {
            result = completing => say(format_args!("{}", result.context("the completion failed")??)),
            signal = signals.next() => bail!("stopped by {signal} before all was in its place: start it again"),
        }
    }
    Ok(())
}

/// Receives and writes until the end of either, or a signal; what was saved then.
async fn follow(
    subscription: Subscription,
    file: Option<StateFile>,
    position: Position,
    output: Output,
    metrics: Arc<Metrics>,
    signals: &mut Signals,
) -> anyhow::Result<Saved> {
    let within = output.within();
    let (outbox, inbox) = mpsc::channel(1);
    let sync_interval = subscription.sync_interval;
    let writer = Writer { output, file, position: position.clone(), sync_interval };
    let runtime = Handle::current();
    let writing = tokio::task::spawn_blocking(move || writer.run(&runtime, inbox));
    let progress = Progress::new(subscription.destination == Destination::Stdout, metrics);
    progress.resumes(&position, &within);
    let mut subscriber = Subscriber {
        silence: subscription.target.silence(),
        connector: Connector::new(subscription.target, subscription.credentials)?,
        by_type: matches!(subscription.destination, Destination::Download { .. }),
        form: subscription.form,
        until_live: subscription.until_live,
        position,
        progress,
        outbox,
        batch: Batch::default(),
        pause: Pause::default(),
    };
    let followed = tokio::select! {
        result = subscriber.run() => result,
        signal = signals.next() => {
            subscriber.progress.log(|| tracing::info!("stopped by {signal}"));
            Ok(())
        }
    };
    subscriber.progress.finish();
    // The writer ends when it has written what it was given.
    drop(subscriber);
    let saved = tokio::select! {
        result = writing => result.context("the writer failed")?,
        signal = signals.next() => bail!("{signal} came while the last lines were written: they are not saved"),
    };
    // If both have failed, the one because of the other, the writer knows why.
    let saved = saved?;
    followed?;
    Ok(saved)
}

/// Leaves of a download what counts, each file in its place.
fn complete(directory: &Path, saved: Saved) -> anyhow::Result<String> {
    let Saved { file, position, written } = saved;
    let Written::Download { run, stage, bytes } = written else { bail!("this is no download") };
    let reached = |stage| match &file {
        Some(file) => file.save(&position, Written::Download { run, stage, bytes: bytes.clone() }),
        None => Ok(()),
    };
    let since = position.live.as_ref().and_then(|live| live.transaction_time.as_deref());
    if stage == Stage::Receiving {
        settle::settle(directory)?;
        reached(Stage::Placing)?;
    }
    if stage != Stage::Complete {
        settle::place(directory, run, since)?;
        reached(Stage::Complete)?;
    }
    let of = since.map(|since| format!(" as of {since}")).unwrap_or_default();
    let folder = settle::folder(directory, run, since);
    let (shown, whole) = (folder.display(), directory.display());
    let said = match run {
        Run::FIRST => format!("{whole} is complete{of}"),
        _ if !folder.is_dir() => format!("{whole} is complete{of}: nothing has changed"),
        Run { all: false, .. } => format!("{whole} is complete{of}: {shown} has what changed"),
        Run { all: true, .. } => {
            format!(
                "{whole} is complete{of}: {shown} has everything, and what came before it does not count any more"
            )
        }
    };
    let later =
        since.map(|since| format!("; what changes later comes with the next run, or with --since {since}"));
    Ok(said + &later.unwrap_or_default())
}
