//! A command of the program that goes on until it is told to end: a demo, a simulator.

use crate::process::Process;
use crate::{Binary, Context, until};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// It runs; when this is dropped it is told to end, and waited for.
pub struct Running {
    process: Process,
    output: PathBuf,
    log: PathBuf,
}

impl Running {
    /// Starts it; `name` is that of its files in the test's folder.
    pub fn start(context: &Context, name: &'static str, arguments: &[&str]) -> Result<Self> {
        let [output, log] = ["out", "log"].map(|kind| context.directory().join(format!("{name}.{kind}")));
        let mut command = Binary::find()?.command();
        command.args(arguments);
        let process = Process::start(name, Signal::SIGTERM, &mut command, Some(&output), &log)?;
        Ok(Self { process, output, log })
    }

    /// What follows this at the beginning of a line of its output, blanks aside.
    pub async fn line(&mut self, prefix: &str, limit: Duration) -> Result<String> {
        let what = format!("a line with {prefix}");
        let waiting = until(&what, limit, || {
            let alive = self.process.must_run();
            let written = std::fs::read_to_string(&self.output);
            async move {
                alive?;
                Ok(line_of(&written?, prefix))
            }
        });
        let line = waiting.await;
        line.with_context(|| format!("it wrote:\n{}", self.log().unwrap_or_default()))
    }

    /// All that it has written to its standard output.
    pub fn output(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }

    /// All that it has written to its standard error.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// What Ctrl-C is to it; and the wait for its end.
    pub async fn interrupt(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::SIGINT)?;
        self.exited(limit).await
    }

    /// Waits for its end.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.exited(limit).await
    }
}

fn line_of(output: &str, prefix: &str) -> Option<String> {
    // Only whole lines: the last one may still be on its way.
    let (whole, _) = output.rsplit_once('\n')?;
    whole.lines().find_map(|line| line.trim().strip_prefix(prefix)).map(|rest| rest.trim().to_owned())
}
