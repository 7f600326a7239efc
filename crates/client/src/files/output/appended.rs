//! A file that lines are appended to.

use crate::error::{Context as _, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Its end is where we are.
#[derive(Debug)]
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Something was written since it was last on disk.
    dirty: bool,
}

impl Appended {
    /// Makes it. Its name is on disk once its folder is.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, file, bytes: 0, dirty: false })
    }

    /// Opens it as it was when it had so many bytes: what was written after is cut off, since it comes again.
    pub(super) fn recover(path: PathBuf, bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().write(true).open(&path).with_context(|| {
            format!("cannot open {}, of which the state file says that it has {bytes} bytes", path.display())
        })?;
        let wrong = || format!("cannot cut {} to {bytes} bytes", path.display());
        let length = file.metadata().with_context(wrong)?.len();
        if length < bytes {
            bail!(
                "{} has {length} bytes, and the state file says that it had {bytes}: it was changed. Restore \
                 it, or start over with another --output",
                path.display()
            );
        }
        file.set_len(bytes).with_context(wrong)?;
        (&file).seek(SeekFrom::Start(bytes)).with_context(wrong)?;
        Ok(Self { path, file, bytes, dirty: length > bytes })
    }

    pub(super) fn append(&mut self, lines: &[u8]) -> Result<()> {
        self.dirty = true;
        self.file.write_all(lines).with_context(|| format!("cannot write to {}", self.path.display()))?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Returns when it is on disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        if self.dirty {
            self.file.sync_data().with_context(|| format!("cannot write to {}", self.path.display()))?;
            self.dirty = false;
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Removes a file; that it is gone already is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever was saved and whatever was written after: recovered, the file has what was saved, and goes on.
        #[test]
        fn what_was_written_after_the_last_save_is_cut(
            saved in prop::collection::vec("[a-z]{0,9}\n", 0..6),
            after in prop::collection::vec("[a-z]{0,9}\n", 0..6),
            torn in 0..60_usize,
            more in "[A-Z]{0,9}\n",
        ) {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("f.ndjson");
            let mut file = Appended::create(path.clone()).unwrap();
            saved.iter().for_each(|line| file.append(line.as_bytes()).unwrap());
            file.sync().unwrap();
            let bytes = file.bytes();
            let after = after.concat();
            file.append(&after.as_bytes()[..torn.min(after.len())]).unwrap();
            drop(file);

            let mut file = Appended::recover(path.clone(), bytes).unwrap();
            prop_assert_eq!(std::fs::read_to_string(&path).unwrap(), saved.concat());
            file.append(more.as_bytes()).unwrap();
            file.sync().unwrap();
            prop_assert_eq!(std::fs::read_to_string(&path).unwrap(), saved.concat() + &more);
            prop_assert_eq!(file.bytes(), bytes + more.len() as u64);
        }
    }

    #[test]
    fn a_file_that_lost_something_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("f.ndjson");
        let refusal = |bytes| format!("{:#}", Appended::recover(path.clone(), bytes).unwrap_err());
        assert!(refusal(1).contains("the state file says"));
        std::fs::write(&path, "abc").unwrap();
        assert!(refusal(4).contains("has 3 bytes") && refusal(4).contains("had 4"));
        assert!(format!("{:#}", Appended::create(path.clone()).unwrap_err()).contains("cannot make"));
    }
}
