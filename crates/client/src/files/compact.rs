//! The end of a download: keeps the last version of each resource.
//!
//! While a download runs, a resource may arrive again in a newer version, or be deleted, or created again. [`compact`] writes
//! for each type, where it must, the lines that count: of each resource the last, and the deletions among these to the
//! file of deletions. [`place`] then moves all to where they belong: the files of the first run into the folder, those of a
//! later one into a subfolder. Both can be repeated after an interruption.
//!
//! Takes eight bytes of memory for each resource of a type, and more for those that arrived more than once.

use super::folder::{parent, sync_directory};
use super::output::{extension_of, partial};
use super::state::Run;
use crate::Error;
use crate::content::{Deletion, NotUnderstood};
use crate::error::{Context as _, Result};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file of the deletions, as in Bulk Data. No type has this name.
const DELETED: &str = "deleted";
/// The extension of files that are compacted and not in place yet: part of the format, as a download can be resumed here.
const SETTLED: &str = "settled";
const BUFFER: usize = 1 << 20;

/// Compacts all types. The original files stay.
pub(super) fn compact(directory: &Path) -> Result<()> {
    let partial = partial(directory);
    let mut deleted = Lines::create(partial.join(DELETED).with_extension(SETTLED))?;
    for log in files(&partial, "ndjson")? {
        compact_type(&log, &mut deleted).with_context(|| format!("cannot compact {}", log.display()))?;
    }
    deleted.sync()?;
    sync_directory(&partial).with_context(|| format!("cannot write to {}", partial.display()))
}

/// Moves compacted files to their final place. `as_of`: the time that the run is complete as of.
pub(super) fn place(directory: &Path, run: Run, as_of: Option<&str>) -> Result<()> {
    let partial = partial(directory);
    let to = folder(directory, run, as_of);
    if partial.is_dir() {
        let moved = if to == directory { move_all(&partial, directory) } else { move_as_one(&partial, &to) };
        moved.with_context(|| format!("cannot move the files to {}", to.display()))?;
    }
    Ok(())
}

/// The final folder of a run's files. Names of folders sort by the number of the run.
pub(super) fn folder(directory: &Path, run: Run, as_of: Option<&str>) -> PathBuf {
    if run.number == Run::FIRST.number {
        return directory.to_owned();
    }
    let mut name = format!("{:06}", run.number);
    // Whatever else the service says is no part of a path.
    if let Some(as_of) = as_of.and_then(|as_of| as_of.parse::<fhir::Instant>().ok()) {
        name.push('-');
        name.extend(as_of.to_fhir().chars().filter(|c| !matches!(c, '-' | ':')));
    }
    if run.all {
        name.push_str("-all");
    }
    directory.join(name)
}

/// Whether a folder of a later run may have this name.
pub(super) fn is_folder(name: &str) -> bool {
    let (number, rest) = name.split_at_checked(6).unwrap_or_default();
    !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && (rest.is_empty() || rest.starts_with('-'))
}

/// Of a later run all files appear at once. If nothing has changed there is no folder.
fn move_as_one(partial: &Path, to: &Path) -> Result<()> {
    take_settled(partial)?;
    let mut some = false;
    for file in files(partial, "ndjson")? {
        if std::fs::metadata(&file)?.len() == 0 {
            std::fs::remove_file(&file)?;
        } else {
            some = true;
        }
    }
    sync_directory(partial)?;
    if some {
        std::fs::rename(partial, to)?;
    } else {
        std::fs::remove_dir(partial)?;
    }
    Ok(sync_directory(parent(to))?)
}

/// What is settled takes the place of what it was made from.
fn take_settled(partial: &Path) -> Result<()> {
    for settled in files(partial, SETTLED)? {
        std::fs::rename(&settled, settled.with_extension("ndjson"))?;
    }
    Ok(sync_directory(partial)?)
}

/// First what is settled takes the place of what it was made from, at once for each file; then all are moved. Were
/// it done in one step, a file that was moved already could be followed by the one that it was made from.
fn move_all(partial: &Path, directory: &Path) -> Result<()> {
    take_settled(partial)?;
    for file in files(partial, "ndjson")? {
        if std::fs::metadata(&file)?.len() == 0 {
            std::fs::remove_file(&file)?;
        } else if let Some(name) = file.file_name() {
            std::fs::rename(&file, directory.join(name))?;
        }
    }
    sync_directory(directory)?;
    std::fs::remove_dir(partial)?;
    Ok(sync_directory(directory)?)
}

/// The files with this extension, in the order of their names.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if extension_of(&path) == Some(extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum About {
    Resource,
    Deletion,
}

fn compact_type(log: &Path, deleted: &mut Lines) -> Result<()> {
    let hasher = RandomState::new();
    let (mut hashes, mut deletions) = (Vec::new(), false);
    for_each_line(log, |_, _, about, id| {
        hashes.push(hasher.hash_one(id));
        deletions |= about == About::Deletion;
        Ok(())
    })?;
    // Two ids that share a hash are only looked at more closely than they need.
    let more_than_once = repeated(hashes);
    if more_than_once.is_empty() && !deletions {
        return Ok(());
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    for_each_line(log, |number, _, _, id| {
        if more_than_once.contains(&hasher.hash_one(id)) {
            last.insert(id.to_owned(), number);
        }
        Ok(())
    })?;
    let mut kept = Lines::create(log.with_extension(SETTLED))?;
    for_each_line(log, |number, line, about, id| {
        if last.get(id).is_some_and(|last| *last != number) {
            return Ok(());
        }
        match about {
            About::Resource => kept.write(line),
            About::Deletion => deleted.write(line),
        }
    })?;
    kept.sync()
}

/// The values that are there more than once.
fn repeated(mut values: Vec<u64>) -> HashSet<u64> {
    values.sort_unstable();
    values.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Reads a file: the number of each line, the line with its end, what it is about, and the id of that.
fn for_each_line(path: &Path, mut each: impl FnMut(u64, &[u8], About, &str) -> Result<()>) -> Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER, File::open(path)?);
    let mut line = Vec::new();
    for number in 0.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match fhir::stored_id(&line) {
            Some(id) => each(number, &line, About::Resource, id)?,
            None => {
                let Deletion { id, .. } = Deletion::of(&line)
                    .map_err(|error: NotUnderstood| Error::Failed(format!("line {}: {error}", number + 1)))?;
                each(number, &line, About::Deletion, &id)?;
            }
        }
    }
    Ok(())
}

/// A file that is written from its beginning.
struct Lines {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, writer: BufWriter::with_capacity(BUFFER, file) })
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        self.writer.write_all(line).with_context(|| format!("cannot write to {}", self.path.display()))
    }

    fn sync(mut self) -> Result<()> {
        self.writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_all())
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhir::{Columns, Instant, ResourceType};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TYPES: [ResourceType; 2] = [ResourceType::PATIENT, ResourceType::BUNDLE];

    /// What comes: the type, the id, the version, whether it is a deletion.
    type Change = (usize, u8, bool);

    fn line(change: &Change, version: usize) -> Vec<u8> {
        let (kind, id, deleted) = *change;
        let columns = Columns {
            resource_type: TYPES[kind],
            id: &format!("r{id}"),
            version_id: i64::try_from(version).unwrap(),
            last_updated: Instant::from_unix_micros(0),
        };
        let mut line = Vec::new();
        if deleted {
            fhir::write_deletion(&columns, &mut line).unwrap();
        } else {
            let content = format!(r#"{{"resourceType":"{}","entry":[{{"id":"r9"}}]}}"#, TYPES[kind]);
            fhir::write_resource(content.as_bytes(), &columns, &mut line).unwrap();
        }
        line.push(b'\n');
        line
    }

    fn read(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, if path.is_dir() { vec![] } else { std::fs::read(path).unwrap() })
            })
            .collect()
    }

    /// What should be there: of each resource the last, in the order in which they came.
    fn expected(changes: &[Change]) -> BTreeMap<String, Vec<u8>> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        // Deletions of Bundles come first, as their file's name does.
        for kind in [1, 0] {
            for (version, change) in changes.iter().enumerate().filter(|(_, change)| change.0 == kind) {
                if changes[version + 1..].iter().any(|later| (later.0, later.1) == (change.0, change.1)) {
                    continue;
                }
                let name = if change.2 { "deleted" } else { TYPES[kind].as_str() };
                files.entry(format!("{name}.ndjson")).or_default().extend(line(change, version));
            }
        }
        files
    }

    fn download(changes: &[Change]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(partial(home.path())).unwrap();
        let mut logs: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        for (version, change) in changes.iter().enumerate() {
            let log = partial(home.path()).join(TYPES[change.0].as_str()).with_extension("ndjson");
            logs.entry(log).or_default().extend(line(change, version));
        }
        for (path, lines) in logs {
            std::fs::write(path, lines).unwrap();
        }
        home
    }

    proptest! {
        #[test]
        fn each_resource_stands_once_in_its_last_version(
            changes in prop::collection::vec((0..2_usize, 0..6_u8, prop::bool::weighted(0.3)), 0..25),
            again in any::<bool>(),
        ) {
            let home = download(&changes);
            compact(home.path()).unwrap();
            if again {
                compact(home.path()).unwrap();
            }
            place(home.path(), Run::FIRST, None).unwrap();
            place(home.path(), Run::FIRST, None).unwrap();
            prop_assert_eq!(read(home.path()), expected(&changes));
        }

        /// Stopped after any number of its renames, placing goes on where it was.
        #[test]
        fn placing_can_be_interrupted(
            changes in prop::collection::vec((0..2_usize, 0..6_u8, prop::bool::weighted(0.3)), 0..25),
            renames in 0..6_usize,
        ) {
            let home = download(&changes);
            compact(home.path()).unwrap();
            let partial = partial(home.path());
            let settled = files(&partial, SETTLED).unwrap();
            settled.iter().take(renames).for_each(|path| std::fs::rename(path, path.with_extension("ndjson")).unwrap());
            if renames > settled.len() {
                for file in files(&partial, "ndjson").unwrap().into_iter().take(renames - settled.len()) {
                    if std::fs::metadata(&file).unwrap().len() > 0 {
                        std::fs::rename(&file, home.path().join(file.file_name().unwrap())).unwrap();
                    }
                }
            }
            place(home.path(), Run::FIRST, None).unwrap();
            prop_assert_eq!(read(home.path()), expected(&changes));
        }
    }

    proptest! {
        /// A later run has a folder of its own, at once and once, wherever the first attempt was interrupted.
        #[test]
        fn a_later_run_has_its_own_folder(
            changes in prop::collection::vec((0..2_usize, 0..6_u8, prop::bool::weighted(0.3)), 0..25),
            renames in 0..4_usize,
            all in any::<bool>(),
        ) {
            let home = download(&changes);
            let run = Run { number: 12, all };
            compact(home.path()).unwrap();
            let settled = files(&partial(home.path()), SETTLED).unwrap();
            settled.iter().take(renames).for_each(|path| std::fs::rename(path, path.with_extension("ndjson")).unwrap());
            let as_of = Some("2026-11-30T23:16:28.5+01:00");
            place(home.path(), run, as_of).unwrap();
            place(home.path(), run, as_of).unwrap();
            let to = folder(home.path(), run, as_of);
            let name = to.file_name().unwrap().to_str().unwrap();
            prop_assert!(is_folder(name));
            prop_assert_eq!(name, if all { "000012-20261130T221628.500000Z-all" } else { "000012-20261130T221628.500000Z" });
            if expected(&changes).is_empty() {
                prop_assert!(read(home.path()).is_empty());
            } else {
                prop_assert_eq!(read(&to), expected(&changes));
                prop_assert_eq!(read(home.path()).len(), 1);
            }
        }
    }

    #[test]
    fn a_time_that_is_none_is_no_part_of_a_path() {
        let run = Run { number: 2, all: false };
        for as_of in [None, Some("../../x"), Some(""), Some("2026")] {
            assert_eq!(folder(Path::new("d"), run, as_of), Path::new("d/000002"));
        }
        assert_eq!(folder(Path::new("d"), Run::FIRST, Some("2026-11-30T22:16:28Z")), Path::new("d"));
    }

    #[test]
    fn a_type_without_repeats_is_not_rewritten() {
        let home = download(&[(0, 1, false), (0, 2, false)]);
        compact(home.path()).unwrap();
        assert_eq!(
            files(&partial(home.path()), SETTLED).unwrap(),
            [partial(home.path()).join("deleted.settled")]
        );
    }

    #[test]
    fn a_line_that_is_neither_is_named_without_its_content() {
        let home = download(&[(0, 1, false)]);
        let log = partial(home.path()).join("Patient.ndjson");
        std::fs::write(&log, "{\"resourceType\":\"Patient\",\"id\":\"a\"}\n{\"secret\":1}\n").unwrap();
        let error = compact(home.path()).unwrap_err();
        let message = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(message.contains("Patient.ndjson") && message.contains("line 2"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
