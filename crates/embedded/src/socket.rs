//! The directory of the Unix socket: private, and short enough for a socket's address.

use crate::account::Account;
use anyhow::Context as _;
use nix::unistd::Uid;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A socket's address holds 104 bytes on macOS and 108 on Linux, its final zero included.
const LONGEST: usize = 103;

/// What Postgres appends, at its longest.
const NAME: &str = "/.s.PGSQL.65535";

/// The directory for the socket: in `postgres`, or, where that is too long, a private one in `short`.
/// `previous`: the one of the last run, used again if it is still ours.
pub(super) fn directory(
    postgres: &Path,
    short: &Path,
    previous: Option<&Path>,
    account: Option<&Account>,
) -> anyhow::Result<PathBuf> {
    let usual = postgres.join("socket");
    if usual.as_os_str().len() + NAME.len() <= LONGEST {
        if !usual.is_dir() {
            DirBuilder::new()
                .mode(0o700)
                .create(&usual)
                .with_context(|| format!("cannot make {}", usual.display()))?;
        }
        give(&usual, account)?;
        return Ok(usual);
    }
    if let Some(previous) = previous.filter(|previous| is_private(previous, account)) {
        return Ok(previous.to_owned());
    }
    let directory = tempfile::Builder::new()
        .prefix("fhir-tail-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(short)
        .with_context(|| format!("cannot make a directory for the socket in {}", short.display()))?
        .keep();
    give(&directory, account)?;
    Ok(directory)
}

fn give(directory: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    if let Some(account) = account {
        std::os::unix::fs::lchown(directory, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
            .with_context(|| format!("cannot give {} to user {}", directory.display(), account.name))?;
    }
    Ok(())
}

/// Whether it is a directory (no link) that nobody but the right user may enter: in a folder that all may
/// write to, somebody else could have put one there.
fn is_private(path: &Path, account: Option<&Account>) -> bool {
    let owner = account.map_or_else(Uid::effective, |account| account.uid);
    std::fs::symlink_metadata(path)
        .is_ok_and(|it| it.is_dir() && it.uid() == owner.as_raw() && it.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_used_as_it_is() {
        let postgres = tempfile::tempdir().unwrap();
        let directory = directory(postgres.path(), Path::new("/nonexistent"), None, None).unwrap();
        assert_eq!(directory, postgres.path().join("socket"));
        assert!(is_private(&directory, None));
    }

    #[test]
    fn a_long_path_gets_a_private_one_elsewhere_and_keeps_it() {
        let home = tempfile::tempdir().unwrap();
        let postgres = home.path().join("x".repeat(100));
        let first = directory(&postgres, home.path(), None, None).unwrap();
        assert_eq!(first.parent().unwrap(), home.path());
        assert!(is_private(&first, None));
        let second = directory(&postgres, home.path(), Some(&first), None).unwrap();
        assert_eq!(first, second);
        std::fs::set_permissions(&first, Permissions::from_mode(0o755)).unwrap();
        let third = directory(&postgres, home.path(), Some(&first), None).unwrap();
        assert_ne!(first, third);
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&third, &link).unwrap();
        assert!(!is_private(&link, None));
    }
}
