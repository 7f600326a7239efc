//! The program under test, as a process.

use crate::process::Process;
use crate::until;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The program.
#[derive(Clone, Debug)]
pub struct Binary(PathBuf);

impl Binary {
    /// The one that `FHIR_TAIL_TEST_BINARY` names; without it `fhir-tail` next to this program, which Cargo brings up
    /// to date first, once in a run.
    pub fn find() -> Result<Self> {
        static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        match FOUND.get_or_init(|| locate().map_err(|error| format!("{error:#}"))) {
            Ok(path) => Ok(Self(path.clone())),
            Err(error) => bail!("{error}"),
        }
    }

    /// Runs it to its end, for `migrate` and `load`.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command().args(arguments).output().with_context(|| format!("cannot run {}", self.0.display()))
    }

    /// As [`run`](Self::run), and fails with what it wrote unless it succeeds.
    pub fn succeed(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.run(arguments)?;
        let wrote = [&output.stdout[..], &output.stderr[..]].concat();
        let wrote = String::from_utf8_lossy(&wrote);
        ensure!(output.status.success(), "fhir-tail {arguments:?}: {}\n{wrote}", output.status);
        Ok(output)
    }

    /// A command without the settings of whoever runs the tests.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("PG") || name.starts_with("FHIR_TAIL") || name == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command
    }
}

fn locate() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("FHIR_TAIL_TEST_BINARY") {
        let named = PathBuf::from(named);
        ensure!(named.is_file(), "FHIR_TAIL_TEST_BINARY names no file: {}", named.display());
        return Ok(named);
    }
    // …/target/debug/deps/main-0123456789abcdef
    let this = std::env::current_exe()?;
    let deps = this.parent().filter(|folder| folder.ends_with("deps"));
    let profile = deps
        .and_then(Path::parent)
        .context("this program is not one of Cargo's tests: name the program in FHIR_TAIL_TEST_BINARY")?;
    let target = profile.parent().context("this program is not in a target folder")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "fhir-tail", "--target-dir"]).arg(target);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // Cargo told us of this package. Build scripts that look at that would run anew, and all that stands on them.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| ours(name))
    {
        cargo.env_remove(name);
    }
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().with_context(|| format!("cannot run {cargo:?}"))?;
    ensure!(status.success(), "{cargo:?} failed");
    Ok(profile.join("fhir-tail"))
}

/// Where the server listens now; clones follow it across restarts.
#[derive(Clone, Default)]
pub struct Address(Arc<Mutex<Option<SocketAddr>>>);

impl Address {
    /// One that stays: of a proxy in front of it.
    pub fn fixed(address: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(Some(address))))
    }

    /// `None` while it does not listen.
    pub fn now(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: Option<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

/// `fhir-tail serve`, ended with `kill -9` when this is dropped.
pub struct Server {
    binary: Binary,
    arguments: Vec<String>,
    directory: PathBuf,
    address: Address,
    process: Option<Process>,
    starts: u32,
    descriptors: Option<Descriptors>,
}

/// How many files a process may have open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// What it has at its start.
    pub soft: u32,
    /// Up to where it may raise that.
    pub hard: u32,
}

impl Descriptors {
    /// The same command with so many.
    pub fn of(self, command: &Command) -> Command {
        let mut limited = Command::new("sh");
        limited.args(["-c", r#"ulimit -Sn "$0" && ulimit -Hn "$1" && shift && exec "$@""#]);
        limited.args([self.soft.to_string(), self.hard.to_string()]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    }
}

impl Server {
    /// A server that is not running yet; its data directory is `data` in `directory`.
    pub fn new(directory: &Path, database_url: &str, more: &[&str]) -> Result<Self> {
        let data = directory.join("data");
        let mut arguments: Vec<String> = vec!["serve".into(), "--database-url".into(), database_url.into()];
        arguments.extend(["--data-dir".into(), data.display().to_string()]);
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Ok(Self {
            binary: Binary::find()?,
            arguments,
            directory: directory.to_owned(),
            address: Address::default(),
            process: None,
            starts: 0,
            descriptors: None,
        })
    }

    /// Another one on the same data directory, that is not running yet; its logs are in a folder of its own.
    pub fn twin(&self, directory: &Path) -> Self {
        Self {
            binary: self.binary.clone(),
            arguments: self.arguments.clone(),
            directory: directory.to_owned(),
            address: Address::default(),
            process: None,
            starts: 0,
            descriptors: None,
        }
    }

    /// Keeps it from doing anything, as a machine that hangs, until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("the server is not running")?.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("the server is not running")?.signal(Signal::SIGCONT)
    }

    /// Sets the value of a flag for the next start.
    pub fn set(&mut self, flag: &str, value: &str) {
        match self.arguments.iter().position(|argument| argument == flag) {
            Some(at) => self.arguments[at + 1] = value.to_owned(),
            None => self.arguments.extend([flag.to_owned(), value.to_owned()]),
        }
    }

    /// How many files it may have open from the next start on.
    pub fn limit(&mut self, descriptors: Descriptors) {
        self.descriptors = Some(descriptors);
    }

    /// How many it has open now.
    pub fn open_files(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.id()?))?.count())
    }

    /// Starts it on a free port, and waits until it listens.
    pub async fn start(&mut self) -> Result<()> {
        self.start_on(0).await
    }

    /// Starts it on the port it had, for clients that come back by themselves.
    pub async fn start_on(&mut self, port: u16) -> Result<()> {
        ensure!(self.process.is_none(), "the server is running");
        self.starts += 1;
        let stdout = self.directory.join(format!("server-{}.out", self.starts));
        let stderr = self.directory.join(format!("server-{}.log", self.starts));
        let mut command = self.binary.command();
        command.args(&self.arguments).args(["--listen", &format!("127.0.0.1:{port}")]);
        if let Some(descriptors) = self.descriptors {
            command = descriptors.of(&command);
        }
        let mut process =
            Process::start("fhir-tail serve", Signal::SIGKILL, &mut command, Some(&stdout), &stderr)?;
        let address = until("the server to listen", Duration::from_secs(60), || {
            let alive = process.must_run();
            let written = std::fs::read_to_string(&stdout);
            async move {
                alive?;
                Ok(listening(&written?))
            }
        })
        .await?;
        self.process = Some(process);
        self.address.set(Some(address));
        Ok(())
    }

    /// Where it listens, now and after restarts.
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Where it listens.
    pub fn listening(&self) -> Result<SocketAddr> {
        self.address.now().context("the server is not running")
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL, Duration::from_secs(10)).await.map(drop)
    }

    /// `SIGTERM`, and the wait for its end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM, limit).await
    }

    /// Sends `SIGTERM` and does not wait.
    pub fn ask_to_end(&self) -> Result<()> {
        self.process.as_ref().context("the server is not running")?.signal(Signal::SIGTERM)
    }

    /// Waits for its end.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the server is not running")?;
        self.address.set(None);
        process.exited(limit).await
    }

    async fn end(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.process.as_ref().context("the server is not running")?.signal(signal)?;
        self.exited(limit).await
    }

    /// Fails if it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        self.process.as_mut().context("the server is not running")?.must_run()
    }

    /// The number of its process.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the server is not running")?.id())
    }

    /// The most memory that it has had at any time since it started, in bytes (`VmHWM`).
    pub fn peak_memory(&self) -> Result<u64> {
        self.status_of_process("VmHWM:")
    }

    /// The memory that it has now, in bytes (`VmRSS`).
    pub fn memory(&self) -> Result<u64> {
        self.status_of_process("VmRSS:")
    }

    fn status_of_process(&self, name: &str) -> Result<u64> {
        let id = self.id()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// What it has written to its standard error since it was last started.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.join(format!("server-{}.log", self.starts)))?)
    }
}

fn listening(output: &str) -> Option<SocketAddr> {
    // Only whole lines: the last one may still be on its way.
    let (whole, _) = output.rsplit_once('\n')?;
    whole
        .lines()
        .find_map(|line| line.strip_prefix("listening on http://")?.strip_suffix("/fhir")?.parse().ok())
}
