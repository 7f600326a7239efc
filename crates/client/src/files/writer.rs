//! Writes batches on a thread of its own, so that the stream is read on while the disk is waited for.
//!
//! A batch is written as it comes. At most once in an interval, and when nothing more comes, what was written is made
//! durable and then the state file replaced: what is saved is never more than what is on disk.

use super::batch::Batch;
use super::output::Output;
use super::state::{Position, StateFile, Written};
use crate::error::Result;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

/// Writes what comes.
pub(super) struct Writer {
    pub(super) output: Output,
    /// Without one nothing is saved.
    pub(super) file: Option<StateFile>,
    pub(super) position: Position,
    pub(super) sync_interval: Duration,
}

/// What a writer leaves.
pub(super) struct Saved {
    pub(super) file: Option<StateFile>,
    pub(super) position: Position,
    pub(super) written: Written,
}

impl Writer {
    /// Writes until the sender is gone, and saves what was written. Blocks: for a thread that may.
    pub(super) fn run(mut self, runtime: &Handle, mut batches: Receiver<Batch>) -> Result<Saved> {
        // Nothing is made before the state file says of it.
        self.save()?;
        let mut due = Instant::now() + self.sync_interval;
        let mut saved = true;
        loop {
            let next = if saved {
                Ok(runtime.block_on(batches.recv()))
            } else {
                runtime.block_on(timeout_at(due, batches.recv()))
            };
            match next {
                Ok(Some(batch)) => {
                    self.write(batch)?;
                    saved = false;
                }
                Ok(None) => {
                    if !saved {
                        self.save()?;
                    }
                    let written = self.output.written();
                    return Ok(Saved { file: self.file, position: self.position, written });
                }
                Err(_) => {}
            }
            if !saved && Instant::now() >= due {
                self.save()?;
                saved = true;
                due = Instant::now() + self.sync_interval;
            }
        }
    }

    fn write(&mut self, mut batch: Batch) -> Result<()> {
        if let Some(position) = batch.anew.take() {
            self.output.forget();
            self.position = position;
            self.save()?;
            self.output.discard()?;
        }
        self.output.append(batch.parts())?;
        self.position = batch.position;
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        self.output.sync()?;
        file.save(&self.position, self.output.written())
    }
}
