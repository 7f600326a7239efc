//! The data directory: who may enter it, and that only one of us uses it.
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
use nix::unistd::{Gid, Uid};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A user other than ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

/// The directory is another process's.
#[derive(Debug)]
pub(crate) struct InUse {
    directory: PathBuf,
    /// The one who uses it, as it wrote itself down.
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

    /// The part of the embedded Postgres. `account`: whose it is, if not ours.
    pub(crate) fn postgres(&self, account: Option<&Account>) -> anyhow::Result<PathBuf> {
        let postgres = self.path.join("postgres");
        make_all(&postgres, 0o700).with_context(|| format!("cannot make {}", postgres.display()))?;
        if let Some(account) = account {
            std::os::unix::fs::chown(&postgres, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
                .with_context(|| format!("cannot give {} to user {}", postgres.display(), account.name))?;
            let mode = std::fs::metadata(&self.path)?.mode() & 0o7777;
            std::fs::set_permissions(&self.path, Permissions::from_mode(mode | 0o011))?;
            passable(&self.path, account)?;
        }
        Ok(postgres)
    }
}

/// Makes a directory and what is missing above it.
pub(crate) fn make_all(path: &Path, mode: u32) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // What lies between is not secret, and another user may have to pass through it.
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

/// Whether the user may pass through this directory and all above it.
fn passable(path: &Path, account: &Account) -> anyhow::Result<()> {
    let path = path.canonicalize()?;
    for directory in path.ancestors() {
        let metadata = std::fs::metadata(directory)?;
        let execute = if metadata.uid() == account.uid.as_raw() {
            0o100
        } else if metadata.gid() == account.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        if metadata.mode() & execute == 0 {
            bail!(
                "Postgres does not run as root, and user {} may not pass through {}: \
                 choose another --data-dir, or chmod o+x that directory",
                account.name,
                directory.display()
            );
        }
    }
    Ok(())
}

/// Writes a file that only we may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = parent(path);
    // tempfile's files are 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The folder that a file is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_second_one_is_refused_until_the_first_is_gone() {
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
    fn nobody_else_may_look_in() {
        let home = tempfile::tempdir().unwrap();
        let data = DataDir::open(&home.path().join("data")).unwrap();
        assert_eq!(mode(data.path()), 0o700);
        assert_eq!(mode(&data.journal().unwrap()), 0o700);
        assert_eq!(mode(&data.postgres(None).unwrap()), 0o700);
        assert_eq!(mode(&data.path().join("lock")), 0o600);
        let private = data.path().join("private");
        write_private(&private, "x").unwrap();
        assert_eq!(mode(&private), 0o600);
    }

    #[test]
    fn a_directory_that_stops_the_other_user_is_named() {
        let account =
            Account { name: "somebody".to_owned(), uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("inner");
        make_all(&inner, 0o711).unwrap();
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let refusal = passable(&inner, &account).unwrap_err().to_string();
        assert!(refusal.contains(&home.path().canonicalize().unwrap().display().to_string()), "{refusal}");
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        passable(&inner, &account).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DataDir::open(file.path()).is_err());
        assert!(DataDir::open(&file.path().join("below")).is_err());
    }
}
