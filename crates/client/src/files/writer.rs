//! Writes batches on a dedicated thread, so that reading the stream never waits for the disk.
//!
//! A batch is written as it arrives. At most once in an interval, and at the end, what was written is made durable and
//! then the state file is replaced: it never describes more than what is on disk.

use super::batch::Batch;
use super::output::Output;
use super::state::{Position, StateFile, Written};
use crate::error::Result;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

/// Writes batches.
pub(super) struct Writer {
    pub(super) output: Output,
    /// `None`: no position is saved.
    pub(super) file: Option<StateFile>,
    pub(super) position: Position,
    pub(super) sync_interval: Duration,
}

/// What a writer has saved.
pub(super) struct Saved {
    pub(super) file: Option<StateFile>,
    pub(super) position: Position,
    pub(super) written: Written,
}

impl Writer {
    /// Writes until the sender is gone, and saves what was written. Blocks.
    pub(super) fn run(mut self, runtime: &Handle, mut batches: Receiver<Batch>) -> Result<Saved> {
        // No file is created before the state file exists.
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
        if let Some(position) = batch.restart.take() {
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
