//! The data directory: its permissions, and the lock that lets one process use it.
//!
//! ```text
//! DIR/                ours, 0700; 0711 when Postgres runs as another user, who must pass through
//!   lock              held while a command uses the directory
//!   journal/          ours, 0700
//!   embedded.toml     ours, 0600: how to reach the embedded Postgres
//!   postgres.log      ours, 0600: what it says
//!   postgres/         its user's, 0700: the cluster and the socket
//! ```

use anyhow::{Context as _, bail};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Another process uses the directory.
#[derive(Debug)]
pub(crate) struct InUse {
    directory: PathBuf,
    /// The process id that the other process wrote into the lock file.
    process: String,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another fhir-tail (process {}) uses {}", self.process, self.directory.display())
    }
}

/// The directory, ours alone until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    // Released by the kernel when it is closed, however we end.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        match Self::try_open(path)? {
            Ok(data_dir) => Ok(data_dir),
            Err(in_use) => bail!("{in_use}: stop it, or give this one another --data-dir"),
        }
    }

    /// As [`open`](Self::open), but for one that is another's.
    pub(crate) fn try_open(path: &Path) -> anyhow::Result<Result<Self, InUse>> {
        make_all(path, 0o700)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        Ok(lock(path)?.map(|lock| Self { path: path.to_owned(), _lock: lock }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the feed keeps its journal.
    pub(crate) fn journal(&self) -> anyhow::Result<PathBuf> {
        let journal = self.path.join("journal");
        make_all(&journal, 0o700).with_context(|| format!("cannot make {}", journal.display()))?;
        Ok(journal)
    }
}

/// Makes a directory and what is missing above it.
pub(crate) fn make_all(path: &Path, mode: u32) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // Parent folders are not secret, and the user of Postgres may have to pass through them.
        make_all(parent, 0o755)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ if path.is_dir() => std::fs::set_permissions(path, Permissions::from_mode(mode)),
        _ => Err(std::io::Error::from(ErrorKind::NotADirectory)),
    }
}

fn lock(directory: &Path) -> anyhow::Result<Result<File, InUse>> {
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Best effort: the message is useful without it.
            let _ = file.read_to_string(&mut pid);
            Ok(Err(InUse { directory: directory.to_owned(), process: pid.trim().to_owned() }))
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn second_process_is_refused_until_the_first_ends() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        let refusal = format!("{:#}", DataDir::open(&path).unwrap_err());
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(refusal.contains("--data-dir"), "{refusal}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn only_the_owner_may_read() {
        let home = tempfile::tempdir().unwrap();
        let data = DataDir::open(&home.path().join("data")).unwrap();
        assert_eq!(mode(data.path()), 0o700);
        assert_eq!(mode(&data.journal().unwrap()), 0o700);
        assert_eq!(mode(&data.path().join("lock")), 0o600);
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DataDir::open(file.path()).is_err());
        assert!(DataDir::open(&file.path().join("below")).is_err());
    }
}
