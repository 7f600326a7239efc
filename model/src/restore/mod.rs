//! The model of restores: which event ids still name what a client has, after database and journal were replaced by copies.
//!
//! A copy of the database, of the journal, or of both is taken at one instant and put back later. The client keeps the id
//! that it was given meanwhile. Whatever the service is left with, it must not continue a history that the database does not
//! have. What is left out:
//!
//! - Stamps: a page shows what was committed before the watermark's place in the log, and the feed brings the rest. That this is
//!   so is the history model's.
//! - Channels, queues, and what is acknowledged: the delivery model's. What is on disk was acknowledged.
//! - What the hash of a transaction is made of: here each transaction has a number that no other has.
//! - A database that is restored alone, to a moment after the last that the journal has received and before a watermark that it
//!   has noted, and that is written to until it has passed the watermark before we connect: nothing tells that from the history
//!   that was lost.

mod client;
mod properties;
pub mod scenarios;
mod service;

use crate::{Bug, Coverage};
pub use client::{Client, Id, Server, Stage};
pub use properties::{NEVER_A_LOST_HISTORY, NEVER_RESET_NEEDLESSLY};
pub use service::{Disk, Run, Service};
use stateright::{Model, Property};

/// A transaction by its number, which is another in each history; 0: one that concerns no subscriber.
pub type Transaction = u8;

/// A place in the log: so many transactions lie before it.
pub type Lsn = u8;

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Restore {
    /// What it is about.
    pub name: &'static str,
    /// How many transactions the log holds at most.
    pub length: usize,
    /// What the copy is put back over; nothing is ever restored without it.
    pub restored: Option<Restored>,
    /// How often our process is killed, besides for the restore.
    pub kills: u8,
    /// How often retention drops what is old.
    pub purges: u8,
    /// How often something ends the epoch that is no fork.
    pub alterations: u8,
    /// Whether the client is cut off within its pages.
    pub pages: bool,
    /// Whether the journal's disk may be full: then runs and watermarks are noted when there is room, and else at once.
    pub full: bool,
    /// The seeded mistake.
    pub bug: Option<Bug>,
    /// What has to happen in some order of the steps.
    pub reached: &'static [Reached],
    /// What has happened so far.
    pub coverage: Coverage,
}

/// What is replaced by its copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Restored {
    /// The database alone: the journal is newer.
    Database,
    /// The journal alone: the database is newer.
    Journal,
    /// Both, from one instant. For a client that changes from one to the other it is the same if both go on side by side.
    Both,
}

/// A situation that a scenario is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// The client continued after a restore, from an id of before the copy.
    ContinuedAfterRestore,
    /// The id named a transaction that the journal has otherwise.
    OtherTransaction,
    /// The feed passed the place of an id that was ahead of it, and it was another transaction.
    OtherTransactionLater,
    /// The id was of a run that the journal does not know.
    UnknownRun,
    /// A client saw what our crash lost, and continued once it had come again.
    CameAgain,
    /// An id behind retention, or of an ended epoch, was proven: the client was reset from its safe time.
    ProvenReset,
    /// One that was not.
    UnprovenReset,
    /// A round was resumed by another run than the one that began it.
    ResumedPages,
    /// The service saw by itself that the database is another.
    ForkSeen,
}

/// The database: its log, and where the slot stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Database {
    /// Each transaction, in order.
    pub log: Vec<Transaction>,
    /// Everything before it was acknowledged.
    pub slot: Lsn,
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
    /// The copy, once it is taken.
    copy: Option<Box<(Database, Disk)>>,
    was_restored: bool,
    /// The next number of a transaction, of a run, of an epoch.
    next: u8,
    kills: u8,
    purges: u8,
    alterations: u8,
    /// The publication was altered since the epoch began.
    altered: bool,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A transaction commits; whether it concerns the client.
    Commit(bool),
    /// The copies are taken.
    Copy,
    /// They are put back, while we do not run.
    Restore(Restored),
    /// The publication is altered, which is noticed when we connect.
    Alter,
    /// We connect to the database.
    Follow,
    /// The next transaction comes in and is published.
    Receive,
    /// The journal is written, and acknowledged.
    Sync,
    /// Our process is killed.
    Kill,
    /// It is started.
    Start,
    /// The journal notes its run. Until the disk has room it does not.
    NoteRun,
    /// A watermark is taken for the client's pages.
    Watermark,
    /// The journal notes it.
    NoteWatermark(Lsn),
    /// Retention drops everything up to a place.
    Purge(Lsn),
    /// The client connects.
    Connect,
    /// It reads half of its pages, and then the other.
    Page,
    /// Its connection is lost.
    Cut,
}

impl Restore {
    fn reach(&self, reached: Reached) {
        self.coverage.note(reached as u32);
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Commit(concerns) => {
                let transaction = if concerns { state.draw() } else { 0 };
                state.database.log.push(transaction);
            }
            Step::Copy => state.copy = Some(Box::new((state.database.clone(), state.disk.clone()))),
            Step::Restore(what) => state.restore(what),
            Step::Alter => {
                state.alterations -= 1;
                state.altered = true;
                state.disconnect();
            }
            Step::Follow => self.follow(state),
            Step::Receive => {
                if let Some(service) = &mut state.service {
                    let next = service.received.len();
                    service.received.extend(state.database.log.get(next));
                    self.told(state);
                }
            }
            Step::Sync => {
                if let Some(service) = &state.service {
                    state.disk.entries.clone_from(&service.received);
                    state.database.slot = state.disk.lsn();
                }
            }
            Step::Kill => {
                state.kills -= 1;
                state.stop();
            }
            Step::Start => {
                let run = match self.bug {
                    Some(Bug::RunSurvivesRestart) => state.disk.run,
                    _ => state.draw(),
                };
                if !self.full && self.bug != Some(Bug::RunSurvivesRestart) {
                    state.disk.begin_run(run);
                }
                state.service = Some(Service::start(&state.disk, run));
            }
            Step::NoteRun => {
                if let Some(service) = &state.service {
                    state.disk.begin_run(service.run);
                }
            }
            Step::Watermark => {
                state.client.watermark(&state.database.log);
            }
            Step::NoteWatermark(watermark) => state.disk.note(watermark),
            Step::Purge(floor) => {
                state.purges -= 1;
                state.disk.floor = floor;
            }
            Step::Connect => self.connect(state),
            Step::Page => {
                let log = &state.database.log;
                if state.client.server == Server::Reset {
                    state.disk.note(state.client.watermark(log));
                }
                if let Some(service) = &state.service {
                    state.client.page(log, &state.disk, service);
                    self.told(state);
                }
            }
            Step::Cut => state.client.cut(),
        }
    }

    /// Connects to the database, and begins a new epoch if there is a reason.
    fn follow(&self, state: &mut State) {
        let Some(service) = &state.service else { return };
        let fork = service.is_fork(&state.database, &state.disk);
        if fork {
            self.reach(Reached::ForkSeen);
        }
        if state.needs_epoch() {
            let end = if fork { state.disk.lsn() } else { service.lsn() };
            let (epoch, run) = (state.next, state.next + 1);
            state.next += 2;
            state.altered = false;
            state.disk.begin_epoch(epoch, run, end, state.database.slot, fork);
            // What lies before the epoch is in the tables.
            let before = state.database.log.iter().take(usize::from(state.database.slot));
            state.disk.entries = before.copied().collect();
            state.service = Some(Service::start(&state.disk, run));
            // Whoever is connected is reset as if it came back.
            if state.client.server != Server::Away {
                state.client.cut();
            }
        }
        if let Some(service) = &mut state.service {
            service.connected = true;
        }
    }

    fn connect(&self, state: &mut State) {
        let Some(service) = &state.service else { return };
        let before = state.client.clone();
        state.client.connect(&state.database, &state.disk, service, state.was_restored, self.bug);
        let client = &state.client;
        let Some(id) = before.id else { return };
        if client.told_all || client.told_reset {
            let known = state.disk.run(id.run).is_some();
            self.reach(match (client.told_all, known) {
                (true, false) => Reached::UnknownRun,
                (true, true) => Reached::UnprovenReset,
                (false, _) => Reached::ProvenReset,
            });
        } else if id.stage.watermark().is_some() && client.server == Server::Pages && id.run != service.run {
            self.reach(Reached::ResumedPages);
        }
        if client.server == Server::Unverified {
            self.told(state);
            if state.client.server == Server::Reset && state.client.told_all {
                self.reach(Reached::OtherTransaction);
            }
        }
    }

    /// The client's part of what has come in.
    fn told(&self, state: &mut State) {
        let Some(service) = &state.service else { return };
        let before = state.client.server;
        let ahead = state.client.id.is_some_and(|id| id.position == service.lsn());
        state.client.told(&state.database.log, service, self.bug);
        match (before, state.client.server) {
            (Server::Unverified, Server::Following) if state.was_restored => {
                self.reach(Reached::ContinuedAfterRestore);
            }
            (Server::Unverified, Server::Following) if ahead => self.reach(Reached::CameAgain),
            (Server::Unverified, Server::Reset) if ahead => self.reach(Reached::OtherTransactionLater),
            _ => {}
        }
    }
}

impl State {
    fn draw(&mut self) -> u8 {
        self.next += 1;
        self.next - 1
    }

    /// Whether a new epoch begins when the service connects.
    fn needs_epoch(&self) -> bool {
        self.altered
            || self.database.slot > self.disk.lsn()
            || self.service.as_ref().is_some_and(|service| service.is_fork(&self.database, &self.disk))
    }

    fn disconnect(&mut self) {
        if let Some(service) = &mut self.service {
            service.connected = false;
        }
    }

    fn stop(&mut self) {
        self.service = None;
        self.client.cut();
    }

    fn restore(&mut self, what: Restored) {
        let Some(copy) = self.copy.take() else { return };
        let (database, disk) = *copy;
        if what != Restored::Journal {
            self.database = database;
        }
        if what != Restored::Database {
            self.disk = disk;
        }
        self.was_restored = true;
        self.stop();
    }
}

impl Model for Restore {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let disk = Disk::new(1, 2);
        vec![State {
            database: Database::default(),
            service: Some(Service { connected: true, ..Service::start(&disk, disk.run) }),
            disk,
            client: Client::default(),
            copy: None,
            was_restored: false,
            next: 3,
            kills: self.kills,
            purges: self.purges,
            alterations: self.alterations,
            altered: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // See the limit that the module's documentation states.
        let unseen = self.restored == Some(Restored::Database)
            && state.was_restored
            && state.database.log.len() < usize::from(state.disk.paged);
        if state.database.log.len() < self.length && !unseen {
            steps.extend([Step::Commit(true), Step::Commit(false)]);
        }
        if let Some(restored) = self.restored {
            match &state.copy {
                Some(_) => steps.push(Step::Restore(restored)),
                None if !state.was_restored => steps.push(Step::Copy),
                None => {}
            }
        }
        if state.alterations > 0 && !state.altered {
            steps.push(Step::Alter);
        }
        let Some(service) = &state.service else {
            steps.push(Step::Start);
            return;
        };
        if state.kills > 0 {
            steps.push(Step::Kill);
        }
        let noted = service.run == state.disk.run;
        if !noted {
            steps.push(Step::NoteRun);
        }
        if service.connected {
            if service.received.len() < state.database.log.len() {
                steps.push(Step::Receive);
            }
            if noted && service.received != state.disk.entries {
                steps.push(Step::Sync);
            }
        } else if noted || self.bug == Some(Bug::IdBeforeRunIsNoted) && !state.needs_epoch() {
            // What is received before the run is noted reaches nobody.
            steps.push(Step::Follow);
        }
        if noted && state.purges > 0 {
            steps.extend((state.disk.floor + 1..state.disk.lsn()).map(Step::Purge));
        }
        match state.client.server {
            // Before the database is followed no id is judged.
            Server::Away if service.connected => steps.push(Step::Connect),
            Server::Away => {}
            Server::Reset if service.connected => {
                steps.push(if self.full { Step::Watermark } else { Step::Page });
            }
            Server::Marked(watermark) if service.connected => {
                let there =
                    state.disk.paged >= watermark || self.bug == Some(Bug::PageBeforeWatermarkIsNoted);
                steps.push(if there { Step::Page } else { Step::NoteWatermark(watermark) });
            }
            Server::Pages if service.connected => steps.push(Step::Page),
            _ => {}
        }
        if state.client.may_be_cut(self.pages) {
            steps.push(Step::Cut);
        }
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
