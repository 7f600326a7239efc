//! The model of what a replay takes for granted: facts that fail for a while, deletions that leave no tombstone, and who is told
//! of it.
//!
//! A replay is complete only while triggers fire and pages see every row. What the service does about it are three things, and
//! none of them is enough: it looks at the facts when a replay has read its last page and before a client is told to drop
//! what it has (`Source::confirm`); pages that a policy would filter are an error; and a transaction of the log that deletes
//! without a tombstone is not acknowledged and becomes a fork. What is left out:
//!
//! - Watermarks: a page shows what was stamped up to a place in the log, and the feed brings what lies beyond. That this is so is the
//!   history model's.
//! - Channels, the journal's blocks, what is acknowledged else: the delivery model's.
//! - That a fact which fails refuses watermarks and epochs early. It saves work, and nothing here depends on it.
//! - Writes that the triggers did not stamp: nothing notices these (`docs/database.md`).
//! - What hides rows without an error and is gone before the replay that missed them has looked: nothing notices that either.
//! - A log that is lost, with an untold deletion in it: nobody has seen it.

mod client;
mod database;
mod properties;
pub mod scenarios;

use crate::{Bug, Coverage};
pub use client::{Client, Id, Server};
pub use database::{Database, Hidden, Transaction};
pub use properties::{NEVER_DROPPED_IN_VAIN, NEVER_INCOMPLETE};
use stateright::{Model, Property};

/// A place in the log: so many transactions lie before it.
pub type Lsn = u8;

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it is about.
    pub name: &'static str,
    /// How many transactions the log holds at most.
    pub length: usize,
    /// How often the triggers stop to fire.
    pub disabled: u8,
    /// How often rows are hidden from pages.
    pub hidden: u8,
    /// How often our process is killed.
    pub kills: u8,
    /// How often the client is cut off.
    pub cuts: u8,
    /// How often retention drops what is old.
    pub purges: u8,
    /// The seeded mistake.
    pub bug: Option<Bug>,
    /// What has to happen in some order of the steps.
    pub reached: &'static [Reached],
    /// What has happened so far.
    pub coverage: Coverage,
}

/// A situation that a scenario is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// An untold deletion came in.
    Untold,
    /// A client was told to drop what it has, because of one.
    ResetAll,
    /// A client was reset from its safe time.
    ResetSince,
    /// A replay was refused after its last page.
    RefusedAfterPages,
    /// A reset was refused before it was told.
    RefusedReset,
    /// A replay had a second round.
    SecondRound,
    /// Our process ended between the new slot and its epoch.
    EndedBeforeEpoch,
    /// A client that was told that it has everything lacks a deletion that the feed has not passed.
    LiveBeforeUntold,
}

/// The journal on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    /// The epoch.
    pub epoch: u8,
    /// Epochs whose clients are to drop what they have, as bits.
    pub forked: u8,
    /// Everything before it was published.
    pub lsn: Lsn,
    /// What retention has dropped, or the beginning of the epoch: everything up to here.
    pub floor: Lsn,
    /// A fork is noted, and its epoch has not begun.
    pub tainted: bool,
}

/// The process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Service {
    /// What was published, perhaps not yet on disk.
    pub received: Lsn,
    /// It follows the log.
    pub connected: bool,
    /// It has met an untold deletion, which would come again from the slot that is there.
    pub untold: bool,
    /// The next epoch is that of a fork.
    pub fork: bool,
}

/// The state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The database.
    pub database: Database,
    /// Our disk.
    pub disk: Disk,
    /// Our process.
    pub service: Option<Service>,
    /// The client.
    pub client: Client,
    disabled: u8,
    hidden: u8,
    kills: u8,
    cuts: u8,
    purges: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A transaction commits.
    Commit(Transaction),
    /// The triggers are disabled, or enabled.
    Fire(bool),
    /// Rows are hidden, or not any more.
    Hide(Hidden),
    /// The next transaction comes in.
    Receive,
    /// The journal is written, and acknowledged.
    Sync,
    /// The service goes on towards the log: see [`Next`].
    Connect(Next),
    /// Our process is killed.
    Kill,
    /// It is started.
    Start,
    /// Retention drops what the journal has.
    Purge,
    /// The client connects.
    Client,
    /// The service does the next thing for the client.
    Serve,
    /// A replay begins another round.
    Round,
    /// The client's connection is lost.
    Cut,
}

/// What a process that does not follow does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Follows from where the slot stands.
    Follow,
    /// Notes a fork in the journal.
    Taint,
    /// Drops the slot.
    Drop,
    /// Makes a slot.
    Make,
    /// Begins an epoch, and follows.
    Begin,
}

impl Disk {
    /// Whether what clients have of this epoch may be gone without a word.
    pub(super) const fn has_forked(&self, epoch: u8) -> bool {
        self.forked & 1 << epoch != 0
    }
}

impl Facts {
    fn reach(&self, reached: Reached) {
        self.coverage.note(reached as u32);
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// `None` while nothing can be done: an epoch waits for the facts.
    fn next(&self, state: &State, service: &Service) -> Option<Next> {
        let slot = state.database.slot;
        let moved = slot.is_none_or(|slot| slot > state.disk.lsn);
        let fork = service.fork || state.disk.tainted;
        if !moved && !fork && !service.untold {
            return Some(Next::Follow);
        }
        if !state.database.facts_hold() {
            return None;
        }
        Some(if fork && !state.disk.tainted && !self.has(Bug::ForkIsNotNoted) {
            Next::Taint
        } else if service.untold && slot.is_some() {
            Next::Drop
        } else if slot.is_none() {
            Next::Make
        } else {
            Next::Begin
        })
    }

    fn connect(&self, state: &mut State, next: Next) {
        let Some(service) = &mut state.service else { return };
        match next {
            Next::Follow => {
                service.received = state.database.slot.unwrap_or(0).max(state.disk.lsn);
                service.connected = true;
            }
            Next::Taint => state.disk.tainted = true,
            // Whoever finds none knows that it is gone, and takes it for a fork.
            Next::Drop => state.database.slot = None,
            Next::Make => {
                state.database.slot = Some(state.database.end());
                service.untold = false;
            }
            Next::Begin => {
                if service.fork || state.disk.tainted {
                    state.disk.forked |= (1 << (state.disk.epoch + 1)) - 1;
                }
                let start = state.database.slot.unwrap_or(0);
                state.disk.epoch += 1;
                (state.disk.lsn, state.disk.floor, state.disk.tainted) = (start, start, false);
                *service = Service { received: start, connected: true, untold: false, fork: false };
                state.client.server = Server::Away;
            }
        }
    }

    fn receive(&self, state: &mut State) {
        let Some(service) = &mut state.service else { return };
        let Some(&transaction) = state.database.log.get(usize::from(service.received)) else { return };
        let answered = self.has(Bug::AnsweredBefore) && transaction == Transaction::DeleteTwice;
        if !transaction.is_untold() || answered || self.has(Bug::UntoldIsPassedOver) {
            service.received += 1;
            return;
        }
        self.reach(Reached::Untold);
        if state.client.server == Server::Following
            && state.client.id.is_some_and(|id| id.position > service.received)
        {
            self.reach(Reached::LiveBeforeUntold);
        }
        if self.has(Bug::UntoldIsAcknowledged) {
            service.received += 1;
            state.disk.lsn = service.received;
            state.database.slot = Some(service.received);
        }
        service.connected = false;
        service.untold = true;
        service.fork = !self.has(Bug::UntoldIsNoFork);
    }

    fn serve(&self, state: &mut State) {
        let Some(service) = &state.service else { return };
        let before = state.client.server;
        state.client.step(&state.database, &state.disk, service.received, self.bug);
        match (before, state.client.server) {
            (Server::Resetting { .. }, Server::Away) => self.reach(Reached::RefusedReset),
            (Server::Resetting { all: true }, _) => self.reach(Reached::ResetAll),
            (Server::Resetting { all: false }, _) => self.reach(Reached::ResetSince),
            (Server::Paged { .. }, Server::Away) => self.reach(Reached::RefusedAfterPages),
            _ => {}
        }
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Commit(transaction) => state.database.log.push(transaction),
            Step::Fire(fires) => {
                state.disabled -= u8::from(!fires);
                state.database.fires = fires;
            }
            Step::Hide(hidden) => {
                state.hidden -= u8::from(hidden != Hidden::No);
                state.database.hidden = hidden;
            }
            Step::Receive => self.receive(state),
            Step::Sync => {
                if let Some(service) = &state.service {
                    state.disk.lsn = service.received;
                    state.database.slot = Some(service.received);
                }
            }
            Step::Connect(next) => self.connect(state, next),
            Step::Kill => {
                state.kills -= 1;
                if !state.has_connected() && state.database.slot.is_some_and(|slot| slot > state.disk.lsn) {
                    self.reach(Reached::EndedBeforeEpoch);
                }
                state.service = None;
                state.client.server = Server::Away;
            }
            Step::Start => {
                // Who finds no slot takes it for a copy of the database from before it.
                let fork = state.database.slot.is_none();
                let received = state.disk.lsn;
                state.service = Some(Service { received, connected: false, untold: false, fork });
            }
            Step::Purge => {
                state.purges -= 1;
                state.disk.floor = state.disk.lsn;
            }
            Step::Client => state.client.connect(&state.database, &state.disk, self.bug),
            Step::Serve => self.serve(state),
            Step::Round => {
                self.reach(Reached::SecondRound);
                state.client.round(&state.database, self.bug);
            }
            Step::Cut => {
                state.cuts -= 1;
                state.client.server = Server::Away;
            }
        }
    }

    fn database_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let database = &state.database;
        if database.log.len() < self.length {
            steps.push(Step::Commit(Transaction::Write));
            if database.row().is_some() {
                steps.push(Step::Commit(match database.fires {
                    true => Transaction::Delete,
                    false => Transaction::DeleteUntold,
                }));
                if !database.fires {
                    steps.push(Step::Commit(Transaction::DeleteTwice));
                }
            }
        }
        if !database.fires || state.disabled > 0 {
            steps.push(Step::Fire(!database.fires));
        }
        match database.hidden {
            Hidden::No if state.hidden > 0 => {
                steps.extend([Step::Hide(Hidden::ByPolicy), Step::Hide(Hidden::Silently)]);
            }
            Hidden::No => {}
            // See above: what is left out.
            Hidden::Silently if matches!(state.client.server, Server::Paged { .. }) => {}
            Hidden::ByPolicy | Hidden::Silently => steps.push(Step::Hide(Hidden::No)),
        }
    }

    fn client_steps(&self, state: &State, service: &Service, steps: &mut Vec<Step>) {
        match state.client.server {
            Server::Away if state.disk.tainted => {}
            Server::Away => steps.push(Step::Client),
            // A page is an error while a policy could filter it.
            Server::Paging { .. }
                if state.database.hidden == Hidden::ByPolicy && !self.has(Bug::PolicyIsNoError) => {}
            Server::Following => {
                if state.client.id.is_some_and(|id| id.position < service.received) {
                    steps.push(Step::Serve);
                }
            }
            Server::Paged { watermark, .. } => {
                steps.push(Step::Serve);
                if watermark < state.database.end() {
                    steps.push(Step::Round);
                }
            }
            Server::Resetting { .. } | Server::Paging { .. } => steps.push(Step::Serve),
        }
        if state.cuts > 0 && state.client.server == Server::Following {
            steps.push(Step::Cut);
        }
    }
}

impl State {
    fn has_connected(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.connected)
    }
}

impl Model for Facts {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            database: Database { log: Vec::new(), slot: Some(0), fires: true, hidden: Hidden::No },
            disk: Disk { epoch: 0, forked: 0, lsn: 0, floor: 0, tainted: false },
            service: Some(Service { received: 0, connected: true, untold: false, fork: false }),
            client: Client::new(),
            disabled: self.disabled,
            hidden: self.hidden,
            kills: self.kills,
            cuts: self.cuts,
            purges: self.purges,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.database_steps(state, steps);
        let Some(service) = &state.service else {
            steps.push(Step::Start);
            return;
        };
        if state.kills > 0 {
            steps.push(Step::Kill);
        }
        if service.connected {
            if service.received < state.database.end() {
                steps.push(Step::Receive);
            }
            if service.received > state.disk.lsn {
                steps.push(Step::Sync);
            }
        } else {
            steps.extend(self.next(state, service).map(Step::Connect));
        }
        if state.purges > 0 && state.disk.floor < state.disk.lsn {
            steps.push(Step::Purge);
        }
        self.client_steps(state, service, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
