//! A child process whose output goes to files and which does not outlive its owner.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::until;

/// A running child.
pub struct Process {
    child: Child,
    name: &'static str,
    /// What ends it without asking back, and lets it end its own children.
    at_once: Signal,
}

impl Process {
    /// Starts it, its output and errors to files (both to `stderr` without a `stdout`). `at_once` is the signal that ends it
    /// when this is dropped.
    pub fn start(
        name: &'static str,
        at_once: Signal,
        command: &mut Command,
        stdout: Option<&Path>,
        stderr: &Path,
    ) -> Result<Self> {
        let errors = append(stderr)?;
        let output = match stdout {
            Some(path) => append(path)?,
            None => errors.try_clone()?,
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, name, at_once })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name;
        until(&format!("the end of {name}"), limit, || {
            let status = self.child.try_wait();
            async move { Ok(status?) }
        })
        .await
    }

    /// Fails if it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended: {status}", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nothing can be done about a failure here, and the child may just have ended.
            let _ = self.signal(self.at_once);
            let _ = self.child.wait();
        }
    }
}

fn append(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}
