//! The journal on the local disk: fjall, one keyspace per segment of 256 MiB or an hour.
//!
//! Retention is ours and drops whole segments, oldest position first: compaction that drops by age or size
//! follows the clock, and the clock steps. A key is written once. Headers (`h` + last position) and entries
//! (`e` + last position) of a segment lie apart, so that headers are scanned without reading entries. So do the parts of large
//! entries (`p` + position + number), which are written one by one before their header is, so that none is held whole.
//!
//! Entries come compressed, once, and fjall compresses nothing, which would do it for its log only: what is written,
//! synchronised and kept in memory is a fraction of what came in.

use super::block::{PART_BYTES, POSITION_LEN, pack_part, unpack_part};
use super::fields::write_position;
use super::groups;
use super::{
    Block, Floor, GroupChange, Header, JournalError, JournalReader, JournalWriter, Packed, PastRun,
    Retention, State, Visit, ended,
};
use crate::{Anchor, Lsn, Position, Watermark};
use fhir::Instant;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use parking_lot::RwLock;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl From<fjall::Error> for JournalError {
    fn from(error: fjall::Error) -> Self {
        Self::Storage(error.into())
    }
}

const SEGMENT_BYTES: u64 = 256 << 20;
const SEGMENT_AGE: Duration = Duration::from_secs(3600);
/// Larger ones only cost memory: blocks are written once, in order.
const MEMTABLE_BYTES: u64 = 8 << 20;
const CACHE_BYTES: u64 = 8 << 20;
/// How many of its files stay open: descriptors are shared with the connections of clients.
const OPEN_FILES: usize = 64;
/// The least that fjall allows; recovery after a crash reads this much.
const LOG_BYTES: u64 = 64 << 20;

const UNREADABLE_STATE: &str = "its state cannot be read; if it was written by another version of fhir-tail, move the journal \
                                away: subscribers are reset";

const STATE: &str = "state";
const RUNS: &str = "runs";
const HEADER: u8 = b'h';
const ENTRIES: u8 = b'e';
const PART: u8 = b'p';

/// A journal in a directory.
pub(crate) struct Segments {
    directory: PathBuf,
    segment_bytes: u64,
    /// Empty only while it is being reopened, or after that failed.
    open: RwLock<Option<Open>>,
}

struct Open {
    database: Database,
    state: Keyspace,
    segment_bytes: u64,
    segments: RwLock<Vec<Arc<Segment>>>,
}

/// A run of blocks, dropped as a whole.
struct Segment {
    keyspace: Keyspace,
    epoch: u64,
    index: u32,
    /// By our clock.
    created: SystemTime,
    /// Its ends; empty when nothing was written yet.
    ends: RwLock<Option<Ends>>,
}

#[derive(Clone)]
struct Ends {
    /// Bytes of entries before it in its epoch.
    offset: u64,
    preceding: Position,
    last: Header,
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

/// Entries lie in files of their own, written once: compaction, which merges the headers, would copy them with each level.
fn segment_options() -> KeyspaceCreateOptions {
    options().with_kv_separation(Some(KvSeparationOptions::default()))
}

fn key(tag: u8, position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + POSITION_LEN);
    key.push(tag);
    write_position(position, &mut key);
    key
}

/// The key of a part of the entry at a position.
fn part_key(position: Position, number: u32) -> Vec<u8> {
    let mut key = key(PART, position);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl Segments {
    /// Opens the journal in a directory, or makes one.
    pub(crate) fn open(directory: &Path) -> Result<Self, JournalError> {
        Self::with_segments_of(SEGMENT_BYTES, directory)
    }

    fn with_segments_of(segment_bytes: u64, directory: &Path) -> Result<Self, JournalError> {
        let open = RwLock::new(Some(Open::new(directory, segment_bytes)?));
        Ok(Self { directory: directory.to_owned(), segment_bytes, open })
    }

    fn with<T>(&self, act: impl FnOnce(&Open) -> Result<T, JournalError>) -> Result<T, JournalError> {
        match &*self.open.read() {
            Some(open) => act(open),
            None => Err(fjall::Error::Poisoned.into()),
        }
    }
}

impl Open {
    fn new(directory: &Path, segment_bytes: u64) -> Result<Self, JournalError> {
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(LOG_BYTES)
            .journal_compression(CompressionType::None)
            .worker_threads(1)
            .open()?;
        let state = database.keyspace(STATE, options)?;
        drop_blocks_of_before(&database, &state)?;
        let epoch = read_state(&state)?.map(|state| state.epoch);
        let mut segments = Vec::new();
        for name in database.list_keyspace_names() {
            if &*name == STATE {
                continue;
            }
            let keyspace = database.keyspace(&name, segment_options)?;
            match Segment::parse(&name, keyspace.clone()) {
                Some(segment) if Some(segment.epoch) == epoch => segments.push(Arc::new(segment)),
                // Of an epoch that ended while it was being dropped.
                _ => database.delete_keyspace(keyspace)?,
            }
        }
        for segment in &segments {
            segment.read_ends()?;
        }
        segments.sort_by_key(|segment| segment.index);
        Ok(Self { database, state, segment_bytes, segments: RwLock::new(segments) })
    }

    /// The segment that the next block goes to, and whether it is new.
    fn active(&self, epoch: u64) -> Result<Arc<Segment>, JournalError> {
        let newest = self.segments.read().last().cloned();
        if let Some(segment) = &newest
            && !segment.is_full(self.segment_bytes)
        {
            return Ok(segment.clone());
        }
        let index = newest.as_ref().map_or(0, |segment| segment.index.wrapping_add(1));
        let segment = Arc::new(Segment::create(&self.database, epoch, index)?);
        self.segments.write().push(segment.clone());
        if let Some(full) = newest {
            // Nothing is written to it any more: its memory is better spent elsewhere.
            full.keyspace.rotate_memtable()?;
        }
        Ok(segment)
    }
}

impl Open {
    /// The oldest segment, if retention does not keep it, and the floor without it.
    fn beyond(&self, retention: Retention, safe_time: Option<Instant>) -> Option<(Arc<Segment>, Floor)> {
        let segments = self.segments.read();
        let [oldest, next, ..] = segments.as_slice() else { return None };
        let (ends, newest) = (oldest.ends()?, segments.last()?.ends()?);
        let bytes = newest.last.offset.saturating_sub(ends.offset);
        // By both clocks: one of them may have stepped.
        let age = next.created.elapsed().unwrap_or_default();
        let database_age =
            newest.last.commit_time.unix_micros().saturating_sub(ends.last.commit_time.unix_micros());
        let database_age = Duration::from_micros(u64::try_from(database_age).unwrap_or(0));
        let aged = age.min(database_age) > retention.age
            && safe_time.is_some_and(|safe_time| ends.last.running_max <= safe_time);
        let floor = Floor { position: ends.last.last, stamp: ends.last.running_max };
        (bytes > retention.bytes || aged).then(|| (oldest.clone(), floor))
    }
}

fn read_state(keyspace: &Keyspace) -> Result<Option<State>, JournalError> {
    keyspace
        .get(STATE)?
        .map(|bytes| State::decode(&bytes).map_err(|_| JournalError::Corrupt(UNREADABLE_STATE)))
        .transpose()
}

fn read_past(keyspace: &Keyspace) -> Result<Vec<PastRun>, JournalError> {
    match keyspace.get(RUNS)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| JournalError::Corrupt(UNREADABLE_STATE)),
        None => Ok(Vec::new()),
    }
}

/// Leaves of a journal whose blocks are of an earlier form what retention would leave: its ids are then reset. If this is broken
/// off it is done again.
fn drop_blocks_of_before(database: &Database, keyspace: &Keyspace) -> Result<(), JournalError> {
    let Some((mut state, past)) = keyspace.get(STATE)?.and_then(|bytes| State::decode_before(&bytes)) else {
        return Ok(());
    };
    tracing::info!("the journal is of an earlier release: its blocks are dropped, and subscribers are reset");
    for name in database.list_keyspace_names() {
        if &*name != STATE {
            database.delete_keyspace(database.keyspace(&name, segment_options)?)?;
        }
    }
    let past = past.map_or_else(|| read_past(keyspace), Ok)?;
    let past = ended(&state, &past, false);
    state.run = fastrand::u64(..);
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(keyspace, RUNS, encode_runs(&past)?);
    batch.insert(keyspace, STATE, encode_state(&state)?);
    Ok(batch.commit()?)
}

fn encode_runs(past: &[PastRun]) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(past).map_err(|_| JournalError::Corrupt("the runs cannot be written"))
}

fn encode_state(state: &State) -> Result<Vec<u8>, JournalError> {
    state.encode().map_err(|_| JournalError::Corrupt("the state cannot be written"))
}

impl Segment {
    fn create(database: &Database, epoch: u64, index: u32) -> Result<Self, JournalError> {
        let created = SystemTime::now();
        let seconds = created.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let keyspace =
            database.keyspace(&format!("segment-{epoch:016x}-{index:08x}-{seconds}"), segment_options)?;
        Ok(Self { keyspace, epoch, index, created, ends: RwLock::new(None) })
    }

    fn parse(name: &str, keyspace: Keyspace) -> Option<Self> {
        let mut parts = name.strip_prefix("segment-")?.split('-');
        let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
        let index = u32::from_str_radix(parts.next()?, 16).ok()?;
        let created = UNIX_EPOCH.checked_add(Duration::from_secs(parts.next()?.parse().ok()?))?;
        Some(Self { keyspace, epoch, index, created, ends: RwLock::new(None) })
    }

    fn read_ends(&self) -> Result<(), JournalError> {
        let header = |guard: fjall::Guard| Header::decode(&guard.value()?);
        let mut headers = self.keyspace.prefix([HEADER]);
        let first = headers.next().map(header).transpose()?;
        let last = headers.next_back().map(header).transpose()?.or_else(|| first.clone());
        *self.ends.write() = first.zip(last).map(|(first, last)| Ends {
            offset: first.offset.saturating_sub(first.length.into()),
            preceding: first.preceding,
            last,
        });
        Ok(())
    }

    /// Writes the data of a large entry. Nobody reads it before the header is there, which comes with the state, and then
    /// the log has it all. What is left of an append that failed is written again with the same keys.
    fn write_parts(&self, position: Position, data: &[u8]) -> Result<(), JournalError> {
        let mut in_memory = 0;
        for (number, part) in (0..).zip(data.chunks(PART_BYTES)) {
            let stored = pack_part(part);
            in_memory += stored.len() as u64;
            self.keyspace.insert(part_key(position, number), stored)?;
            if in_memory >= MEMTABLE_BYTES / 2 {
                // To the files before more is taken into memory.
                self.keyspace.rotate_memtable_and_wait()?;
                in_memory = 0;
            }
        }
        Ok(())
    }

    fn is_full(&self, bytes: u64) -> bool {
        let full = |ends: &Ends| {
            ends.last.offset.saturating_sub(ends.offset) >= bytes
                || self.created.elapsed().is_ok_and(|age| age >= SEGMENT_AGE)
        };
        self.ends.read().as_ref().is_some_and(full)
    }

    fn ends(&self) -> Option<Ends> {
        self.ends.read().clone()
    }

    /// The header of the first block whose last entry commits at or after a place in the log.
    fn at(&self, lsn: Lsn) -> Result<Option<Header>, JournalError> {
        let from = key(HEADER, Position::first_at(lsn));
        let next = self.keyspace.range(from..vec![HEADER + 1]).next();
        next.map(|guard| Header::decode(&guard.value()?)).transpose()
    }

    /// The first header with something on the feed's side of a watermark, by bisection: stamps (as running
    /// maxima) and commits only rise.
    fn seek(&self, watermark: Watermark, ends: &Ends) -> Result<Option<Header>, JournalError> {
        let beyond = |header: &Header| watermark.leaves_to_feed(header.running_max, header.last.commit_lsn);
        let (mut low, mut high) = (ends.preceding.commit_lsn.get(), ends.last.last.commit_lsn.get());
        // Every header before `low` is on the tables' side; the one at `high` is on the feed's.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(Lsn::new(middle))? {
                Some(header) if !beyond(&header) => low = header.last.commit_lsn.get().max(middle) + 1,
                _ => high = middle,
            }
        }
        // Blocks of one transaction share their place in the log: walk back is impossible, walk on is not.
        let start = key(HEADER, Position::before(Lsn::new(low)));
        for guard in self.keyspace.range(start..vec![HEADER + 1]) {
            let header = Header::decode(&guard.value()?)?;
            if beyond(&header) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

fn group_change(guard: fjall::Guard) -> Result<GroupChange, JournalError> {
    let (key, value) = guard.into_inner()?;
    groups::decode(&key, &value)
}

impl JournalReader for Segments {
    fn load(&self) -> Result<Option<State>, JournalError> {
        self.with(|open| read_state(&open.state))
    }

    fn blocks_after(&self, position: Position, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        self.with(|open| {
            let segments: Vec<_> = {
                let all = open.segments.read();
                let before =
                    |segment: &Arc<Segment>| segment.ends().is_some_and(|ends| ends.last.last <= position);
                let first = all.partition_point(before);
                all.get(first..).unwrap_or_default().to_vec()
            };
            for segment in segments {
                let range = (Bound::Excluded(key(HEADER, position)), Bound::Excluded(vec![HEADER + 1]));
                for guard in segment.keyspace.range(range) {
                    let header = Header::decode(&guard.value()?)?;
                    let block = || {
                        let entries = segment
                            .keyspace
                            .get(key(ENTRIES, header.last))?
                            .ok_or(JournalError::Corrupt("a block has a header and no entries"))?;
                        Block::unpack(&header, &entries)
                    };
                    if !visit(&header, &block)? {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    fn part(&self, position: Position, number: u32) -> Result<Option<Vec<u8>>, JournalError> {
        self.with(|open| {
            let segment = {
                let all = open.segments.read();
                let before =
                    |segment: &Arc<Segment>| segment.ends().is_some_and(|ends| ends.last.last < position);
                all.get(all.partition_point(before)).cloned()
            };
            let Some(segment) = segment else { return Ok(None) };
            let stored = segment.keyspace.get(part_key(position, number))?;
            stored.map(|stored| unpack_part(&stored)).transpose()
        })
    }

    fn group_at(&self, id: &str, at: Position) -> Result<Option<GroupChange>, JournalError> {
        self.with(|open| {
            let segments = open.segments.read().clone();
            let range = groups::prefix(id)..=groups::key(id, at);
            let newest = |segment: &Arc<Segment>| segment.keyspace.range(range.clone()).next_back();
            segments.iter().rev().find_map(newest).map(group_change).transpose()
        })
    }

    fn group_after(&self, id: &str, after: Position) -> Result<Option<GroupChange>, JournalError> {
        self.with(|open| {
            let segments = open.segments.read().clone();
            let end = groups::key(id, Position { commit_lsn: Lsn::MAX, ordinal: u64::MAX, part: u16::MAX });
            let range = (Bound::Excluded(groups::key(id, after)), Bound::Included(end));
            let oldest = |segment: &Arc<Segment>| segment.keyspace.range(range.clone()).next();
            segments.iter().find_map(oldest).map(group_change).transpose()
        })
    }

    fn tick_at(&self, at: Position) -> Result<Option<Instant>, JournalError> {
        self.with(|open| {
            // What was dropped is in the state.
            let dropped = read_state(&open.state)?.and_then(|state| state.tick);
            let segments = open.segments.read().clone();
            let range = groups::tick_key(Position::ZERO)..=groups::tick_key(at);
            let newest = |segment: &Arc<Segment>| segment.keyspace.range(range.clone()).next_back();
            match segments.iter().rev().find_map(newest) {
                Some(guard) => groups::tick_time(&guard.value()?).map(Some),
                None => Ok(dropped),
            }
        })
    }

    fn tick_after(&self, after: Position) -> Result<Option<Position>, JournalError> {
        self.with(|open| {
            let segments = open.segments.read().clone();
            let range = (Bound::Excluded(groups::tick_key(after)), Bound::Excluded(vec![groups::TICK + 1]));
            let oldest = |segment: &Arc<Segment>| segment.keyspace.range(range.clone()).next();
            segments.iter().find_map(oldest).map(|guard| groups::tick_position(&guard.key()?)).transpose()
        })
    }

    fn seek(&self, watermark: Watermark) -> Result<Option<Anchor>, JournalError> {
        self.with(|open| {
            let segments = open.segments.read().clone();
            for segment in segments {
                if let Some(ends) = segment.ends()
                    && watermark.leaves_to_feed(ends.last.running_max, ends.last.last.commit_lsn)
                    && let Some(header) = segment.seek(watermark, &ends)?
                {
                    let Header { preceding: position, preceding_transaction: transaction, .. } = header;
                    return Ok(Some(Anchor { position, transaction }));
                }
            }
            Ok(None)
        })
    }
}

impl JournalWriter for Segments {
    fn past(&self) -> Result<Vec<PastRun>, JournalError> {
        self.with(|open| read_past(&open.state))
    }

    fn write_runs(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError> {
        self.with(|open| {
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&open.state, RUNS, encode_runs(past)?);
            batch.insert(&open.state, STATE, encode_state(state)?);
            Ok(batch.commit()?)
        })
    }

    fn append(&self, blocks: Vec<Packed>, state: &State) -> Result<(), JournalError> {
        self.with(|open| {
            // The store syncs before it puts anything into its tables: so none of them is ever ahead of the state.
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
            let segment = if blocks.is_empty() { None } else { Some(open.active(state.epoch)?) };
            let mut ends = segment.as_ref().and_then(|segment| segment.ends());
            if let Some(segment) = &segment {
                for Packed { header, entries, large, groups } in blocks {
                    for group in groups {
                        batch.insert(&segment.keyspace, group.key, group.value);
                    }
                    if let Some(data) = large {
                        segment.write_parts(header.last, &data)?;
                    }
                    batch.insert(&segment.keyspace, key(HEADER, header.last), header.encode());
                    batch.insert(&segment.keyspace, key(ENTRIES, header.last), entries);
                    let first = Ends {
                        offset: header.offset.saturating_sub(header.length.into()),
                        preceding: header.preceding,
                        last: header,
                    };
                    ends = Some(match ends {
                        Some(ends) => Ends { last: first.last, ..ends },
                        None => first,
                    });
                }
            }
            batch.insert(&open.state, STATE, encode_state(state)?);
            batch.commit()?;
            if let Some(segment) = segment {
                *segment.ends.write() = ends;
            }
            Ok(())
        })
    }

    fn begin(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError> {
        self.write_runs(state, past)?;
        self.with(|open| {
            for segment in std::mem::take(&mut *open.segments.write()) {
                open.database.delete_keyspace(segment.keyspace.clone())?;
            }
            Ok(())
        })
    }

    fn purge(&self, retention: Retention, state: &mut State) -> Result<bool, JournalError> {
        self.with(|open| {
            let mut purged = false;
            while let Some((oldest, floor)) =
                open.beyond(retention, state.watermark.map(|watermark| watermark.safe_time))
            {
                // The state first: a reader must never take a gap for the beginning.
                state.floor = floor;
                let ticks = groups::tick_key(Position::ZERO)..vec![groups::TICK + 1];
                if let Some(newest) = oldest.keyspace.range(ticks).next_back() {
                    state.tick = Some(groups::tick_time(&newest.value()?)?);
                }
                open.state.insert(STATE, encode_state(state)?)?;
                open.database.persist(PersistMode::SyncAll)?;
                open.segments.write().retain(|segment| segment.index != oldest.index);
                open.database.delete_keyspace(oldest.keyspace.clone())?;
                purged = true;
            }
            Ok(purged)
        })
    }

    fn bytes(&self) -> u64 {
        let bytes = |open: &Open| {
            let segments = open.segments.read();
            let oldest = segments.iter().find_map(|segment| segment.ends());
            let newest = segments.iter().rev().find_map(|segment| segment.ends());
            Ok(oldest
                .zip(newest)
                .map_or(0, |(oldest, newest)| newest.last.offset.saturating_sub(oldest.offset)))
        };
        self.with(bytes).unwrap_or(0)
    }

    fn reopen(&self) -> Result<(), JournalError> {
        let mut open = self.open.write();
        // The old one holds the lock on the directory until it is gone.
        *open = None;
        *open = Some(Open::new(&self.directory, self.segment_bytes)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
