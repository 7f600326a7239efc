//! The model of membership: a stream of one Group, whose members change while it is open, or of patients who stay the same.
//!
//! A few transactions, each of one write, are tried in every order, as are their commits, their becoming visible to others, the
//! feed's reading of the log, retention, lost connections, and each row and entry that the subscriber takes. What is left out:
//!
//! - Clocks that step, crashes: the [`history`](crate::history) model has them, and a watermark is here what it proves of one.
//! - The way from the log to the feed, and the hub: the [`delivery`](crate::delivery) model has them.
//! - Periods of members: a period that begins or ends is an entry of the log, like a change of a Group.

mod client;
mod pages;
pub mod properties;
mod roster;
pub mod scenarios;
mod shared;
mod subscriber;
mod world;

pub use client::{Client, Violation};
pub use shared::{Item, Limit, Shared};
pub use subscriber::Place;
pub use world::{Patients, Position, Stamp, Watermark, World, Write};

use crate::{Bug, Coverage};
use stateright::{Model, Property};
use subscriber::Stream;
use world::Progress;

/// Resources that are written.
pub const RESOURCES: usize = 2;
/// These, and two Groups: the one that is asked for, and one nested in it.
pub const KEYS: usize = RESOURCES + 2;

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct Membership {
    /// What it is about.
    pub name: &'static str,
    /// The patients that are asked for, if it is not a Group that says who they are.
    pub patients: Option<Patients>,
    /// What the tables hold before.
    pub first: [Option<Patients>; KEYS],
    /// What is written, in any order.
    pub writes: Vec<Write>,
    /// What a resource has to be, besides somebody's, to be in scope: bits that no patient has.
    pub matching: Patients,
    /// How often the connection is lost.
    pub cuts: u8,
    /// How often a client that was cut off comes back with the safe time that it was told, instead of its id.
    pub since: u8,
    /// How often the journal drops what it may.
    pub purges: u8,
    /// How often a watermark is sampled without a stream that asks.
    pub samples: u8,
    /// Whether those who stand where the members change share the transition.
    pub shared: bool,
    /// How often a shared transition meets a limit.
    pub limits: u8,
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
    /// The pages of patients who stay the same handed over to the feed.
    HandedOver,
    /// A joiner's resources were paged into a stream that was open.
    Joined,
    /// A leaver's resource was removed.
    LeaverRemoved,
    /// An entry on the feed's side was sent within a transition.
    RecentSent,
    /// A fading ended.
    Faded,
    /// A change was sent live.
    LiveSent,
    /// A resource left by its own change, or was deleted.
    LeftScope,
    /// A resource left by a change after which it is still a member's.
    LeftFilter,
    /// A client came back with a safe time, and was told what it missed.
    CameBackSince,
    /// A client was reset.
    Reset,
    /// A transition was resumed.
    PagingResumed,
    /// A stream was resumed between a change of membership and its transition, or while it faded.
    MovingResumed,
    /// A commit was in the feed before others saw it.
    DecodedUnseen,
    /// The client passed on a shared transition to its end.
    Shared,
    /// It joined one that had sent something.
    JoinedLate,
    /// It left one in the middle, and went on from its last id.
    WentOnAlone,
    /// Everything was written and told.
    Finished,
}

/// The state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    world: World,
    client: Client,
    /// `None`: not connected.
    stream: Option<Place>,
    shared: Option<Shared>,
    cuts: u8,
    since: u8,
    purges: u8,
    samples: u8,
    limits: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A transaction writes.
    Write(usize),
    /// Its commit is in the log.
    Commit(usize),
    /// Others see it.
    Appear(usize),
    /// The next commit is in the feed and in the journal.
    Decode,
    /// The journal drops what lies before a place.
    Purge(usize),
    /// A watermark is taken.
    Sample,
    /// The stream's next step.
    Stream,
    /// The next step of the shared transition's task.
    Shared,
    /// The shared transition meets a limit at that step.
    Limit(Limit),
    /// The connection is lost.
    Cut,
    /// The client connects, with its last id.
    Connect,
    /// The client connects, with the safe time that it was told last.
    ConnectSince,
}

impl Membership {
    /// Who is asked for, by the whole history.
    fn true_members(&self, world: &World, position: world::Position) -> Patients {
        self.patients.unwrap_or_else(|| world.true_members(&self.first, position))
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn reach(&self, reached: Reached) {
        self.coverage.note(reached as u32);
    }
}

impl State {
    /// Whether everything that was written was told.
    fn is_told(&self) -> bool {
        let at_head = matches!(self.stream, Some(Place::Following(following))
            if following.position == self.world.log.len() && following.from.is_none() && following.fading.is_none());
        at_head && self.world.is_at_rest() && !self.client.is_being_reset()
    }
}

impl Model for Membership {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            world: World::new(self.first, self.writes.len()),
            client: Client::new(),
            stream: Some(Place::Start),
            cuts: self.cuts,
            since: self.since,
            shared: None,
            purges: self.purges,
            samples: self.samples,
            limits: self.limits,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let world = &state.world;
        for (number, progress) in world.writes.iter().enumerate() {
            match progress {
                Progress::Waiting if world.may_write(number, &self.writes) => steps.push(Step::Write(number)),
                Progress::Written(..) => steps.push(Step::Commit(number)),
                Progress::Committed(_) => steps.push(Step::Appear(number)),
                Progress::Waiting | Progress::Visible => {}
            }
        }
        if world.decoded < world.log.len() {
            steps.push(Step::Decode);
        }
        if state.purges > 0 {
            steps.extend((world.floor + 1..=world.decoded).map(Step::Purge));
        }
        if state.samples > 0 {
            steps.push(Step::Sample);
        }
        if self.shared && state.shared.as_ref().is_none_or(Shared::runs) {
            steps.push(Step::Shared);
            if state.limits > 0 {
                steps.extend([Limit::Full, Limit::Reclaimed].map(Step::Limit));
            }
        }
        match state.stream {
            None => {
                steps.push(Step::Connect);
                if state.since > 0 && state.client.told.is_some() {
                    steps.push(Step::ConnectSince);
                }
            }
            Some(_) => {
                steps.push(Step::Stream);
                if state.cuts > 0 {
                    steps.push(Step::Cut);
                }
            }
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Write(number) => next.world.write(number, self.writes[number]),
            Step::Commit(number) => next.world.commit(number, self.writes[number]),
            Step::Appear(number) => next.world.appear(number, self.writes[number]),
            Step::Decode => {
                next.world.decoded += 1;
                if next.world.writes.iter().any(|progress| matches!(progress, Progress::Committed(_))) {
                    self.reach(Reached::DecodedUnseen);
                }
            }
            Step::Purge(upto) => {
                next.purges -= 1;
                next.world.purge(upto);
            }
            Step::Sample => {
                next.samples -= 1;
                next.world.sampled = next.world.watermark();
            }
            Step::Stream => {
                let place = next.stream?;
                let mut stream = Stream { model: self, world: &mut next.world, out: &mut next.client };
                next.stream = Some(match place {
                    Place::Shared(_, passed) => self.pass_on(&mut next, passed)?,
                    place => match stream.step(place)? {
                        Place::Shared(from, _) => self.join_shared(&mut next, from),
                        place => place,
                    },
                });
                if next.is_told() && next.world.writes.iter().all(|progress| *progress == Progress::Visible) {
                    self.reach(Reached::Finished);
                }
            }
            Step::Shared => self.run_shared(&mut next)?,
            Step::Limit(limit) => {
                next.limits -= 1;
                self.limit_shared(&mut next, limit)?;
            }
            Step::Cut => {
                next.cuts -= 1;
                next.stream = None;
            }
            Step::Connect => {
                next.stream = Some(next.client.id);
                match next.client.id {
                    Place::Paging(_) => self.reach(Reached::PagingResumed),
                    Place::Following(following) if following.from.is_some() => {
                        self.reach(Reached::MovingResumed);
                    }
                    _ => {}
                }
            }
            Step::ConnectSince => {
                next.since -= 1;
                let since = next.client.told?;
                next.client.forget_id();
                let mut stream = Stream { model: self, world: &mut next.world, out: &mut next.client };
                next.stream = Some(stream.since(since));
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
