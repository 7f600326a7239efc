//! The state file: how far the stream was followed, and how much of each file belongs to that.
//!
//! It is replaced as a whole after the files are on disk. So whatever happens, it describes files that
//! exist; what they hold beyond it comes again, and is cut off first.

use crate::data_dir;
use crate::settings::{InvalidSettings, Origin, Problem};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The only format there is.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// What is followed, without a password.
    url: String,
    pub(super) position: Position,
    pub(super) written: Written,
}

/// How far a stream was followed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Position {
    /// The id of the last event; `None`: there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_event_id: Option<String>,
    /// A `reset-all` was written, and not yet the `live` that ends it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resetting: bool,
    /// The last notice `live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) live: Option<Live>,
}

/// A notice `live`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Live {
    /// The instant to use as the next `_since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction_time: Option<String>,
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
        stage: Stage,
        bytes: BTreeMap<String, u64>,
    },
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
    // Released by the kernel when it is closed, however we end.
    _lock: File,
}

impl StateFile {
    /// Locks it, and reads it if it is there. `url` is what is followed: a state of something else is refused.
    pub(super) fn open(path: &Path, url: &str) -> anyhow::Result<(Self, Option<State>)> {
        let lock = lock(path)?;
        let state = match std::fs::read(path) {
            Ok(text) => Some(read(path, url, &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok((Self { path: path.to_owned(), url: url.to_owned(), _lock: lock }, state))
    }

    /// Replaces it. What it describes must be on disk.
    pub(super) fn save(&self, position: &Position, written: Written) -> anyhow::Result<()> {
        let state = State { version: VERSION, url: self.url.clone(), position: position.clone(), written };
        let text = serde_json::to_string_pretty(&state)?;
        self.replace(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Of one name, since only who holds the lock writes it: however often we are killed, no more is left behind.
    fn replace(&self, text: &[u8]) -> std::io::Result<()> {
        let new = beside(&self.path, ".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        data_dir::sync_directory(data_dir::parent(&self.path))
    }
}

fn read(path: &Path, url: &str, text: &[u8]) -> anyhow::Result<State> {
    let state: State = serde_json::from_slice(text).with_context(|| {
        format!(
            "{} is no state file of this version: name another, or remove it to begin anew",
            path.display()
        )
    })?;
    if state.version != VERSION {
        bail!("{} has version {}, and this program knows {VERSION}", path.display(), state.version);
    }
    if state.url != url {
        let message = format!(
            "{} belongs to {}, and this is {url}: give that URL with its --type and --since, or another --state or \
             --output; without that file and what was written with it this begins anew",
            path.display(),
            state.url
        );
        return Err(InvalidSettings(vec![Problem { origin: Origin::Flag("state"), message }]).into());
    }
    Ok(state)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    PathBuf::from(name)
}

/// The state file itself is replaced again and again, so a file beside it is locked.
fn lock(path: &Path) -> anyhow::Result<File> {
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
                    ..position("b")
                },
                Written::Download { stage: Stage::Placing, bytes: [("Patient".to_owned(), 5)].into() },
            ),
        ];
        let (file, none) = StateFile::open(&path, "http://h/$export").unwrap();
        assert_eq!(none, None);
        drop(file);
        for (position, written) in states {
            let (file, _) = StateFile::open(&path, "http://h/$export").unwrap();
            file.save(&position, written.clone()).unwrap();
            drop(file);
            let (_, state) = StateFile::open(&path, "http://h/$export").unwrap();
            let state = state.unwrap();
            assert_eq!((state.position, state.written), (position, written));
        }
    }

    #[test]
    fn another_url_and_another_process_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        let (file, _) = StateFile::open(&path, "http://h/a").unwrap();
        file.save(&position("a"), Written::Stdout).unwrap();
        let refusal = format!("{:#}", StateFile::open(&path, "http://h/a").unwrap_err());
        assert!(refusal.contains("is locked") && refusal.contains("--state"), "{refusal}");
        drop(file);
        let refusal = StateFile::open(&path, "http://h/b").unwrap_err();
        assert!(refusal.is::<InvalidSettings>());
        let refusal = refusal.to_string();
        assert!(refusal.contains("belongs to http://h/a, and this is http://h/b"), "{refusal}");
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.json");
        for text in ["", "{}", "[1]", r#"{"version":1,"url":"u","position":{},"written":"stdout","more":1}"#]
        {
            std::fs::write(&path, text).unwrap();
            let refusal = format!("{:#}", StateFile::open(&path, "u").unwrap_err());
            assert!(refusal.contains("is no state file"), "{text}: {refusal}");
        }
        std::fs::write(&path, r#"{"version":2,"url":"u","position":{},"written":"stdout"}"#).unwrap();
        assert!(StateFile::open(&path, "u").unwrap_err().to_string().contains("has version 2"));
    }
}
