//! Which Postgres binaries there are, and how they are run.

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Gid, Uid, User, chown, geteuid};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder with the programs of one version of Postgres.
#[derive(Clone, Debug)]
pub struct Postgres {
    bin: PathBuf,
    major: u32,
}

impl Postgres {
    /// Those that `FHIR_TAIL_TEST_POSTGRES_BIN` names (folders, with colons between them); without it the newest
    /// that is installed.
    pub fn all() -> Result<Vec<Self>> {
        if let Some(named) = std::env::var_os("FHIR_TAIL_TEST_POSTGRES_BIN") {
            let found: Vec<Self> = std::env::split_paths(&named)
                .filter(|bin| !bin.as_os_str().is_empty())
                .map(Self::at)
                .collect::<Result<_>>()?;
            ensure!(!found.is_empty(), "FHIR_TAIL_TEST_POSTGRES_BIN is set and names no folder");
            return Ok(found);
        }
        let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found: Vec<Self> = debian
            .map(|version| version.path().join("bin"))
            .chain(std::env::split_paths(&path))
            .filter(|bin| bin.join("initdb").is_file() && bin.join("postgres").is_file())
            .filter_map(|bin| Self::at(bin).ok())
            .collect();
        found.sort_by_key(|postgres| postgres.major);
        match found.pop() {
            Some(newest) => Ok(vec![newest]),
            None => bail!(
                "no Postgres was found: install it (Debian: apt-get install postgresql), or name the folder of its \
                 programs in FHIR_TAIL_TEST_POSTGRES_BIN"
            ),
        }
    }

    fn at(bin: PathBuf) -> Result<Self> {
        let program = bin.join("postgres");
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = version
            .split_whitespace()
            .find_map(|word| word.split('.').next()?.parse().ok())
            .with_context(|| format!("{} has no version: '{}'", program.display(), version.trim()))?;
        Ok(Self { bin, major })
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The folder.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A program of it, to be run as the user that owns the clusters.
    pub fn command(&self, program: &str) -> Command {
        as_owner(Command::new(self.bin.join(program)))
    }

    /// Makes the cluster that the others are copies of: user `postgres`, everybody trusted, a database `fhir`, the log
    /// in files of so many megabytes.
    pub fn initialise(&self, directory: &Path, wal_segment: u32) -> Result<()> {
        let mut initdb = self.command("initdb");
        initdb.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        initdb.arg(directory).arg(format!("--wal-segsize={wal_segment}"));
        succeed(&mut initdb)?;
        // A server of one session, without a postmaster: it reads SQL from its input.
        let mut single = self.command("postgres");
        single.args(["--single", "-F", "-D"]).arg(directory).arg("postgres").stdin(Stdio::piped());
        let mut child = single.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            std::io::Write::write_all(&mut input, b"create database fhir\n")?;
        }
        ensure!(child.wait()?.success(), "the database of the template could not be created");
        Ok(())
    }
}

/// Postgres refuses to run as root: then it runs as the user `postgres`, else as we do.
fn owner() -> Option<(Uid, Gid)> {
    if !geteuid().is_root() {
        return None;
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten())?;
    Some((user.uid, user.gid))
}

fn as_owner(mut command: Command) -> Command {
    if let Some((uid, gid)) = owner() {
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command.current_dir("/").env_remove("PGDATA").env("LC_ALL", "C");
    command
}

/// Creates a folder that belongs to the user that Postgres runs as.
pub fn create_owned(directory: &Path) -> Result<()> {
    std::fs::create_dir(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    if let Some((uid, gid)) = owner() {
        chown(directory, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Copies a cluster that is not running.
pub(crate) fn copy_cluster(from: &Path, to: &Path) -> Result<()> {
    let mut copy = as_owner(Command::new("cp"));
    succeed(copy.args(["-R", "-p"]).arg(from).arg(to))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
