//! The model of the delivery: from the log to the client's socket, with everything between that can be lost.
//!
//! Walsender, publisher, hub, journal, fsync and acknowledgement, one subscriber that reads the journal, joins its channel, lags,
//! is cut off and comes back; the process is killed, the database restarts, the connection between them is lost, the journal fails
//! and is opened again, retention drops what is old. What is left out:
//!
//! - What the rows are. Stamps, watermarks and pages are the history model's; a subscriber here is beyond its split.
//! - Transactions that never come to the database's disk: they are not decoded.
//! - The size of things: a batch has at most two messages, a channel and the journal's queue hold very few. It is the
//!   orders that matter: full, empty, and one more.
//! - Other subscribers: each has a channel's place of its own and waits for nobody.
//! - Forks and recreated slots: they end an epoch, and what follows is a reset.

pub mod log;
pub mod properties;
pub mod scenarios;
pub mod service;
pub mod subscriber;

use crate::{Bug, Coverage};
use log::{Lsn, Message, Position, Script, Walsender, rows};
use service::{Batch, Disk, Published, QUEUE, Service};
use stateright::{Model, Property};
use subscriber::{Server, Subscriber};

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What it is about.
    pub name: &'static str,
    /// What is committed.
    pub script: Script,
    /// How often our process is killed.
    pub kills: u8,
    /// How often the database restarts or the connection to it is lost.
    pub disconnects: u8,
    /// How often the subscriber's connection is lost.
    pub cuts: u8,
    /// How often the journal fails.
    pub failures: u8,
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
    /// A change came through the channel.
    LiveDelivery,
    /// A subscriber lagged in its channel and got the rest from the journal.
    BackFromJournal,
    /// A subscriber in its channel waited for the journal to have the joining point.
    WaitedForDisk,
    /// A client came back with an id that is ahead of the feed: it saw what our crash lost.
    IdAhead,
    /// A transaction that was on our disk came again.
    CameAgain,
    /// A transaction was cut off in the middle.
    CutWithinTransaction,
    /// A keepalive named the end of a commit that was not on our disk.
    KeepaliveAhead,
    /// The journal took from the log what the hub had published already.
    JournalCaughtUp,
    /// A client was told a position without an event.
    PositionTold,
    /// A client came back for what retention had dropped.
    RightlyReset,
    /// What came through the channel again was dropped.
    ChunkDropped,
}

/// The state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// Transactions that are committed, and on the database's disk.
    pub committed: Lsn,
    /// Where the slot stands: everything before was acknowledged.
    pub confirmed: Lsn,
    /// The stream, while there is one.
    pub walsender: Option<Walsender>,
    /// On the wire.
    pub wire: Vec<Message>,
    /// Our process.
    pub service: Option<Service>,
    /// Our disk.
    pub disk: Disk,
    /// The subscriber.
    pub subscriber: Subscriber,
    /// What came again was taken for another history, or the slot for one that somebody else moved.
    pub forked: bool,
    kills: u8,
    disconnects: u8,
    cuts: u8,
    failures: u8,
    purges: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A transaction commits.
    Commit,
    /// The walsender sends.
    Send,
    /// The walsender sends a keepalive.
    Keepalive,
    /// The connection to the database is lost. After a restart the slot may stand where it stood before.
    Disconnect(Lsn),
    /// We connect to the database.
    Stream,
    /// So many messages make a batch, which is published.
    Publish(usize),
    /// The journal's thread writes what waits.
    Sync,
    /// The journal cannot be written.
    Fail,
    /// It is opened again.
    Recover,
    /// The server is told what is on our disk.
    Acknowledge,
    /// Our process is killed.
    Kill,
    /// It is started.
    Start,
    /// Retention drops everything up to a row.
    Purge(Position),
    /// The client connects.
    Connect,
    /// The client's connection is lost.
    Cut,
    /// The subscriber goes on.
    Subscriber,
}

/// Messages that may be on the wire.
const WIRE: usize = 2;

impl Delivery {
    fn reach(&self, reached: Reached) {
        self.coverage.note(reached as u32);
    }

    /// What may be acknowledged.
    fn acknowledgeable(&self, state: &State) -> Lsn {
        let queue =
            state.service.iter().flat_map(|service| &service.queue).filter_map(|queued| queued.passed);
        let received = queue.filter(|_| self.bug == Some(Bug::AcknowledgeReceived)).max();
        state.disk.lsn.max(received.unwrap_or(0))
    }

    fn publish(&self, state: &mut State, count: usize) {
        let Some(service) = &mut state.service else { return };
        let mut batch = Batch::default();
        for message in state.wire.drain(..count) {
            match message {
                Message::Row(row, _) => {
                    service.open = true;
                    batch.first = if batch.first == 0 { row } else { batch.first };
                    batch.last = row;
                }
                Message::Commit(lsn) => {
                    service.open = false;
                    batch.passed = Some(lsn);
                }
                Message::Keepalive(lsn) => {
                    if lsn > state.disk.lsn {
                        self.reach(Reached::KeepaliveAhead);
                    }
                    if self.bug == Some(Bug::AcknowledgeKeepaliveAtOnce) {
                        state.confirmed = state.confirmed.max(lsn);
                    }
                    if !service.open {
                        batch.passed = batch.passed.max(Some(lsn));
                    }
                }
            }
        }
        if batch.last != 0 && batch.last <= state.disk.head {
            self.reach(Reached::CameAgain);
        }
        let behind = service.queued < service.head;
        match service.publish(batch, &state.disk, self.script, self.bug) {
            Published::Done(chunk) => {
                if behind && service.queued >= service.head && !service.failing {
                    self.reach(Reached::JournalCaughtUp);
                }
                if let Some(chunk) = chunk {
                    state.subscriber.offer(chunk, self.script);
                }
            }
            Published::Reopened => state.disconnect(),
            Published::Fork => {
                state.forked = true;
                state.disconnect();
            }
        }
    }

    fn subscriber_step(&self, state: &mut State) {
        let Some(service) = &state.service else { return };
        let before = state.subscriber.clone();
        state.subscriber.step(&state.disk, service, self.script, self.bug);
        let after = &state.subscriber;
        let heard = after.heard != before.heard;
        match (before.server, after.server) {
            (Server::Live, Server::Live) if heard => self.reach(Reached::LiveDelivery),
            (Server::Live, Server::Live) if before.position == after.position => {
                self.reach(Reached::ChunkDropped);
            }
            (Server::Live, Server::Journal) => self.reach(Reached::BackFromJournal),
            (Server::Telling(_), _) if after.position > before.position => self.reach(Reached::PositionTold),
            (_, Server::Joined(head)) if state.disk.head < head => self.reach(Reached::WaitedForDisk),
            _ => {}
        }
    }

    fn apply(&self, state: &mut State, step: Step) {
        match step {
            Step::Commit => state.committed += 1,
            Step::Send | Step::Keepalive => {
                let Some(walsender) = &mut state.walsender else { return };
                let message = match step {
                    Step::Send => walsender.next(self.script, state.committed),
                    _ => Some(walsender.keepalive(self.script, state.committed)),
                };
                if let Some(message) = message {
                    walsender.advance(message);
                    state.wire.push(message);
                }
            }
            Step::Disconnect(confirmed) => {
                state.disconnects -= 1;
                if state.service.as_ref().is_some_and(|service| service.open) {
                    self.reach(Reached::CutWithinTransaction);
                }
                state.confirmed = confirmed;
                state.disconnect();
            }
            Step::Stream => {
                // A slot beyond what the journal knows was moved by somebody else, and the epoch ends.
                state.forked |= state.confirmed > state.disk.lsn;
                state.walsender = Some(Walsender::start(self.script, state.confirmed));
                if let Some(service) = &mut state.service {
                    service.resume(state.confirmed);
                }
            }
            Step::Publish(count) => self.publish(state, count),
            Step::Sync => {
                if let Some(service) = &mut state.service {
                    service.sync(&mut state.disk);
                }
            }
            Step::Fail => {
                state.failures -= 1;
                if let Some(service) = &mut state.service {
                    service.fail();
                }
            }
            Step::Recover => {
                if let Some(service) = &mut state.service {
                    service.recover();
                }
            }
            Step::Acknowledge => state.confirmed = state.confirmed.max(self.acknowledgeable(state)),
            Step::Kill => {
                state.kills -= 1;
                state.service = None;
                state.disconnect();
                state.subscriber.cut();
            }
            Step::Start => state.service = Some(Service::start(&state.disk, self.script)),
            Step::Purge(floor) => {
                state.purges -= 1;
                state.disk.floor = floor;
            }
            Step::Connect => {
                if state.service.as_ref().is_some_and(|service| state.subscriber.id > service.head) {
                    self.reach(Reached::IdAhead);
                }
                state.subscriber.connect(&state.disk);
                if state.subscriber.server == Server::Reset {
                    self.reach(Reached::RightlyReset);
                }
            }
            Step::Cut => {
                state.cuts -= 1;
                state.subscriber.cut();
            }
            Step::Subscriber => self.subscriber_step(state),
        }
    }

    fn service_steps(&self, state: &State, service: &Service, steps: &mut Vec<Step>) {
        if state.walsender.is_none() {
            steps.push(Step::Stream);
        }
        // A publisher whose queue is full waits. It fills by two when the journal catches up with the hub.
        if service.queue.len() < QUEUE {
            steps.extend((1..=state.wire.len()).map(Step::Publish));
        }
        if service.failing {
            steps.push(Step::Recover);
        } else {
            if !service.queue.is_empty() {
                steps.push(Step::Sync);
            }
            if state.failures > 0 {
                steps.push(Step::Fail);
            }
        }
        // The publisher looks up when the journal was opened again, even if nothing comes in.
        if service.reopened && state.wire.is_empty() && state.walsender.is_some() {
            steps.push(Step::Publish(0));
        }
        if state.walsender.is_some() && self.acknowledgeable(state) > state.confirmed {
            steps.push(Step::Acknowledge);
        }
        match state.subscriber.server {
            Server::Away => steps.push(Step::Connect),
            _ if state.subscriber.is_ready(&state.disk, service, self.bug) => steps.push(Step::Subscriber),
            _ => {}
        }
    }
}

impl State {
    fn disconnect(&mut self) {
        self.walsender = None;
        self.wire.clear();
    }
}

impl Model for Delivery {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let disk = Disk::default();
        vec![State {
            committed: 0,
            confirmed: 0,
            walsender: None,
            wire: Vec::new(),
            service: Some(Service::start(&disk, self.script)),
            disk,
            subscriber: Subscriber::new(),
            forked: false,
            kills: self.kills,
            disconnects: self.disconnects,
            cuts: self.cuts,
            failures: self.failures,
            purges: self.purges,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if usize::from(state.committed) < self.script.len() {
            steps.push(Step::Commit);
        }
        if let Some(walsender) = &state.walsender
            && state.wire.len() < WIRE
        {
            if walsender.next(self.script, state.committed).is_some() {
                steps.push(Step::Send);
            }
            if !walsender.quiet {
                steps.push(Step::Keepalive);
            }
        }
        if state.walsender.is_some() && state.disconnects > 0 {
            steps.extend((0..=state.confirmed).map(Step::Disconnect));
        }
        match &state.service {
            None => steps.push(Step::Start),
            Some(service) => {
                if state.kills > 0 {
                    steps.push(Step::Kill);
                }
                self.service_steps(state, service, steps);
            }
        }
        if state.purges > 0 {
            steps.extend((state.disk.floor + 1..state.disk.head).map(Step::Purge));
        }
        if state.cuts > 0 && !matches!(state.subscriber.server, Server::Away | Server::Reset) {
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

/// The rows before a place in the log, as bits.
pub(crate) fn rows_before(script: Script, lsn: Lsn) -> u16 {
    rows(script).filter(|(transaction, _, _)| *transaction < lsn).fold(0, |bits, (_, row, _)| bits | 1 << row)
}

/// The rows that the subscriber wants, up to a position, as bits.
pub(crate) fn wanted_up_to(script: Script, position: Position) -> u16 {
    rows(script)
        .filter(|(_, row, wanted)| *wanted && *row <= position)
        .fold(0, |bits, (_, row, _)| bits | 1 << row)
}
