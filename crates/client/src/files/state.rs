//! The state file: the position in the stream, and how much of each file belongs to it.
//!
//! It is replaced as a whole after the files are on disk. So it always describes files that exist; what they hold beyond
//! it arrives again, and is cut off first.

use super::folder::{parent, sync_directory};
use super::line::LineFormat;
use crate::error::{Context as _, Result, bail};
use crate::error::{Error, Mismatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Its name in the folder of what is written, unless another was given.
pub const IN_FOLDER: &str = "state.json";
/// The only format there is.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// What is followed, without a password.
    url: String,
    /// How its lines are written.
    #[serde(default, rename = "form", skip_serializing_if = "LineFormat::is_plain")]
    line_format: LineFormat,
    pub(super) position: Position,
    pub(super) written: Written,
}

impl State {
    /// A download that is complete is followed by one of what has changed since.
    pub(super) fn next_run(mut self) -> Self {
        if let Written::Download { run, stage: stage @ Stage::Complete, bytes } = &mut self.written {
            (*run, *stage) = (run.next(), Stage::Receiving);
            bytes.clear();
            self.position.live = None;
        }
        self
    }
}

/// How far a stream was followed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Position {
    /// The id of the last event; `None`: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_id: Option<String>,
    /// A `reset-all` was written, and not yet the `live` that ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resetting: bool,
    /// The last notice `live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// How many lines were written: the `seq` of the last one of an envelope.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lines: u64,
    /// How many of them before the current state began to come, the last time that it did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replay_from: u64,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A notice `live`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Live {
    /// The instant to use as the next `_since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_time: Option<String>,
}

/// What belongs to a position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Written {
    Stdout,
    /// The number of the newest file, and how much of it.
    Sequence {
        file: u64,
        bytes: u64,
    },
    /// How much of each type's file, and how far the download is.
    Download {
        #[serde(default)]
        run: Run,
        stage: Stage,
        bytes: BTreeMap<String, u64>,
    },
}

/// One run of a download into a folder. The first brings everything, a later one what has changed since the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Run {
    /// From 1.
    pub(super) number: u64,
    /// It has everything: what the runs before it brought does not count any more.
    pub(super) all: bool,
}

impl Run {
    pub(super) const FIRST: Self = Self { number: 1, all: true };

    /// The one that comes after it.
    pub(super) fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), all: false }
    }
}

/// Releases that knew one run only did not say which.
impl Default for Run {
    fn default() -> Self {
        Self::FIRST
    }
}

/// How far a download is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Stage {
    /// Events are received; then, after `live`, their files are settled.
    Receiving,
    /// The files are settled and take their places.
    Placing,
    /// Nothing is left to do.
    Complete,
}

/// The file, ours alone until this is dropped.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    url: String,
    line_format: LineFormat,
    // Released by the kernel when it is closed, however we end.
    _lock: File,
}

impl StateFile {
    /// Locks it, and reads it if it is there. `url` is what is followed: a state of something else, or of lines of another
    /// line_format, is refused.
    pub(super) fn open(path: &Path, url: &str, line_format: LineFormat) -> Result<(Self, Option<State>)> {
        let lock = lock(path)?;
        let state = match std::fs::read(path) {
            Ok(text) => Some(read(path, url, line_format, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok((Self { path: path.to_owned(), url: url.to_owned(), line_format, _lock: lock }, state))
    }

    /// Replaces it. What it describes must be on disk.
    pub(super) fn save(&self, position: &Position, written: Written) -> Result<()> {
        let (url, line_format) = (self.url.clone(), self.line_format);
        let state = State { version: VERSION, url, line_format, position: position.clone(), written };
        let text = serde_json::to_string_pretty(&state).context("cannot write the state")?;
        self.replace(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Of one name, since only who holds the lock writes it: however often we are killed, no more is left behind.
    fn replace(&self, text: &[u8]) -> std::io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        sync_directory(parent(&self.path))
    }
}

fn read(path: &Path, url: &str, line_format: LineFormat, text: &[u8]) -> Result<State> {
    let state: State = serde_json::from_slice(text).with_context(|| {
        format!(
            "{} is not a state file of this version: name another, or remove it to start over",
            path.display()
        )
    })?;
    if let Written::Download { bytes, .. } = &state.written
        && let Some(name) = bytes.keys().find(|name| !name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    {
        bail!(
            "{} names a file '{name}', which is not the name of a type: restore the state file",
            path.display()
        );
    }
    if state.version != VERSION {
        bail!("{} has version {}, and this program knows {VERSION}", path.display(), state.version);
    }
    if state.url != url {
        let message = format!(
            "{} belongs to {}, and this is {url}: give that URL with its --type and --since, or another --state or \
             --output; without that file and what was written with it this starts over",
            path.display(),
            state.url
        );
        return Err(Error::Mismatch { mismatch: Mismatch::Url, message });
    }
    if state.line_format != line_format {
        let message = format!(
            "{} belongs to lines that are {}: follow as it was started, or name another --state or --output",
            path.display(),
            match state.line_format {
                LineFormat::Plain => "the resources themselves (no --envelope)",
                LineFormat::Envelope => "envelopes (--envelope)",
            }
        );
        return Err(Error::Mismatch { mismatch: Mismatch::LineFormat, message });
    }
    Ok(state)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    PathBuf::from(name)
}

/// Keeps others out of a folder for as long as the file is open. `None`: the state file is there, and does so by itself.
pub(super) fn lock_folder(directory: &Path, state: &Path) -> Result<Option<File>> {
    let usual = directory.join(IN_FOLDER);
    // Both folders are there, or are said not to be by what follows.
    let folder = |path: &Path| std::fs::canonicalize(parent(path)).ok();
    let same = state.file_name() == usual.file_name() && folder(state) == folder(&usual);
    if same { Ok(None) } else { lock(&usual).map(Some) }
}

/// The state file itself is replaced again and again, so a file beside it is locked.
fn lock(path: &Path) -> Result<File> {
    let path = beside(path, ".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another fhir-tail keeps its position there ({} is locked): stop it, or name another --state or --output",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(id: &str) -> Position {
        Position { last_event_id: Some(id.to_owned()), ..Position::default() }
    }

    #[test]
    fn what_is_saved_is_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        let states = [
            (Position::default(), Written::Stdout),
            (position("a"), Written::Sequence { file: 7, bytes: 42 }),
            (
                Position {
                    live: Some(Live { transaction_time: Some("t".into()) }),
                    resetting: true,
                    lines: 9,
                    replay_from: 4,
                    ..position("b")
                },
                Written::Download {
                    run: Run { number: 3, all: false },
                    stage: Stage::Placing,
                    bytes: [("Patient".to_owned(), 5)].into(),
                },
            ),
        ];
        let (file, none) = StateFile::open(&path, "http://h/$export", LineFormat::Plain).unwrap();
        assert_eq!(none, None);
        drop(file);
        for (position, written) in states {
            let (file, _) = StateFile::open(&path, "http://h/$export", LineFormat::Plain).unwrap();
            file.save(&position, written.clone()).unwrap();
            drop(file);
            let (_, state) = StateFile::open(&path, "http://h/$export", LineFormat::Plain).unwrap();
            let state = state.unwrap();
            assert_eq!((state.position, state.written), (position, written));
        }
    }

    #[test]
    fn another_url_and_another_process_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        let (file, _) = StateFile::open(&path, "http://h/a", LineFormat::Plain).unwrap();
        file.save(&position("a"), Written::Stdout).unwrap();
        let refusal = format!("{:#}", StateFile::open(&path, "http://h/a", LineFormat::Plain).unwrap_err());
        assert!(refusal.contains("is locked") && refusal.contains("--state"), "{refusal}");
        drop(file);
        let refusal = StateFile::open(&path, "http://h/b", LineFormat::Plain).unwrap_err();
        assert!(matches!(refusal, Error::Mismatch { mismatch: Mismatch::Url, .. }));
        let refusal = refusal.to_string();
        assert!(refusal.contains("belongs to http://h/a, and this is http://h/b"), "{refusal}");
    }

    #[test]
    fn a_state_of_an_earlier_release_is_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        let text = r#"{"version":1,"url":"u","position":{"lastEventId":"a","live":{"transactionTime":"t"}},
            "written":{"download":{"stage":"complete","bytes":{"Patient":7}}}}"#;
        std::fs::write(&path, text).unwrap();
        let (_, state) = StateFile::open(&path, "u", LineFormat::Plain).unwrap();
        let State { position, written, .. } = state.unwrap();
        assert_eq!((position.last_event_id.as_deref(), position.lines), (Some("a"), 0));
        let bytes = [("Patient".to_owned(), 7)].into();
        assert_eq!(written, Written::Download { run: Run::FIRST, stage: Stage::Complete, bytes });
    }

    #[test]
    fn what_is_complete_is_followed_by_the_next_run() {
        let live = Some(Live { transaction_time: Some("t".into()) });
        let state = |stage| State {
            version: VERSION,
            url: "u".to_owned(),
            line_format: LineFormat::Plain,
            position: Position { live: live.clone(), ..position("a") },
            written: Written::Download { run: Run::FIRST, stage, bytes: [("Patient".to_owned(), 5)].into() },
        };
        for stage in [Stage::Receiving, Stage::Placing] {
            assert_eq!(state(stage).next_run(), state(stage));
        }
        let next = state(Stage::Complete).next_run();
        assert_eq!(next.position, position("a"));
        let run = Run { number: 2, all: false };
        assert_eq!(next.written, Written::Download { run, stage: Stage::Receiving, bytes: BTreeMap::new() });
    }

    #[test]
    fn lines_of_another_form_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        for (begun, then) in
            [(LineFormat::Plain, LineFormat::Envelope), (LineFormat::Envelope, LineFormat::Plain)]
        {
            let (file, _) = StateFile::open(&path, "u", begun).unwrap();
            file.save(&position("a"), Written::Stdout).unwrap();
            drop(file);
            let refusal = StateFile::open(&path, "u", then).unwrap_err();
            assert!(matches!(refusal, Error::Mismatch { mismatch: Mismatch::LineFormat, .. }));
            assert!(refusal.to_string().contains("as it was started"), "{refusal}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_folder_is_for_one_wherever_the_position_is() {
        let home = tempfile::tempdir().unwrap();
        let (directory, elsewhere) = (home.path().join("d"), home.path().join("position.json"));
        std::fs::create_dir(&directory).unwrap();
        let usual = directory.join("..").join("d").join(IN_FOLDER);
        let (file, _) = StateFile::open(&usual, "u", LineFormat::Plain).unwrap();
        assert!(lock_folder(&directory, &usual).unwrap().is_none());
        let refusal = format!("{:#}", lock_folder(&directory, &elsewhere).unwrap_err());
        assert!(refusal.contains("another fhir-tail"), "{refusal}");
        drop(file);
        let locked = lock_folder(&directory, &elsewhere).unwrap();
        assert!(locked.is_some() && lock_folder(&directory, &home.path().join("other")).is_err());
        assert!(StateFile::open(&usual, "u", LineFormat::Plain).is_err());
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        for text in ["", "{}", "[1]", r#"{"version":1,"url":"u","position":{},"written":"stdout","more":1}"#]
        {
            std::fs::write(&path, text).unwrap();
            let refusal = format!("{:#}", StateFile::open(&path, "u", LineFormat::Plain).unwrap_err());
            assert!(refusal.contains("is not a state file"), "{text}: {refusal}");
        }
        let outside = r#"{"version":1,"url":"u","position":{},"written":{"download":{"stage":"receiving","bytes":{"../x":1}}}}"#;
        std::fs::write(&path, outside).unwrap();
        assert!(StateFile::open(&path, "u", LineFormat::Plain).unwrap_err().to_string().contains("'../x'"));
        std::fs::write(&path, r#"{"version":2,"url":"u","position":{},"written":"stdout"}"#).unwrap();
        assert!(
            StateFile::open(&path, "u", LineFormat::Plain).unwrap_err().to_string().contains("has version 2")
        );
    }
}
