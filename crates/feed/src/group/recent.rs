//! What was written lately of those who join and leave: for that the journal, not the table, is the state.

use super::patient_set::PatientSet;
use crate::delivery::budget::{Budget, Reservation};
use crate::delivery::frame_queue::{FRAME_BUFFER_BYTES, FrameBuffer, FrameQueue};
use crate::delivery::subscription::EventCounts;
use crate::id::{Place, Replaying};
use crate::journal::{Entry, JournalError, JournalReader};
use crate::shared::Shared;
use crate::subscriber::read::READ_BYTES;
use crate::{Anchor, Before, EventId, Frames, Framing, Kind, Position, Watermark};
use fhir::{ResourceType, TypeSet, write_out_of_scope};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Above so many resources it is better to begin anew.
const MOST: usize = 1_000_000;
const NOT_KEPT: &str = "what was written before the members changed is no longer kept";

/// Members before and after.
#[derive(Clone)]
pub(super) struct Sets {
    pub(super) stay: Arc<PatientSet>,
    pub(super) join: Arc<PatientSet>,
    pub(super) leave: Arc<PatientSet>,
}

/// The newest entries, up to where the members change, of resources that concern who joins or leaves.
pub(super) struct Recent {
    /// Before the first of them.
    start: Position,
    newest: HashMap<(ResourceType, Box<str>), Position>,
}

impl Recent {
    /// Reads them. After an error the client restarts.
    pub(super) async fn read(
        shared: &Arc<Shared>,
        watermark: Watermark,
        to: Anchor,
        types: TypeSet,
        sets: Sets,
    ) -> Result<Self, &'static str> {
        let read = move |journal: &dyn JournalReader| {
            let Some(start) = journal.seek(watermark)?.map(|anchor| anchor.position) else {
                return Ok(Ok(Self { start: to.position, newest: HashMap::new() }));
            };
            let mut newest = HashMap::new();
            let mut failed = None;
            journal.blocks_after(start, &mut |header, block| {
                if !header.types.iter().any(|kind| types.contains(kind)) {
                    return Ok(header.last < to.position);
                }
                for entry in block()?.entries() {
                    let entry = entry?;
                    let in_tables = !watermark.leaves_to_feed(entry.stamp, entry.position.commit_lsn);
                    if entry.position > to.position {
                        return Ok(false);
                    }
                    if in_tables
                        || entry.resource_type == ResourceType::GROUP
                        || !types.contains(entry.resource_type)
                    {
                        continue;
                    }
                    match sets.concern(&entry)? {
                        None => failed = Some("the log does not have what a resource was before a change"),
                        Some(false) => continue,
                        Some(true) => {
                            let id = entry.id().ok_or(JournalError::Corrupt("a resource has no id"))?;
                            newest.insert((entry.resource_type, Box::from(id)), entry.position);
                            if newest.len() > MOST {
                                failed = Some("more was written than can be told of who joins the Group");
                            }
                        }
                    }
                    if failed.is_some() {
                        return Ok(false);
                    }
                }
                Ok(header.last < to.position)
            })?;
            // The state after the search: it says what is dropped before it is.
            let kept = journal.load()?.is_some_and(|state| {
                state.floor.stamp <= watermark.safe_time
                    && state.floor.position.commit_lsn < watermark.fence_lsn
            });
            Ok::<_, JournalError>(match failed {
                _ if !kept => Err(NOT_KEPT),
                Some(failed) => Err(failed),
                None => Ok(Self { start, newest }),
            })
        };
        shared.journal.read_or_reset(read).await?
    }

    /// Whether the journal has something newer of a resource than the tables up to the watermark.
    pub(super) fn has(&self, resource_type: ResourceType, id: &str) -> bool {
        !self.newest.is_empty() && self.newest.contains_key(&(resource_type, Box::from(id)))
    }

    fn is_newest(&self, entry: &Entry<'_>) -> bool {
        let key = entry.id().map(|id| (entry.resource_type, Box::from(id)));
        key.is_some_and(|key| self.newest.get(&key) == Some(&entry.position))
    }
}

impl Sets {
    /// Whether an entry concerns who joins or leaves; `None`: that cannot be known.
    fn concern(&self, entry: &Entry<'_>) -> Result<Option<bool>, JournalError> {
        let any = |patients: &_| self.join.has_any(patients) || self.leave.has_any(patients);
        if any(&entry.patients()?) {
            return Ok(Some(true));
        }
        Ok(match entry.before()? {
            Before::Nothing => Some(false),
            Before::Patients(patients) => Some(any(&patients)),
            Before::Unknown => None,
        })
    }
}

/// Frames of recent entries.
#[derive(Default)]
pub(super) struct RecentFrames {
    buffers: Vec<(Vec<u8>, EventCounts, Position)>,
    bytes: usize,
    /// The last entry that was looked at; `None` if there was none left.
    pub(super) last: Option<Position>,
    /// An entry that is sent in parts, after these frames: its place, event and length.
    pub(super) large: Option<(Position, ResourceType, u64)>,
}

/// The id of a recent entry.
pub(super) fn id(row: &Replaying, at: Position) -> EventId {
    EventId(Place::Recent { pages: Box::new(row.clone()), at })
}

/// Reads the next frames after a position. An error is a reason to begin anew.
pub(super) async fn frames(
    shared: &Arc<Shared>,
    recent: &Arc<Recent>,
    sets: &Sets,
    row: &Replaying,
    to: Anchor,
    after: Position,
) -> Result<RecentFrames, &'static str> {
    if recent.newest.is_empty() {
        return Ok(RecentFrames::default());
    }
    let framing = shared.framing.clone();
    let (recent, sets, row) = (recent.clone(), sets.clone(), row.clone());
    shared
        .journal
        .read_or_reset(move |journal| {
            let mut read = RecentFrames::default();
            let start = after.max(recent.start);
            let mut gap = false;
            journal.blocks_after(start, &mut |header, block| {
                gap |= header.preceding > start && read.last.is_none();
                for entry in block()?.entries() {
                    let entry = entry?;
                    if entry.position > to.position {
                        return Ok(false);
                    }
                    if entry.position <= start {
                        continue;
                    }
                    let before = read.last.unwrap_or(start);
                    if recent.is_newest(&entry) && !read.add(&*framing, &sets, &row, &entry, before)? {
                        return Ok(false);
                    }
                    read.last = Some(entry.position);
                }
                Ok(header.last < to.position && read.bytes < READ_BYTES)
            })?;
            Ok(if gap { Err(NOT_KEPT) } else { Ok(read) })
        })
        .await?
}

impl RecentFrames {
    /// Takes in the newest entry of a resource; whether to go on. `before` is the entry before it.
    fn add(
        &mut self,
        framing: &dyn Framing,
        sets: &Sets,
        row: &Replaying,
        entry: &Entry<'_>,
        before: Position,
    ) -> Result<bool, JournalError> {
        let patients = entry.patients()?;
        if entry.kind == Kind::Deletion || sets.stay.has_any(&patients) {
            return Ok(true);
        }
        if sets.leave.has_any(&patients) {
            let mut removal = Vec::new();
            entry
                .id()
                .and_then(|id| {
                    write_out_of_scope(entry.resource_type, id, row.watermark.safe_time, &mut removal).ok()
                })
                .ok_or(JournalError::Corrupt("a resource has no id"))?;
            // Should the client be cut off now, it gets this once more, and then what comes of it.
            self.frame(framing, &id(row, before), ResourceType::BUNDLE, &removal, before);
        }
        if sets.join.has_any(&patients) {
            if let Some(length) = entry.in_parts {
                self.large = Some((entry.position, entry.resource_type, length));
                return Ok(false);
            }
            self.frame(framing, &id(row, entry.position), entry.resource_type, entry.data, entry.position);
        }
        Ok(true)
    }

    fn frame(&mut self, framing: &dyn Framing, id: &EventId, event: ResourceType, data: &[u8], at: Position) {
        if self.buffers.last().is_none_or(|(frames, ..)| frames.len() >= FRAME_BUFFER_BYTES) {
            self.buffers.push((Vec::new(), EventCounts::default(), at));
        }
        if let Some((frames, counts, last)) = self.buffers.last_mut() {
            let length = frames.len();
            framing.frame(&id.to_string(), event, data, frames);
            self.bytes += frames.len() - length;
            counts.count(event);
            *last = at;
        }
    }

    /// What was read, tied to what is held for it.
    pub(super) fn frame_queue(
        &mut self,
        budget: &Budget,
        mut held: Option<Reservation>,
        row: &Replaying,
    ) -> FrameQueue<EventId> {
        budget.fit(&mut held, self.bytes);
        let queue = self.buffers.drain(..).map(|(frames, counts, at)| {
            let held = Reservation::part(&mut held, frames.len());
            let bytes = Reservation::attach(held, frames);
            FrameBuffer {
                frames: Frames { bytes, counts: Arc::new(counts), open: false },
                place: id(row, at),
            }
        });
        FrameQueue::new(queue.collect::<VecDeque<_>>(), budget)
    }
}
