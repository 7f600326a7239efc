//! Large resources on their way to replays: read once, kept in a file without a name, sent piece by piece.
//!
//! The database gives a row whole or not at all. Kept in memory for a client that is slow, a row of a gigabyte would be
//! kept from all others; so it is written to the disk of the journal, by one replay at a time, and shared by all that want it.

use crate::delivery::count_guard::CountGuard;
use crate::{Large, Position, Pressure, SourceError};
use fhir::Patients;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// No more files than this are open at once, and they have no more bytes, but for the last one ...
const MOST_FILES: usize = 32;
const MOST_BYTES: u64 = 4 << 30;
/// ... and this often it is looked whether another has been sent.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The large resources that are being sent.
pub(crate) struct Spills {
    directory: PathBuf,
    open: Mutex<HashMap<SpillKey, Weak<Spill>>>,
    /// One is read at a time.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    pressure: Pressure,
}

/// What is in a file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum SpillKey {
    /// A row, by its version.
    Row(i64),
    /// A Group as of a position of an epoch.
    Group(Box<str>, u64, Position),
}

/// A large resource, in the form in which it is streamed.
pub(crate) struct Spill {
    file: File,
    pub(crate) length: u64,
    /// To whom it belongs.
    pub(crate) patients: Patients,
}

impl Spills {
    /// Files are made in this directory. `pressure` is put on clients when there are too many.
    pub(crate) fn new(directory: PathBuf, pressure: Pressure) -> Self {
        Self {
            pressure,
            directory,
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The resource, which is read if it is not there; `None` if it is gone or cannot be streamed.
    pub(crate) async fn get(
        &self,
        key: &SpillKey,
        read: impl Future<Output = Result<Option<Large>, SourceError>>,
    ) -> Result<Option<Arc<Spill>>, SourceError> {
        if let Some(spill) = self.find(key) {
            return Ok(Some(spill));
        }
        let waiting = CountGuard::new(&self.waiting);
        let _turn = self.turn.lock().await;
        while self.is_full() {
            // What a client has in hand of a large resource keeps its file: any bytes will do.
            self.pressure.ask_for(1);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        drop(waiting);
        if let Some(spill) = self.find(key) {
            return Ok(Some(spill));
        }
        let Some(Large { patients, write }) = read.await? else {
            return Ok(None);
        };
        let directory = self.directory.clone();
        let spilled = tokio::task::spawn_blocking(move || {
            let mut out = BufWriter::with_capacity(256 << 10, tempfile::tempfile_in(directory)?);
            write(&mut out)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            let length = file.metadata()?.len();
            Ok::<_, io::Error>(Arc::new(Spill { file, length, patients }))
        });
        let spill = match spilled.await {
            Ok(Ok(spill)) => spill,
            Ok(Err(error)) => {
                let told = format!("a large resource cannot be written to the data directory: {error}");
                return Err(SourceError::Unavailable(told));
            }
            Err(_) => return Err(SourceError::Unavailable("the service is stopping".into())),
        };
        let mut open = self.open.lock();
        open.retain(|_, spill| spill.strong_count() > 0);
        open.insert(key.clone(), Arc::downgrade(&spill));
        Ok(Some(spill))
    }

    /// Whether another file would be too many.
    fn is_full(&self) -> bool {
        let open = self.open.lock();
        let open: Vec<_> = open.values().filter_map(Weak::upgrade).collect();
        open.len() >= MOST_FILES || open.iter().map(|spill| spill.length).sum::<u64>() >= MOST_BYTES
    }

    fn find(&self, key: &SpillKey) -> Option<Arc<Spill>> {
        self.open.lock().get(key)?.upgrade()
    }

    /// Replays that wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

impl Spill {
    /// Up to so many bytes from an offset on; none at the end. Blocks.
    pub(crate) fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(most)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
