//! A stream written to files or standard output: every event once, whatever ends the program.
//!
//! ```text
//! Subscriber → Recorder (what an event means) → Batch → Writer (a thread) → Output, then StateFile
//! ```
//!
//! The state file is replaced after what it describes is on disk, and at the start the files are cut back to it. So
//! files hold every event once. Where a download ends, [`compact`] keeps of each resource the last version.

mod batch;
mod compact;
mod folder;
mod line;
mod output;
mod recorder;
mod state;
mod writer;

pub use line::LineFormat;
pub use state::{IN_FOLDER, Live, Position};

use crate::error::{Context as _, bail};
use crate::{Credentials, Notice, Result, Subscriber, Target};
use output::Output;
use recorder::Recorder;
use state::{Run, Stage, State, StateFile, Written};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use writer::{Saved, Writer};

/// Where lines go. A folder must exist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// Numbered files, one after the other.
    Sequence {
        /// Their folder.
        directory: PathBuf,
        /// The next file begins when one has this size.
        rotate_bytes: u64,
    },
    /// A bulk download: a file for each type, in place when all is there.
    Download {
        /// Their folder.
        directory: PathBuf,
    },
}

impl Destination {
    /// The folder, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Stdout => None,
            Self::Sequence { directory, .. } | Self::Download { directory } => Some(directory),
        }
    }
}

/// What [`record`] does with a stream.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Where lines go.
    pub destination: Destination,
    /// How lines are written.
    pub line_format: LineFormat,
    /// End when the current state is complete; a download ends in any case.
    pub until_live: bool,
    /// Where the position is kept; `None`: nowhere, and each start begins with the current state.
    pub state: Option<PathBuf>,
    /// How often what was written is made durable.
    pub sync_interval: Duration,
}

/// A download that is complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Download {
    /// Its folder.
    pub directory: PathBuf,
    /// Where the files of this run are: the folder itself, or one in it.
    pub files: PathBuf,
    /// The number of the run, from 1.
    pub run: u64,
    /// This run has everything, so the runs before it no longer count.
    pub everything: bool,
    /// The time that it is complete as of, and the next `_since`; `None`: the service did not say.
    pub as_of: Option<String>,
}

/// What happens while a stream is recorded, for logs, metrics and progress bars.
#[derive(Clone, Copy, Debug)]
pub enum Update<'a> {
    /// The recording continues from a saved position.
    Resuming {
        /// The position.
        position: &'a Position,
        /// The number of the run, of a download after its first one.
        run: Option<u64>,
    },
    /// The service is asked for the stream.
    Connecting,
    /// The stream begins.
    Connected,
    /// A resource or a deletion arrived.
    Change(Change),
    /// This many bytes arrived, with the changes since the last update of this kind.
    Received(usize),
    /// The current state is estimated.
    Estimated {
        /// How many resources it has, about.
        total: u64,
        /// How many of them were written before.
        before: u64,
    },
    /// `live`, `stale`, `fresh`, `reset` or `reset-all` arrived.
    Notice(&'a Notice),
    /// There is no stream.
    Disconnected {
        /// Why.
        reason: &'a str,
        /// It is asked for again after this time.
        retry_in: Duration,
    },
    /// `stop` resolved.
    Stopped(&'a str),
    /// No more is received.
    Ended,
}

/// What a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A resource was created or updated.
    Upsert,
    /// A resource was deleted.
    Delete,
    /// A resource no longer belongs to what was asked for.
    Remove,
}

/// Follows a stream and writes it, until it is complete or `stop` resolves. Of a download: what is complete.
///
/// `stop` resolves with its reason, such as the name of a signal, when the recording should end; what was received
/// is then written and saved. If it resolves once more meanwhile, the rest is given up.
///
/// # Errors
///
/// If the service refuses, if files cannot be written, if the state file belongs to something else, or if `stop` ends
/// a download before it is complete. Nothing that was saved is lost by an error.
pub async fn record(
    recording: Recording,
    target: Target,
    credentials: Credentials,
    mut stop: impl AsyncFnMut() -> &'static str,
    observe: impl FnMut(Update<'_>),
) -> Result<Option<Download>> {
    // Also where the position is kept elsewhere.
    let _folder = match (recording.destination.directory(), &recording.state) {
        (Some(directory), Some(state)) => state::lock_folder(directory, state)?,
        _ => None,
    };
    let (file, state) = match &recording.state {
        Some(path) => {
            let (file, state) = StateFile::open(path, &target.name(), recording.line_format)?;
            (Some(file), state.map(State::next_run))
        }
        None => (None, None),
    };
    let (position, written) = match state {
        Some(state) => (state.position, Some(state.written)),
        None => (Position::default(), None),
    };
    let destination = recording.destination.clone();
    let saved = match (&destination, written) {
        // All was received before.
        (Destination::Download { .. }, Some(written @ Written::Download { .. }))
            if position.live.is_some() =>
        {
            Saved { file, position, written }
        }
        (_, written) => {
            let output = Output::open(&destination, written)?;
            let subscriber = Subscriber::new(target, credentials, position.last_event_id.clone())?;
            follow(
                recording,
                subscriber,
                Saved { file, position, written: output.written() },
                output,
                &mut stop,
                observe,
            )
            .await?
        }
    };
    let Destination::Download { directory } = destination else { return Ok(None) };
    if saved.position.live.is_none() {
        bail!("stopped before the download was complete: run the same command again to resume it");
    }
    let completing = tokio::task::spawn_blocking(move || complete(&directory, saved));
    tokio::select! {
        result = completing => result.context("the completion failed")?.map(Some),
        reason = stop() => bail!("stopped by {reason} before all files were in place: run the same command again"),
    }
}

/// Receives and writes until the end of either, or `stop`; what was saved then.
async fn follow(
    recording: Recording,
    mut subscriber: Subscriber,
    start: Saved,
    output: Output,
    stop: &mut impl AsyncFnMut() -> &'static str,
    mut observe: impl FnMut(Update<'_>),
) -> Result<Saved> {
    let run = output.later_run();
    let (outbox, inbox) = mpsc::channel(1);
    let Saved { file, position, .. } = start;
    let sync_interval = recording.sync_interval;
    let writer = Writer { output, file, position: position.clone(), sync_interval };
    let runtime = Handle::current();
    let writing = tokio::task::spawn_blocking(move || writer.run(&runtime, inbox));
    observe(Update::Resuming { position: &position, run });
    let mut recorder = Recorder::new(&recording, position, observe);
    let followed = tokio::select! {
        result = recorder.run(&mut subscriber, outbox) => result,
        reason = stop() => {
            recorder.observe(Update::Stopped(reason));
            Ok(())
        }
    };
    // The writer ends when it has written what it was given.
    recorder.observe(Update::Ended);
    let saved = tokio::select! {
        result = writing => result.context("the writer failed")?,
        reason = stop() => bail!("{reason} arrived while the last lines were written: they are not saved"),
    };
    // If both have failed, the one because of the other, the writer knows why.
    let saved = saved?;
    followed?;
    Ok(saved)
}

/// Keeps of a download the last version of each resource, and moves each file to its place.
fn complete(directory: &Path, saved: Saved) -> Result<Download> {
    let Saved { file, position, written } = saved;
    let Written::Download { run, stage, bytes } = written else { bail!("this is not a download") };
    let reached = |stage| match &file {
        Some(file) => file.save(&position, Written::Download { run, stage, bytes: bytes.clone() }),
        None => Ok(()),
    };
    let as_of = position.live.as_ref().and_then(|live| live.transaction_time.as_deref());
    if stage == Stage::Receiving {
        compact::compact(directory)?;
        reached(Stage::Placing)?;
    }
    if stage != Stage::Complete {
        compact::place(directory, run, as_of)?;
        reached(Stage::Complete)?;
    }
    let files = compact::folder(directory, run, as_of);
    let Run { number, all } = run;
    let as_of = as_of.map(str::to_owned);
    Ok(Download { directory: directory.to_owned(), files, run: number, everything: all, as_of })
}
