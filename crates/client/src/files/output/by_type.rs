//! A file per type, in the folder `partial` until the download is complete.
//!
//! Resources and the Bundles of their deletions stand in the type's file in the order in which they came. What of
//! them counts is for [`settle`](crate::files::compact) to say.

use super::appended::{Appended, remove};
use crate::error::{Context as _, Result};
use crate::files::folder::{make, sync_directory};
use crate::files::state::{Run, Stage, Written};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of a folder.
#[derive(Debug)]
pub(crate) struct ByType {
    run: Run,
    partial: PathBuf,
    files: BTreeMap<String, Appended>,
    forgotten: Vec<PathBuf>,
    /// A file was made since the names were last on disk.
    new_name: bool,
}

/// Where files are until the download is complete.
pub(crate) fn partial(directory: &Path) -> PathBuf {
    directory.join("partial")
}

/// The extension of a file.
pub(crate) fn extension_of(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

impl ByType {
    pub(super) fn new(directory: &Path) -> Result<Self> {
        Self::recover(directory, Run::FIRST, &BTreeMap::new())
    }

    /// As it was when the files of this run had so many bytes.
    pub(super) fn recover(directory: &Path, run: Run, bytes: &BTreeMap<String, u64>) -> Result<Self> {
        let partial = partial(directory);
        make(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        let mut types = Self { run, partial, files: BTreeMap::new(), forgotten: Vec::new(), new_name: true };
        for entry in std::fs::read_dir(&types.partial)? {
            let path = entry?.path();
            let known =
                path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| bytes.contains_key(stem));
            // What is settled was settled from what is cut now.
            if !known || extension_of(&path) != Some("ndjson") {
                remove(&path)?;
            }
        }
        for (name, bytes) in bytes {
            types.files.insert(name.clone(), Appended::recover(types.path(name), *bytes)?);
        }
        Ok(types)
    }

    pub(super) fn run(&self) -> Run {
        self.run
    }

    pub(super) fn append(&mut self, name: &str, lines: &[u8]) -> Result<()> {
        if !self.files.contains_key(name) {
            self.new_name = true;
            self.files.insert(name.to_owned(), Appended::create(self.path(name))?);
        }
        self.files.get_mut(name).map_or(Ok(()), |file| file.append(lines))
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.files.values_mut().try_for_each(Appended::sync)?;
        if self.new_name {
            sync_directory(&self.partial)
                .with_context(|| format!("cannot write to {}", self.partial.display()))?;
            self.new_name = false;
        }
        Ok(())
    }

    pub(super) fn written(&self) -> Written {
        let bytes = self.files.iter().map(|(name, file)| (name.clone(), file.bytes())).collect();
        Written::Download { run: self.run, stage: Stage::Receiving, bytes }
    }

    /// All comes anew: what earlier runs brought does not count any more, either.
    pub(super) fn forget(&mut self) {
        self.run.all = true;
        for name in std::mem::take(&mut self.files).into_keys() {
            self.forgotten.push(self.path(&name));
        }
    }

    pub(super) fn discard(&mut self) -> Result<()> {
        self.forgotten.drain(..).try_for_each(|path| remove(&path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.partial.join(name).with_extension("ndjson")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(directory: &Path) -> BTreeMap<String, String> {
        std::fs::read_dir(partial(directory))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect()
    }

    #[test]
    fn recovered_they_have_what_was_saved() {
        let home = tempfile::tempdir().unwrap();
        let mut types = ByType::new(home.path()).unwrap();
        types.append("Patient", b"1\n").unwrap();
        types.sync().unwrap();
        let Written::Download { bytes, .. } = types.written() else { panic!() };
        assert_eq!(bytes, [("Patient".to_owned(), 2)].into());
        types.append("Patient", b"2\n").unwrap();
        types.append("Group", b"3\n").unwrap();
        drop(types);
        std::fs::write(partial(home.path()).join("Patient.settled"), "").unwrap();
        let mut types = ByType::recover(home.path(), Run::FIRST, &bytes).unwrap();
        assert_eq!(content(home.path()), [("Patient.ndjson".to_owned(), "1\n".to_owned())].into());
        types.append("Group", b"3\n").unwrap();
        types.append("Patient", b"2\n").unwrap();
        types.sync().unwrap();
        assert_eq!(content(home.path())["Patient.ndjson"], "1\n2\n");
    }

    #[test]
    fn what_is_forgotten_is_there_until_it_is_discarded() {
        let home = tempfile::tempdir().unwrap();
        let later = Run { number: 2, all: false };
        let mut types = ByType::recover(home.path(), later, &BTreeMap::new()).unwrap();
        types.append("Patient", b"1\n").unwrap();
        types.forget();
        let run = Run { all: true, ..later };
        assert_eq!(
            types.written(),
            Written::Download { run, stage: Stage::Receiving, bytes: BTreeMap::new() }
        );
        assert_eq!(content(home.path()).len(), 1);
        types.discard().unwrap();
        types.append("Patient", b"2\n").unwrap();
        types.sync().unwrap();
        assert_eq!(content(home.path()), [("Patient.ndjson".to_owned(), "2\n".to_owned())].into());
    }
}
