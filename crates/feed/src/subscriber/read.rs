//! Reading the journal for one subscriber: a run of blocks, matched and framed.

use crate::delivery::budget::{Budget, Reservation};
use crate::delivery::frame_queue::{FRAME_BUFFER_BYTES, FrameBuffer, FrameQueue};
use crate::delivery::subscription::EventCounts;
use crate::id::{MembersChange, Place};
use crate::journal::{Block, Entry, Header, JournalError, JournalReader, Probes};
use crate::routing::change_filter::ChangeFilter;
use crate::{Anchor, EventId, Frames, Framing, Kind, Lsn, Position, Watermark};
use fhir::{Instant, ResourceType, Verdict, write_out_of_scope};
use std::collections::VecDeque;
use std::sync::Arc;

/// Frames of one read at most, about; one resource may be larger.
pub(crate) const READ_BYTES: usize = 256 << 10;
/// Blocks looked at in one read, so that a narrow filter comes up for air.
const READ_BLOCKS: usize = 4096;

/// What to read.
#[derive(Clone)]
pub(crate) struct JournalRead {
    pub(crate) run: u64,
    /// Beyond this ...
    pub(crate) from: Anchor,
    /// Whether `from` is known to be of this history, or is to be compared first.
    pub(crate) verified: bool,
    /// ... up to this, which is on disk.
    pub(crate) until: Anchor,
    /// What the reader is told.
    pub(crate) change_filter: ChangeFilter,
    /// What its ids say.
    pub(crate) ids: Ids,
    /// What the reader's own ids carry: all stamped at or before it was sent.
    pub(crate) safe_time: Instant,
    /// About how many bytes of frames.
    pub(crate) bytes: usize,
}

/// What was read.
pub(crate) struct Read {
    buffers: Vec<Written>,
    /// Everything up to here was passed.
    pub(crate) last: Anchor,
    /// What a live id of `last` carries; `None` when nothing was passed.
    pub(crate) safe_time: Option<Instant>,
    /// What follows `last` is a large entry.
    pub(crate) large: Option<LargeEntry>,
    /// The journal does not go on where the reader stands: what it missed was dropped.
    pub(crate) gap: bool,
    /// Where the reader stands there is another transaction: it comes from another history.
    pub(crate) other_history: bool,
    /// What follows `last` may have left what was asked for: the log did not say to whom it belonged.
    pub(crate) unknown: bool,
    /// What follows `last` is a change of a Group, or of the clock, with which the members may change.
    pub(crate) group_change: Option<Position>,
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
    pub(crate) safe_time: Instant,
}

/// Frames of one piece.
struct Written {
    frames: Vec<u8>,
    counts: EventCounts,
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
    pub(crate) safe_time: Instant,
}

impl Read {
    /// The piece that the next frame goes to.
    fn buffer(&mut self) -> &mut Written {
        if self.buffers.last().is_none_or(|buffer| buffer.frames.len() >= FRAME_BUFFER_BYTES) {
            let passed = Passed { framed: self.last.position, last: self.last, safe_time: Instant::MIN };
            self.buffers.push(Written { frames: Vec::new(), counts: EventCounts::default(), passed });
        }
        let last = self.buffers.len() - 1;
        &mut self.buffers[last]
    }

    /// Takes in an entry; whether to go on.
    fn entry(
        &mut self,
        framing: &dyn Framing,
        wanted: &JournalRead,
        header: &Header,
        entry: &Entry<'_>,
        Buffers { id, removal }: &mut Buffers,
    ) -> Result<bool, JournalError> {
        if wanted.change_filter.stops_at(entry) {
            self.group_change = Some(entry.position);
            return Ok(false);
        }
        let anchor = Anchor { position: entry.position, transaction: entry.transaction };
        let safe_time = header.safe_time.max(wanted.safe_time);
        let (event, data) = match wanted.verdict(entry)? {
            Some(Verdict::Nothing) => return Ok(true),
            None => {
                self.unknown = true;
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
                    self.large = Some(LargeEntry { anchor, event, length, safe_time });
                    return Ok(false);
                }
                (event, entry.data)
            }
        };
        id.clear();
        wanted.ids.at(wanted.run, anchor, safe_time).write(id);
        let buffer = self.buffer();
        let before = buffer.frames.len();
        framing.frame(id, event, data, &mut buffer.frames);
        let written = buffer.frames.len() - before;
        buffer.counts.count(event);
        buffer.passed = Passed { framed: entry.position, last: anchor, safe_time: header.safe_time };
        self.bytes += written;
        Ok(true)
    }

    /// What was read, tied to what is held for it, which is made to fit.
    pub(crate) fn frame_queue(
        &mut self,
        budget: &Budget,
        mut held: Option<Reservation>,
    ) -> FrameQueue<Passed> {
        budget.fit(&mut held, self.buffers.iter().map(|buffer| buffer.frames.len()).sum());
        let buffers = self.buffers.drain(..).map(|Written { frames, counts, passed }| {
            let held = Reservation::part(&mut held, frames.len());
            let bytes = Reservation::attach(held, frames);
            FrameBuffer { frames: Frames { bytes, counts: Arc::new(counts), open: false }, place: passed }
        });
        FrameQueue::new(buffers.collect::<VecDeque<_>>(), budget)
    }
}

/// Reads a run of blocks. Blocks on files.
pub(crate) fn read(
    journal: &dyn JournalReader,
    framing: &dyn Framing,
    wanted: &JournalRead,
) -> Result<Read, JournalError> {
    let mut read = Read {
        buffers: Vec::new(),
        last: wanted.from,
        safe_time: None,
        large: None,
        gap: false,
        other_history: false,
        unknown: false,
        group_change: None,
        bytes: 0,
    };
    let probes = wanted.change_filter.probes();
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
        if wanted.looks_into(header, &probes) {
            let mut passed = None;
            for entry in block()?.entries() {
                let entry = entry?;
                if entry.position > until {
                    break;
                }
                if entry.position > from && !read.entry(framing, wanted, header, &entry, &mut buffers)? {
                    if let Some(passed) = passed {
                        (read.last, read.safe_time) = (passed, Some(header.safe_time));
                    }
                    return Ok(false);
                }
                if entry.position > read.last.position {
                    passed = Some(Anchor { position: entry.position, transaction: entry.transaction });
                }
            }
        }
        read.last = if header.last < until {
            Anchor { position: header.last, transaction: header.last_transaction }
        } else {
            wanted.until
        };
        read.safe_time = Some(header.safe_time);
        blocks += 1;
        Ok(header.last < until && read.bytes < wanted.bytes && blocks < READ_BLOCKS)
    })?;
    if let (Some(buffer), Some(safe_time)) = (read.buffers.last_mut(), read.safe_time)
        && buffer.passed.last.position < read.last.position
    {
        buffer.passed.last = read.last;
        buffer.passed.safe_time = safe_time;
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

impl JournalRead {
    fn looks_into(&self, header: &Header, probes: &Probes) -> bool {
        let asks = |resource_type| self.change_filter.asks_for(resource_type);
        let of_types = header.types.iter().any(asks);
        // A Group belongs to no patient.
        let of_groups = matches!(self.change_filter, ChangeFilter::Members(_))
            && header.types.contains(ResourceType::GROUP);
        of_types && (of_groups || header.patients.may_have(probes))
    }

    /// What is to be told of an entry; `None`: that cannot be known.
    fn verdict(&self, entry: &Entry<'_>) -> Result<Option<Verdict>, JournalError> {
        let cutover = self.ids.cutover();
        if cutover.is_some_and(|watermark| !watermark.leaves_to_feed(entry.stamp, entry.position.commit_lsn))
        {
            return Ok(Some(Verdict::Nothing));
        }
        self.change_filter.entry(entry)
    }
}

/// What the ids of a stream say besides the position.
#[derive(Clone, Copy)]
pub(crate) struct Ids {
    /// Of the filter.
    pub(crate) scope: Option<u32>,
    pub(crate) phase: Phase,
}

/// Where a stream is between the tables and the feed, or between members and members.
#[derive(Clone, Copy)]
pub(crate) enum Phase {
    /// All is in the feed.
    Plain,
    /// The feed may not have passed the watermark's fence LSN: what lies on the tables' side of the watermark has been sent.
    Cutover(Watermark),
    /// The members differ since this, and what that means for the client is yet to be told.
    Moving { from: Anchor },
    /// What left when the members changed is still told, up to there in the log.
    Fading { from: Anchor, to: Anchor, until: Lsn },
}

impl Ids {
    /// Only what lies on the feed's side of this is sent.
    pub(crate) const fn cutover(self) -> Option<Watermark> {
        match self.phase {
            Phase::Cutover(watermark) => Some(watermark),
            Phase::Plain | Phase::Moving { .. } | Phase::Fading { .. } => None,
        }
    }

    /// The id of a position in the feed.
    pub(crate) fn at(self, run: u64, anchor: Anchor, safe_time: Instant) -> EventId {
        let Self { scope, phase } = self;
        let changing = |from, fading| {
            let scope = scope.unwrap_or_default();
            let change = Box::new(MembersChange { from, fading });
            EventId(Place::Changing { run, scope, anchor, change, safe_time })
        };
        match phase {
            Phase::Cutover(watermark) if anchor.position.commit_lsn < watermark.fence_lsn => {
                EventId(Place::Cutover { run, scope, anchor, watermark, safe_time })
            }
            Phase::Plain | Phase::Cutover(_) => EventId::live(run, scope, anchor, safe_time),
            Phase::Moving { from } => changing(from, None),
            Phase::Fading { from, to, until } => changing(from, Some((to, until))),
        }
    }
}
