//! A stream of one Group: it begins, pages joiners in and leavers out, and follows.

use super::roster::Wait;
use super::shared::{Item, Out};
use super::world::{Entry, Patients, Position, Stamp, Watermark, World};
use super::{KEYS, Membership, RESOURCES, Reached};
use crate::Bug;

/// Where a stream is: what an event id says, and a little that only the service knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// At the very beginning.
    Start,
    /// With a watermark whose fence the feed has not passed yet.
    Waiting(Watermark),
    /// Within the pages of patients who stay the same.
    Pages(Pages),
    /// Within a transition at `h`.
    Paging(Paging),
    /// Everything up to a position was sent.
    Following(Following),
    /// Within the shared transition from where the members change, of which so many items were passed on. No id has it.
    Shared(Position, usize),
}

/// A transition: who joined and who left between two positions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Paging {
    /// Where it happens.
    pub at: Position,
    /// The position whose members describe what the client holds; `None` if it holds nothing.
    pub from: Option<Position>,
    /// Which side a version is on.
    pub watermark: Watermark,
    /// What was sent last.
    pub cursor: Cursor,
    /// The end of the log when it began: for a seeded mistake only.
    pub begun: Position,
}

/// How far a transition is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cursor {
    /// Resources of leavers, up to this key.
    Leavers(Option<usize>),
    /// Rows of joiners, up to this stamp and key.
    Joiners(Option<(Stamp, usize)>),
    /// Entries of joiners on the feed's side, up to this position.
    Recent(Position),
}

/// The pages of a round, for patients who stay the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pages {
    /// Only what was stamped after this: in a later round, which is a seeded mistake.
    pub since: Option<Stamp>,
    /// Which side a version is on.
    pub watermark: Watermark,
    /// The last row sent.
    pub after: Option<(Stamp, usize)>,
}

/// Following the feed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Following {
    /// All up to here was passed.
    pub position: Position,
    /// Until its fence is passed: what it leaves to the pages was sent by them.
    pub cutover: Option<Watermark>,
    /// The position whose members describe what the client holds, if it is not this one.
    pub from: Option<Position>,
    /// A transition that is fading: where it was, and until which place in the log.
    pub fading: Option<(Position, Position)>,
    /// The watermark after a change of membership; no id has it.
    pub watermark: Option<Watermark>,
}

impl Following {
    pub(super) const fn at(position: Position) -> Self {
        Self { position, cutover: None, from: None, fading: None, watermark: None }
    }

    /// The oldest position that it depends on.
    fn oldest(&self) -> Position {
        let fading = self.fading.map_or(self.position, |(at, _)| at);
        self.position.min(self.from.unwrap_or(self.position)).min(fading)
    }
}

/// Who joins, leaves and stays.
struct Transition {
    join: Patients,
    leave: Patients,
    stay: Patients,
}

/// The world and what takes the items, as a step of the stream sees them.
pub(super) struct Stream<'a> {
    pub(super) model: &'a Membership,
    pub(super) world: &'a mut World,
    pub(super) out: &'a mut dyn Out,
}

impl Stream<'_> {
    /// The next step from a place, and where it leads; `None` if it has to wait.
    pub(super) fn step(&mut self, place: Place) -> Option<Place> {
        match place {
            Place::Start if self.model.patients.is_some() => self.first_pages(),
            Place::Start => self.watermark().map(Place::Waiting),
            Place::Waiting(watermark) if watermark.safe_time < self.world.floor_stamp => Some(Place::Start),
            Place::Waiting(watermark) if self.world.decoded < watermark.fence => None,
            Place::Waiting(watermark) => Some(self.begin(self.world.decoded, None, watermark)),
            Place::Paging(paging)
                if self.lost(paging.from.unwrap_or(paging.at).min(paging.at))
                    || paging.watermark.safe_time < self.world.floor_stamp =>
            {
                Some(self.reset())
            }
            Place::Paging(paging) => self.page(paging).ok(),
            Place::Pages(pages) => Some(self.pages(pages)),
            Place::Following(following) if self.lost(following.oldest()) => Some(self.reset()),
            Place::Following(following) => self.follow(following).unwrap_or(None),
            // The client alone takes these steps.
            Place::Shared(..) => None,
        }
    }

    pub(super) fn has(&self, bug: Bug) -> bool {
        self.model.bug == Some(bug)
    }

    fn members(&self, position: Position) -> Result<Patients, Wait> {
        if let Some(patients) = self.model.patients {
            return Ok(patients);
        }
        self.world.members(position, self.model.bug)
    }

    fn throughout(&self, from: Position, to: Position) -> Result<Patients, Wait> {
        if let Some(patients) = self.model.patients {
            return Ok(patients);
        }
        self.world.throughout(from, to, self.model.bug)
    }

    fn ever(&self, from: Position, to: Position) -> Result<Patients, Wait> {
        match self.model.patients {
            Some(patients) => Ok(patients),
            None => self.world.ever(from, to, self.model.bug),
        }
    }

    /// Whether a content is one of these patients', and what was asked for.
    pub(super) const fn is_in(&self, content: Patients, of: Patients) -> bool {
        is_in(content, self.model.matching, of)
    }

    /// Where a client goes on that has what was stamped at or before a safe time: before the first entry that is younger, of
    /// which it is not sent what it has.
    pub(super) fn since(&mut self, since: Stamp) -> Place {
        let (floor, decoded) = (self.world.floor, self.world.decoded);
        if since < self.world.floor_stamp && !self.has(Bug::SinceBeforeJournal) {
            return self.reset();
        }
        let counts =
            |entry: &Entry| entry.stamp > since && !(entry.is_group() && self.has(Bug::SinceIgnoresGroups));
        let younger = (floor..decoded).find(|place| counts(&self.world.log[*place]));
        // The fence is taken now.
        let cutover = Some(Watermark { safe_time: since, fence: self.world.log.len() });
        self.model.reach(Reached::CameBackSince);
        Place::Following(Following { cutover, ..Following::at(younger.unwrap_or(decoded)) })
    }

    /// `live`, and the safe time that comes with it.
    pub(super) fn live(&mut self, safe_time: Stamp, id: Place) {
        // Only who may come back with it keeps it: otherwise it would only multiply the states.
        self.out.give(Item::Live(Some(safe_time).filter(|_| self.model.since > 0)), id);
    }

    pub(super) const fn lost(&self, oldest: Position) -> bool {
        oldest < self.world.floor
    }

    /// A watermark from which a replay may begin.
    pub(super) fn watermark(&mut self) -> Option<Watermark> {
        Some(self.world.watermark()).filter(|watermark| watermark.safe_time >= self.world.floor_stamp)
    }

    pub(super) fn reset(&mut self) -> Place {
        self.model.reach(Reached::Reset);
        self.out.give(Item::ResetAll, Place::Start);
        Place::Start
    }

    pub(super) fn resource(
        &mut self,
        key: usize,
        version: Stamp,
        patients: Patients,
        at: Position,
        id: Place,
    ) {
        let members = self.model.true_members(self.world, at);
        self.out.give(Item::Resource(key, version, patients, members), id);
    }

    pub(super) fn removal(&mut self, key: usize, id: Place) {
        self.out.give(Item::Removal(key), id);
    }

    fn begin(&self, at: Position, from: Option<Position>, watermark: Watermark) -> Place {
        // Only the seeded mistake reads it: otherwise it would only multiply the states.
        let begun = if self.has(Bug::FadingFromBefore) { self.world.log.len() } else { 0 };
        Place::Paging(Paging { at, from, watermark, cursor: Cursor::Leavers(None), begun })
    }

    fn transition(&self, paging: &Paging) -> Result<Transition, Wait> {
        let new = self.members(paging.at)?;
        let (old, ever, stay) = match paging.from {
            None => (0, 0, 0),
            Some(from) => {
                (self.members(from)?, self.ever(from, paging.at)?, self.throughout(from, paging.at)?)
            }
        };
        Ok(Transition { join: new & !stay, leave: ever & !stay & !(new & !old), stay })
    }

    /// The last entry of each resource, of those that the pages leave to the feed and that concern joiners or leavers.
    fn recent(&self, paging: &Paging, transition: &Transition) -> [Option<Position>; RESOURCES] {
        let mut recent = [None; RESOURCES];
        if self.has(Bug::NothingRecent) {
            return recent;
        }
        for (place, entry) in self.world.log[..paging.at].iter().enumerate() {
            if !entry.is_group()
                && paging.watermark.leaves_to_feed(place, entry)
                && entry.touches() & (transition.join | transition.leave) != 0
            {
                recent[entry.key] = Some(place);
            }
        }
        recent
    }

    fn page(&mut self, paging: Paging) -> Result<Place, Wait> {
        let transition = self.transition(&paging)?;
        let recent = self.recent(&paging, &transition);
        let next = |cursor| Place::Paging(Paging { cursor, ..paging });
        let id = |cursor| {
            let from =
                if self.model.bug == Some(Bug::PagingForgetsFrom) { Some(paging.at) } else { paging.from };
            Place::Paging(Paging { cursor, from, ..paging })
        };
        match paging.cursor {
            Cursor::Leavers(after) => Ok(match self.leaver(&paging, &transition, &recent, after) {
                Some((key, content)) => {
                    let cursor = Cursor::Leavers(Some(key));
                    if !self.is_in(content, transition.stay) {
                        self.model.reach(Reached::LeaverRemoved);
                        self.removal(key, id(cursor));
                    }
                    next(cursor)
                }
                None => next(Cursor::Joiners(None)),
            }),
            Cursor::Joiners(after) => Ok(match self.joiner(&paging, &transition, after) {
                Some((key, stamp, content)) => {
                    let cursor = Cursor::Joiners(Some((stamp, key)));
                    let stays = self.is_in(content, transition.stay) && !self.has(Bug::StayersAgain);
                    if !stays && (recent[key].is_none() || self.has(Bug::RowsAndRecent)) {
                        self.resource(key, stamp, content, paging.at, id(cursor));
                    }
                    next(cursor)
                }
                None => next(Cursor::Recent(0)),
            }),
            Cursor::Recent(after) => {
                let later = recent.iter().flatten().filter(|place| **place >= after).min();
                let Some(place) = later.copied() else { return Ok(self.end(&paging, &transition)) };
                let cursor = Cursor::Recent(place + 1);
                let Entry { key, stamp, new, .. } = self.world.log[place];
                if let Some(content) = new
                    && self.is_in(content, transition.join)
                    && !self.is_in(content, transition.stay)
                {
                    self.model.reach(Reached::RecentSent);
                    self.resource(key, stamp, content, paging.at, id(cursor));
                }
                Ok(next(cursor))
            }
        }
    }

    /// The next resource that a leaver may have had. What was written lately is judged by the log: a statement may not see it
    /// yet.
    fn leaver(
        &self,
        paging: &Paging,
        transition: &Transition,
        recent: &[Option<Position>; RESOURCES],
        after: Option<usize>,
    ) -> Option<(usize, Patients)> {
        (after.map_or(0, |key| key + 1)..RESOURCES).find_map(|key| {
            let row = self.world.table[key].filter(|row| row.stamp <= paging.watermark.safe_time);
            let by_log = recent[key].filter(|_| !self.has(Bug::LeaversByTableAlone));
            let content = match by_log {
                Some(place) => self.world.log[place].new,
                None => row.map(|row| row.patients),
            };
            content.filter(|content| self.is_in(*content, transition.leave)).map(|content| (key, content))
        })
    }

    /// The next row of a joiner.
    fn joiner(
        &self,
        paging: &Paging,
        transition: &Transition,
        after: Option<(Stamp, usize)>,
    ) -> Option<(usize, Stamp, Patients)> {
        let rows = self.world.table.iter().take(RESOURCES).enumerate();
        rows.filter_map(|(key, row)| row.map(|row| (key, row.stamp, row.patients)))
            .filter(|(key, stamp, content)| {
                *stamp <= paging.watermark.safe_time
                    && (self.is_in(*content, transition.join)
                        || (self.has(Bug::JoinersUnfiltered) && content & transition.join != 0))
                    && after.is_none_or(|after| after < (*stamp, *key))
            })
            .min_by_key(|(key, stamp, _)| (*stamp, *key))
    }

    /// `live`: the transition is complete. What leavers had as of it and was replaced before the list was read is still told
    /// of, until the end of the log as it is now has been passed.
    fn end(&mut self, paging: &Paging, transition: &Transition) -> Place {
        let mut following = Following::at(paging.at);
        if transition.leave != 0 && !self.has(Bug::NoFading) {
            let until = if self.has(Bug::FadingFromBefore) { paging.begun } else { self.world.log.len() };
            following.from = paging.from;
            following.fading = Some((paging.at, until));
        }
        if paging.from.is_some() && transition.join != 0 {
            self.model.reach(Reached::Joined);
        }
        self.live(paging.watermark.safe_time, Place::Following(following));
        Place::Following(following)
    }

    /// The first position from this one on after which the members change.
    pub(super) fn next_change(&mut self, position: Position) -> Option<Position> {
        (position..self.world.decoded).find(|at| self.members_change(*at) == Ok(true))
    }

    /// Whether the members change with the entry at a position.
    fn members_change(&self, at: Position) -> Result<bool, Wait> {
        Ok(self.world.log[at].is_group() && self.members(at)? != self.members(at + 1)?)
    }

    /// One step of following; `Ok(None)` at the head.
    fn follow(&mut self, following: Following) -> Result<Option<Place>, Wait> {
        let Following { position, from, fading, watermark, .. } = following;
        let next = |following| Ok(Some(Place::Following(following)));
        if let Some((at, until)) = fading {
            if position >= until {
                self.model.reach(Reached::Faded);
                // Everything was told: only the members of the transition count, and whoever changed since.
                let same = self.throughout(at, position)?;
                let unchanged = self.members(at)? == same && self.members(position)? == same;
                return next(Following { from: (!unchanged).then_some(at), fading: None, ..following });
            }
        } else if let Some(from) = from {
            let Some(watermark) = watermark else {
                let Some(watermark) = self.watermark() else { return Ok(None) };
                return next(Following { watermark: Some(watermark), ..following });
            };
            if position >= watermark.fence || self.has(Bug::JoinAtOnce) {
                return Ok(Some(self.begin(position, Some(from), watermark)));
            }
        }
        if position >= self.world.decoded {
            return Ok(None);
        }
        if self.model.shared && from.is_none() && self.members_change(position)? {
            return Ok(Some(Place::Shared(position, 0)));
        }
        self.entry(following).map(|following| Some(Place::Following(following)))
    }

    /// The next entry of the feed.
    fn entry(&mut self, following: Following) -> Result<Following, Wait> {
        let Following { position, cutover, from, fading, .. } = following;
        let entry = self.world.log[position];
        if let Some(watermark) = cutover {
            let next = Following { position: position + 1, ..following };
            if position >= watermark.fence {
                return Ok(Following { cutover: None, ..following });
            }
            if !watermark.leaves_to_feed(position, &entry) && !entry.is_group() {
                return Ok(next);
            }
        }
        let base = from.unwrap_or(position);
        let since = fading.map_or(base, |(at, _)| at);
        let mut send = self.throughout(since, position + 1)?;
        if self.has(Bug::SilencedLate) {
            send = self.members(since)?;
        }
        let mut keep = self.ever(since, position)?;
        if let (Some((at, _)), Some(from)) = (fading, from) {
            keep = self.ever(at, position)? | self.ever(from, at)?;
        }
        let mut next = Following { position: position + 1, ..following };
        if from.is_none() && fading.is_none() && self.members_change(position)? {
            // The members change from here on.
            (next.from, next.cutover) = (Some(position), None);
        }
        let mut told = Following { watermark: None, ..next };
        if self.has(Bug::MovingForgetsFrom) && fading.is_none() {
            told.from = None;
        }
        let id = Place::Following(told);
        if entry.is_group() && self.model.patients.is_some() {
            return Ok(next);
        }
        if entry.is_group() {
            self.out.give(Item::Position, id);
        } else if entry.new.is_some_and(|content| self.is_in(content, send)) {
            self.model.reach(Reached::LiveSent);
            self.resource(entry.key, entry.stamp, entry.new.unwrap_or(0), position + 1, id);
        } else if let Some(old) = entry.old {
            let deleted = entry.new.is_none();
            let told_of = if self.has(Bug::NoBeforeImage) {
                deleted && self.is_in(old, send)
            } else if self.has(Bug::LeaversDeletionsSilenced) {
                self.is_in(old, keep) && self.is_in(old, send)
            } else {
                self.is_in(old, keep)
            };
            let still = entry.new.is_some_and(|content| content & send != 0);
            if told_of && !(still && self.has(Bug::LeavesFilterSilently)) {
                if still {
                    self.model.reach(Reached::LeftFilter);
                }
                self.model.reach(Reached::LeftScope);
                self.removal(entry.key, id);
            }
        }
        Ok(next)
    }
}

const fn is_in(content: Patients, matching: Patients, of: Patients) -> bool {
    content & of != 0 && content & matching == matching
}

/// What a client holds when everything was told.
pub(super) fn expected(world: &World, matching: Patients, members: Patients) -> [Option<Stamp>; RESOURCES] {
    let mut expected = [None; RESOURCES];
    for (key, row) in world.table[..RESOURCES].iter().enumerate() {
        expected[key] = row.filter(|row| is_in(row.patients, matching, members)).map(|row| row.stamp);
    }
    expected
}

const _: () = assert!(RESOURCES < KEYS);
