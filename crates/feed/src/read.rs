//! Reading the journal for one subscriber: a run of blocks, matched and framed.

use crate::budget::{Budget, Held};
use crate::change::decide;
use crate::journal::{Block, Entry, Header, Journal, JournalError, Probes};
use crate::pieces::{PIECE_BYTES, Piece, Pieces};
use crate::subscription::Tally;
use crate::{Anchor, EventId, Frames, Framing, Kind, Mark, Position};
use fhir::{Filter, Instant, ResourceType, Verdict, write_out_of_scope};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames of one read at most, about; one resource may be larger.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// Blocks looked at in one read, so that a narrow filter comes up for air.
const READ_BLOCKS: usize = 4096;

/// What to read.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) run: u64,
    /// Beyond this ...
    pub(crate) from: Anchor,
    /// Whether `from` is known to be of this history, or is to be compared first.
    pub(crate) verified: bool,
    /// ... up to this, which is on disk.
    pub(crate) until: Anchor,
    pub(crate) filter: Filter,
    /// What ids say of it.
    pub(crate) scope: Option<u32>,
    /// Only what lies on the feed's side of it.
    pub(crate) split: Option<Mark>,
    /// What the reader's own ids carry: all stamped at or before it was sent.
    pub(crate) w: Instant,
    /// About how many bytes of frames.
    pub(crate) bytes: usize,
}

/// What was read.
pub(crate) struct Read {
    pieces: Vec<Written>,
    /// Everything up to here was passed.
    pub(crate) last: Anchor,
    /// What a live id of `last` carries; `None` when nothing was passed.
    pub(crate) w: Option<Instant>,
    /// What follows `last` is a large entry.
    pub(crate) large: Option<LargeEntry>,
    /// The journal does not go on where the reader stands: what it missed was dropped.
    pub(crate) gap: bool,
    /// Where the reader stands there is another transaction: it comes from another history.
    pub(crate) other_history: bool,
    /// What follows `last` may have left what was asked for: the log did not say to whom it belonged.
    pub(crate) unknown: bool,
    /// Of all frames.
    bytes: usize,
}

/// Where what is made for an entry is written.
#[derive(Default)]
struct Buffers {
    id: String,
    removal: Vec<u8>,
}

/// An entry whose data is stored in parts.
pub(crate) struct LargeEntry {
    pub(crate) anchor: Anchor,
    pub(crate) event: ResourceType,
    pub(crate) length: u64,
    /// What its id carries.
    pub(crate) w: Instant,
}

/// Frames of one piece.
struct Written {
    frames: Vec<u8>,
    tally: Tally,
    passed: Passed,
}

/// The place that a piece ends at.
#[derive(Clone, Copy)]
pub(crate) struct Passed {
    /// The last position framed.
    pub(crate) framed: Position,
    /// Everything up to here was passed.
    pub(crate) last: Anchor,
    /// What a live id of `last` carries.
    pub(crate) w: Instant,
}

impl Read {
    /// The piece that the next frame goes to.
    fn piece(&mut self) -> &mut Written {
        if self.pieces.last().is_none_or(|piece| piece.frames.len() >= PIECE_BYTES) {
            let passed = Passed { framed: self.last.position, last: self.last, w: Instant::MIN };
            self.pieces.push(Written { frames: Vec::new(), tally: Tally::default(), passed });
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    /// Takes in an entry; whether to go on.
    fn entry(
        &mut self,
        framing: &dyn Framing,
        wanted: &Wanted,
        header: &Header,
        entry: &Entry<'_>,
        Buffers { id, removal }: &mut Buffers,
    ) -> Result<bool, JournalError> {
        let anchor = Anchor { position: entry.position, transaction: entry.transaction };
        let w = header.w.max(wanted.w);
        let (event, data) = match wanted.verdict(entry)? {
            Some(Verdict::Nothing) => return Ok(true),
            None => {
                self.unknown = true;
                if let Some(piece) = self.pieces.last()
                    && piece.passed.last.position > self.last.position
                {
                    self.last = piece.passed.last;
                }
                return Ok(false);
            }
            Some(Verdict::Remove) if entry.kind == Kind::Upsert => {
                removal.clear();
                entry
                    .id()
                    .and_then(|id| write_out_of_scope(entry.resource_type, id, entry.stamp, removal).ok())
                    .ok_or(JournalError::Corrupt("a resource has no id"))?;
                (ResourceType::BUNDLE, &removal[..])
            }
            Some(Verdict::Send | Verdict::Remove) => {
                let event = entry.kind.event(entry.resource_type);
                if let Some(length) = entry.in_parts {
                    self.large = Some(LargeEntry { anchor, event, length, w });
                    return Ok(false);
                }
                (event, entry.data)
            }
        };
        id.clear();
        wanted.id(anchor, w).write(id);
        let piece = self.piece();
        let before = piece.frames.len();
        framing.frame(id, event, data, &mut piece.frames);
        let written = piece.frames.len() - before;
        piece.tally.count(event);
        piece.passed = Passed { framed: entry.position, last: anchor, w: header.w };
        self.bytes += written;
        Ok(true)
    }

    /// What was read, tied to what is held for it, which is made to fit.
    pub(crate) fn pieces(&mut self, budget: &Budget, mut held: Option<Held>) -> Pieces<Passed> {
        budget.fit(&mut held, self.pieces.iter().map(|piece| piece.frames.len()).sum());
        let pieces = self.pieces.drain(..).map(|Written { frames, tally, passed }| {
            let held = Held::part(&mut held, frames.len());
            let bytes = Held::attach(held, frames);
            Piece { frames: Frames { bytes, tally: Arc::new(tally), open: false }, place: passed }
        });
        Pieces::new(pieces.collect::<VecDeque<_>>(), budget)
    }
}

/// Reads a run of blocks. Blocks on files.
pub(crate) fn read(
    journal: &dyn Journal,
    framing: &dyn Framing,
    wanted: &Wanted,
) -> Result<Read, JournalError> {
    let mut read = Read {
        pieces: Vec::new(),
        last: wanted.from,
        w: None,
        large: None,
        gap: false,
        other_history: false,
        unknown: false,
        bytes: 0,
    };
    let probes = Probes::of(&wanted.filter.compartment);
    let mut buffers = Buffers::default();
    let (from, until) = (wanted.from.position, wanted.until.position);
    let mut verified = wanted.verified;
    let mut blocks = 0;
    journal.blocks_after(from, &mut |header, block| {
        if header.preceding > read.last.position {
            read.gap = true;
            return Ok(false);
        }
        if !std::mem::replace(&mut verified, true) && !has(header, block, wanted.from)? {
            read.other_history = true;
            return Ok(false);
        }
        let of_types = header.types.iter().any(|resource_type| wanted.filter.matches(resource_type));
        if of_types && header.patients.may_have(&probes) {
            for entry in block()?.entries() {
                let entry = entry?;
                if entry.position > until {
                    break;
                }
                if entry.position <= from {
                    continue;
                }
                if !read.entry(framing, wanted, header, &entry, &mut buffers)? {
                    return Ok(false);
                }
            }
        }
        read.last = if header.last < until {
            Anchor { position: header.last, transaction: header.last_transaction }
        } else {
            wanted.until
        };
        read.w = Some(header.w);
        blocks += 1;
        Ok(header.last < until && read.bytes < wanted.bytes && blocks < READ_BLOCKS)
    })?;
    if let (Some(piece), Some(w)) = (read.pieces.last_mut(), read.w)
        && piece.passed.last.position < read.last.position
    {
        piece.passed.last = read.last;
        piece.passed.w = w;
    }
    Ok(read)
}

/// Whether the transaction of an anchor is in the block that follows it, or that it is in.
fn has(
    header: &Header,
    block: &dyn Fn() -> Result<Block, JournalError>,
    anchor: Anchor,
) -> Result<bool, JournalError> {
    let at = anchor.position.commit_lsn;
    if header.preceding.commit_lsn == at {
        return Ok(header.preceding_transaction == anchor.transaction);
    }
    for entry in block()?.entries() {
        let entry = entry?;
        if entry.position.commit_lsn >= at {
            return Ok(entry.position.commit_lsn == at && entry.transaction == anchor.transaction);
        }
    }
    Ok(false)
}

impl Wanted {
    /// What is to be told of an entry; `None`: that cannot be known.
    fn verdict(&self, entry: &Entry<'_>) -> Result<Option<Verdict>, JournalError> {
        let in_tables =
            self.split.is_some_and(|mark| !mark.leaves_to_feed(entry.stamp, entry.position.commit_lsn));
        if in_tables || !self.filter.matches(entry.resource_type) {
            return Ok(Some(Verdict::Nothing));
        }
        if self.scope.is_none() {
            return Ok(Some(Verdict::Send));
        }
        let (patients, before) = (entry.patients()?, entry.before()?);
        Ok(decide(&self.filter, entry.resource_type, entry.kind, &patients, &before))
    }

    /// The id of a position: it carries the mark as long as the feed may not have passed its L.
    fn id(&self, anchor: Anchor, w: Instant) -> EventId {
        id_at(self.run, self.scope, anchor, w, self.split)
    }
}

/// The id of a position in the feed, with the mark while there is a split.
pub(crate) fn id_at(
    run: u64,
    scope: Option<u32>,
    anchor: Anchor,
    w: Instant,
    split: Option<Mark>,
) -> EventId {
    match split {
        Some(mark) if anchor.position.commit_lsn < mark.l => {
            EventId(crate::id::Place::Split { run, scope, anchor, mark, w })
        }
        _ => EventId::live(run, scope, anchor, w),
    }
}
