//! `fhir-tail tail` as a process, and what it leaves in its folder.

use crate::process::Process;
use crate::{Binary, What};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A subscriber, ended with `kill -9` when this is dropped.
pub struct Tail {
    binary: Binary,
    arguments: Vec<String>,
    directory: PathBuf,
    process: Option<Process>,
    /// How often it was started.
    pub starts: u32,
}

impl Tail {
    /// One that is not running yet, with what it writes to its standard output and error in `directory`.
    pub fn new(directory: &Path, url: &str, more: &[&str]) -> Result<Self> {
        let arguments = ["tail", url].iter().chain(more).map(|&argument| argument.to_owned()).collect();
        let directory = directory.to_owned();
        Ok(Self { binary: Binary::find()?, arguments, directory, process: None, starts: 0 })
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "it is running");
        self.starts += 1;
        let mut command = self.binary.command();
        command.args(&self.arguments).env("NO_PROXY", "*");
        let (stdout, stderr) = (self.stdout_path(), self.directory.join("tail.log"));
        self.process =
            Some(Process::start("fhir-tail tail", Signal::SIGKILL, &mut command, Some(&stdout), &stderr)?);
        Ok(())
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL, Duration::from_secs(10)).await.map(drop)
    }

    /// `SIGTERM`, and the wait for its end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM, limit).await
    }

    /// Waits for its end.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.take().context("it is not running")?.exited(limit).await
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.must_run().is_ok())
    }

    async fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.process.as_ref().context("it is not running")?.signal(signal)?;
        self.exited(limit).await
    }

    /// What it has written to its standard error, in all its starts.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.join("tail.log"))?)
    }

    /// The lines of its standard output, in all its starts.
    pub fn stdout(&self) -> Result<Vec<What>> {
        read_lines(&self.stdout_path())
    }

    fn stdout_path(&self) -> PathBuf {
        self.directory.join("tail.out")
    }
}

/// The lines of all `*.ndjson` in a folder, by the names of the files.
pub fn files(directory: &Path) -> Result<BTreeMap<String, Vec<What>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            let name = path.file_stem().context("no name")?.to_string_lossy().into_owned();
            files.insert(name, read_lines(&path)?);
        }
    }
    Ok(files)
}

/// The state file.
pub fn state(path: &Path) -> Result<Option<serde_json::Value>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whole lines: the last may be on its way.
fn read_lines(path: &Path) -> Result<Vec<What>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(read_line).collect::<Result<_>>().with_context(|| path.display().to_string())
}

fn read_line(line: &str) -> Result<What> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    What::read(value["resourceType"].as_str().context("no resourceType")?, line)
}
