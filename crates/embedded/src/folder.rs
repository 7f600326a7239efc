//! The folder that Postgres runs in, which belongs to its user.

use crate::account::Account;
use anyhow::{Context as _, bail};
use std::fs::{DirBuilder, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Makes the folder of the cluster and its socket. `account`: its owner, if not our user.
pub(crate) fn make(home: &Path, account: Option<&Account>) -> anyhow::Result<PathBuf> {
    let postgres = home.join("postgres");
    let cannot = || format!("cannot make {}", postgres.display());
    match DirBuilder::new().mode(0o700).create(&postgres) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists || !postgres.is_dir() => {
            return Err(error).with_context(cannot);
        }
        _ => {}
    }
    if let Some(account) = account {
        std::os::unix::fs::chown(&postgres, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
            .with_context(|| format!("cannot give {} to user {}", postgres.display(), account.name))?;
        let mode = std::fs::metadata(home)?.mode() & 0o7777;
        std::fs::set_permissions(home, Permissions::from_mode(mode | 0o011))?;
        passable(home, account)?;
    }
    Ok(postgres)
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
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    // tempfile's files are 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    #[test]
    fn only_the_owner_may_read() {
        let home = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        for _ in 0..2 {
            assert_eq!(mode(&make(home.path(), None).unwrap()), 0o700);
        }
        let private = home.path().join("private");
        write_private(&private, "x").unwrap();
        assert_eq!(mode(&private), 0o600);
    }

    #[test]
    fn a_directory_that_stops_the_other_user_is_named() {
        let account =
            Account { name: "somebody".to_owned(), uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        let refusal = passable(&inner, &account).unwrap_err().to_string();
        assert!(refusal.contains(&home.path().canonicalize().unwrap().display().to_string()), "{refusal}");
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        passable(&inner, &account).unwrap();
    }
}
