//! An operator's word that the database was restored, noted in the journal while no service has it open.

use crate::OpenError;
use crate::journal::{JournalError, JournalReader as _, JournalWriter as _, Segments, ended};
use std::path::Path;

/// What became of the word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It is on disk: a new epoch begins before anything is served, and every id given out so far leads to `reset-all`.
    Now,
    /// It was there, and no service has begun the new epoch since.
    Before,
    /// There is no journal: it knows no ids, so that they all lead to `reset-all`.
    NoJournal,
}

/// Notes that the database, and perhaps the journal with it, was restored from a copy. Blocks on files.
pub fn note_restored(directory: &Path) -> Result<Noted, OpenError> {
    // Opening makes one where there is none.
    let there = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if !there {
        return Ok(Noted::NoJournal);
    }
    note(directory).map_err(|source| OpenError::new(directory, source))
}

fn note(directory: &Path) -> Result<Noted, JournalError> {
    let journal = Segments::open(directory)?;
    let Some(mut state) = journal.load()? else { return Ok(Noted::NoJournal) };
    if state.tainted {
        return Ok(Noted::Before);
    }
    let past = ended(&state, &journal.past()?, true);
    state.run = fastrand::u64(..);
    state.tainted = true;
    journal.write_runs(&state, &past)?;
    Ok(Noted::Now)
}
