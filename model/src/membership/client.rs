//! The client: what it holds, and what must never reach it.

use super::RESOURCES;
use super::shared::{Item, Out};
use super::subscriber::Place;
use super::world::{Patients, Stamp};

/// What a client must never see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    /// A version that it has.
    Twice,
    /// A version older than the one that it has.
    Backwards,
    /// Content of nobody who is a member where the stream stands.
    NotAMember,
}

/// A client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// The version that it has of each resource.
    pub holds: [Option<Stamp>; RESOURCES],
    /// The newest version that was sent since the resource was last removed.
    heard: [Option<Stamp>; RESOURCES],
    /// What it drops at `live` unless it comes again: after `reset-all`.
    stale: Option<[bool; RESOURCES]>,
    /// What its last event id says.
    pub id: Place,
    /// The safe time that it was told last.
    pub told: Option<Stamp>,
    /// The first thing that went wrong.
    pub violation: Option<Violation>,
}

impl Client {
    pub(super) const fn new() -> Self {
        Self {
            holds: [None; RESOURCES],
            heard: [None; RESOURCES],
            stale: None,
            id: Place::Start,
            told: None,
            violation: None,
        }
    }

    /// A resource.
    fn resource(&mut self, key: usize, version: Stamp, patients: Patients, members: Patients) {
        let violation = match self.heard[key].filter(|_| self.stale.is_none()) {
            Some(heard) if heard == version => Some(Violation::Twice),
            Some(heard) if heard > version => Some(Violation::Backwards),
            _ if patients & members == 0 => Some(Violation::NotAMember),
            _ => None,
        };
        self.violation = self.violation.or(violation);
        self.heard[key] = Some(version);
        self.holds[key] = Some(version);
        self.came(key);
    }

    /// A deletion, or a resource that left.
    fn removal(&mut self, key: usize) {
        self.holds[key] = None;
        self.heard[key] = None;
        self.came(key);
    }

    fn reset_all(&mut self) {
        self.stale = Some(self.holds.map(|held| held.is_some()));
        self.heard = [None; RESOURCES];
    }

    /// It comes back with the safe time that it was told, and may hear again what it has heard since.
    pub(super) const fn forget_id(&mut self) {
        self.heard = [None; RESOURCES];
    }

    fn live(&mut self, safe_time: Option<Stamp>) {
        self.told = safe_time;
        for (key, stale) in self.stale.take().unwrap_or_default().into_iter().enumerate() {
            if stale {
                self.holds[key] = None;
            }
        }
    }

    /// Whether it waits for the end of a `reset-all`.
    pub(super) const fn is_being_reset(&self) -> bool {
        self.stale.is_some()
    }

    const fn came(&mut self, key: usize) {
        if let Some(stale) = &mut self.stale {
            stale[key] = false;
        }
    }
}

impl Out for Client {
    fn give(&mut self, item: Item, id: Place) {
        match item {
            Item::Resource(key, version, patients, members) => self.resource(key, version, patients, members),
            Item::Removal(key) => self.removal(key),
            Item::Live(safe_time) => self.live(safe_time),
            Item::Position => {}
            Item::ResetAll => self.reset_all(),
        }
        self.id = id;
    }
}
