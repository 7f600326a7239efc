//! Numbered files, one after the other: `00000001.ndjson`, `00000002.ndjson`, …
//!
//! All but the newest are complete and are not looked at again, so whoever has done with one may take it away.

use super::appended::{Appended, remove};
use crate::error::{Context as _, Result};
use crate::files::folder::sync_directory;
use crate::files::state::Written;
use std::path::{Path, PathBuf};

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct Sequence {
    directory: PathBuf,
    rotate_bytes: u64,
    number: u64,
    /// The newest; made with its first line.
    newest: Option<Appended>,
    /// A file was made since the names were last on disk.
    new_name: bool,
}

impl Sequence {
    pub(super) fn new(directory: &Path, rotate_bytes: u64) -> Self {
        Self { directory: directory.to_owned(), rotate_bytes, number: 1, newest: None, new_name: false }
    }

    /// As it was when the newest file had this number and so many bytes.
    pub(super) fn recover(directory: &Path, rotate_bytes: u64, number: u64, bytes: u64) -> Result<Self> {
        let mut sequence = Self { number, ..Self::new(directory, rotate_bytes) };
        for entry in
            std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let path = entry?.path();
            let later = number_of(&path).is_some_and(|of| of > number || (of == number && bytes == 0));
            if later {
                remove(&path)?;
            }
        }
        if bytes > 0 {
            sequence.newest = Some(Appended::recover(sequence.path(), bytes)?);
        }
        Ok(sequence)
    }

    pub(super) fn append(&mut self, lines: &[u8]) -> Result<()> {
        if self.newest.as_ref().is_some_and(|newest| newest.bytes() >= self.rotate_bytes) {
            // What the state file no longer names must be on disk before it is replaced.
            self.sync()?;
            self.newest = None;
            self.number += 1;
        }
        let newest = match &mut self.newest {
            Some(newest) => newest,
            none => {
                self.new_name = true;
                none.insert(Appended::create(path(&self.directory, self.number))?)
            }
        };
        newest.append(lines)
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        if let Some(newest) = &mut self.newest {
            newest.sync()?;
        }
        if self.new_name {
            sync_directory(&self.directory)
                .with_context(|| format!("cannot write to {}", self.directory.display()))?;
            self.new_name = false;
        }
        Ok(())
    }

    pub(super) fn written(&self) -> Written {
        Written::Sequence { file: self.number, bytes: self.newest.as_ref().map_or(0, Appended::bytes) }
    }

    fn path(&self) -> PathBuf {
        path(&self.directory, self.number)
    }
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:08}.ndjson"))
}

/// The number of a file of ours.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".ndjson")?;
    let ours = name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    if ours { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(directory: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        files.sort();
        files
    }

    fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn the_next_file_begins_when_one_is_large_enough() {
        let home = tempfile::tempdir().unwrap();
        let mut sequence = Sequence::new(home.path(), 4);
        assert_eq!(sequence.written(), Written::Sequence { file: 1, bytes: 0 });
        for lines in ["a\n", "bc\n", "d\n"] {
            sequence.append(lines.as_bytes()).unwrap();
        }
        sequence.sync().unwrap();
        assert_eq!(
            content(home.path()),
            named(&[("00000001.ndjson", "a\nbc\n"), ("00000002.ndjson", "d\n")])
        );
        assert_eq!(sequence.written(), Written::Sequence { file: 2, bytes: 2 });
    }

    #[test]
    fn recovered_it_has_what_was_saved_and_no_file_of_others_is_touched() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("99.ndjson"), "theirs").unwrap();
        for (file, bytes, expected) in [
            (2, 2, &[("00000002.ndjson", "b\n")][..]),
            (2, 0, &[]),
            (1, 2, &[("00000001.ndjson", "a\n")]),
            (1, 0, &[]),
        ] {
            for (name, text) in
                [("00000001.ndjson", "a\nA\n"), ("00000002.ndjson", "b\nB\n"), ("00000003.ndjson", "c\n")]
            {
                std::fs::write(home.path().join(name), text).unwrap();
            }
            // What is complete may be gone.
            if file == 2 {
                std::fs::remove_file(home.path().join("00000001.ndjson")).unwrap();
            }
            let mut sequence = Sequence::recover(home.path(), 2, file, bytes).unwrap();
            let mut all = named(expected);
            all.push(("99.ndjson".to_owned(), "theirs".to_owned()));
            assert_eq!(content(home.path()), all);
            assert_eq!(sequence.written(), Written::Sequence { file, bytes });
            sequence.append(b"more\n").unwrap();
            sequence.sync().unwrap();
            let next = if bytes == 0 { file } else { file + 1 };
            assert_eq!(sequence.written(), Written::Sequence { file: next, bytes: 5 });
        }
    }

    #[test]
    fn a_newest_file_that_is_gone_is_missed() {
        let home = tempfile::tempdir().unwrap();
        let refusal = format!("{:#}", Sequence::recover(home.path(), 4, 3, 7).unwrap_err());
        assert!(refusal.contains("00000003.ndjson") && refusal.contains("7 bytes"), "{refusal}");
    }
}
