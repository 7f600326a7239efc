//! A clock that can be stepped, for a Postgres of a test: Debian's `libfaketime`, preloaded.

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "faketime/libfaketime.so.1";
const PLACES: [&str; 3] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];

fn library() -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(LIBRARY)).find(|path| path.is_file())
}

/// What the database takes for the time: the real one and an offset.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Whether the library is not installed here.
    pub fn is_missing() -> bool {
        library().is_none()
    }

    /// A clock that is right at first, its offset kept in a file in this folder; `None` where the library is not
    /// installed.
    pub fn new(directory: &Path) -> Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        let clock = Self { library, file: directory.join("clock") };
        clock.step_to(0)?;
        Ok(Some(clock))
    }

    /// Sets the offset, in milliseconds ahead of the real time.
    pub fn step_to(&self, offset: i64) -> Result<()> {
        // In one go, as it is read at any moment.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{:+}.{:03}s\n", offset / 1000, offset.abs() % 1000))?;
        std::fs::rename(&next, &self.file).context("cannot step the clock")
    }

    pub(crate) fn environment(&self) -> [(OsString, OsString); 4] {
        [
            ("LD_PRELOAD".into(), self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE".into(), self.file.clone().into()),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            // Only the time of day is wrong: what measures how long something takes is right.
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ]
    }
}
