//! The model of a history: a database, its clock, watermarks, pages, and one subscriber that replays, follows, is cut off and comes
//! back.
//!
//! Every step of a transaction and of a watermark, every row of a page and every entry of the feed is a step of its own, and the checker
//! tries them in every order. What is left out:
//!
//! - The way from the log to the feed. The feed here is the flushed log, in its order, read from any position; the
//!   delivery model shows that the real one is that, whatever is lost between.
//! - Filters: a subscriber gets everything. What a filter leaves out only moves positions, which is the delivery model's.
//! - Other subscribers: they share nothing but watermarks, which here are taken at any time besides.
//! - Retention: what it drops is met as a `reset`, which here follows from a lost journal.

mod apply;
pub mod clock;
pub mod database;
pub mod feed;
mod possible;
pub mod properties;
pub mod scenarios;
pub mod subscriber;
pub mod watermark;

use crate::{Bug, Coverage};
use clock::{BEGINNING, Clock, FAR_AHEAD, Instant};
use database::{Database, TRANSACTIONS};
use feed::Feed;
use stateright::{Model, Property};
use subscriber::Subscriber;
use watermark::{Closings, Sampler};

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub struct History {
    /// What it is about.
    pub name: &'static str,
    /// How many transactions, up to [`TRANSACTIONS`].
    pub transactions: usize,
    /// How many keys they write, up to [`subscriber::KEYS`].
    pub keys: u8,
    /// Whether beginning, getting an id and writing are steps of their own; else a transaction does all three at once.
    pub slow: bool,
    /// Whether they also delete.
    pub deletions: bool,
    /// Whether inserts may be stamped before they wait for whoever writes the same key, as those of a bulk load.
    pub early: bool,
    /// Whether they may be visible before their commit is on disk.
    pub asynchronous: bool,
    /// How far the clock goes.
    pub ticks: u8,
    /// How often it steps back ...
    pub steps: u8,
    /// ... and by how many ticks at most.
    pub far: Instant,
    /// How often the database loses its power.
    pub crashes: u8,
    /// How often the connection is lost.
    pub cuts: u8,
    /// How often the journal is lost.
    pub epochs: u8,
    /// Watermarks that are taken though no replay waits.
    pub watermarks: u8,
    /// Rounds after the first.
    pub rounds: u8,
    /// Whether a watermark may be taken without closing a time: the safe time stays where it was, unless a transaction has ended.
    pub lazy: bool,
    /// Whether the client comes back with `_since`, too.
    pub since: bool,
    /// Whether its first `_since` is far ahead: it asks for what is committed from now on.
    pub ahead: bool,
    /// The seeded mistake.
    pub bug: Option<Bug>,
    /// What has to happen in some order of the steps: a run in which it does not shows nothing.
    pub reached: &'static [Reached],
    /// What has happened so far.
    pub coverage: Coverage,
}

/// A situation that a scenario is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reached {
    /// Something was sent from the pages, and the subscriber became live.
    PagesThenLive,
    /// A connection was lost within the pages and the round resumed.
    RoundResumed,
    /// There was a second round.
    SecondRound,
    /// A deletion was told from the pages.
    TombstoneSent,
    /// A watermark had to wait for the log to come to disk.
    WatermarkWaitedForDisk,
    /// A commit that others had seen was lost.
    VisibleCommitLost,
    /// The place of a lost commit was used again.
    PlaceUsedAgain,
    /// The clock stepped back.
    ClockStepped,
    /// A stamp was later than the clock because that time was closed.
    StampAfterClock,
    /// An entry was dropped because the pages had it.
    EntryDropped,
    /// A commit that was in the log was not visible to a watermark that had been taken after it.
    CommitNotVisible,
    /// A live event was heard.
    LiveDelivery,
    /// A cut while the id carried the watermark.
    CutoverResumed,
    /// A client whose journal was lost was reset and live again.
    ResetThenLive,
    /// A stream that was live was told a later time.
    TimeTold,
    /// The safe time stayed where it was because of an older writer.
    SafeTimeHeld,
    /// An insert was refused because its key was deleted behind its stamp.
    DeletedBehindStamp,
}

/// The state.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// The clock.
    pub clock: Clock,
    /// The database.
    pub database: Database,
    /// The watermark that is being taken.
    pub sampler: Sampler,
    /// The times that were closed and are not safe yet.
    pub closings: Closings,
    /// The feed.
    pub feed: Feed,
    /// The subscriber.
    pub subscriber: Subscriber,
    crashes: u8,
    cuts: u8,
    epochs: u8,
    watermarks: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Time passes.
    Tick,
    /// The clock steps back.
    StepBack(Instant),
    /// A transaction begins.
    Begin(usize),
    /// It gets an id.
    Identify(usize),
    /// It reads the clock for a stamp, but does not write yet: inserts that do not wait before, and seeded mistakes.
    Stamp(usize, u8, bool),
    /// It locks a row, stamps and writes it.
    Write(usize, u8, bool),
    /// Its insert has waited behind its stamp, and is refused.
    Refuse(usize),
    /// Its commit is in the log.
    Commit(usize),
    /// Others see it.
    Appear(usize),
    /// One more commit is on the database's disk.
    Flush,
    /// The database loses its power.
    Crash,
    /// A watermark: a time is closed.
    CloseTime,
    /// A watermark: who has an id.
    SampleWriters,
    /// A watermark: the fence LSN.
    SamplePlace,
    /// A watermark holds.
    WatermarkHolds,
    /// The walsender's next commit is in the feed.
    Publish,
    /// The journal is lost.
    LoseJournal,
    /// A new slot is made.
    MakeSlot,
    /// And the clock read for it.
    BeginEpoch,
    /// The client connects, with its last id if it has one.
    Connect,
    /// The client connects with `_since`.
    ConnectSince,
    /// The connection is lost.
    Cut,
    /// A page is read.
    ReadPage,
    /// It is sent; if it was the end of the pages, with another round to follow?
    SendPage(bool),
    /// The next entry of the feed, or its end.
    Follow,
}

impl History {
    fn reach(&self, reached: Reached) {
        self.coverage.note(reached as u32);
    }

    fn has_bug(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl Model for History {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        debug_assert!(self.transactions <= TRANSACTIONS);
        vec![State {
            clock: Clock { now: 0, ticks: self.ticks, steps: self.steps },
            database: Database::new(),
            sampler: Sampler::Idle,
            closings: Closings::default(),
            feed: Feed::new(),
            subscriber: Subscriber::new(if self.ahead { FAR_AHEAD } else { BEGINNING }),
            crashes: self.crashes,
            cuts: self.cuts,
            epochs: self.epochs,
            watermarks: self.watermarks,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.clock.ticks > 0 {
            steps.push(Step::Tick);
        }
        if state.clock.steps > 0 {
            steps.extend((1..=self.far).map(Step::StepBack));
        }
        self.transaction_steps(state, steps);
        if state.database.flushed < state.database.insert {
            steps.push(Step::Flush);
        }
        if state.crashes > 0 {
            steps.push(Step::Crash);
        }
        self.sampler_steps(state, steps);
        if state.feed.begins.is_some() && state.feed.published < state.database.flushed {
            steps.push(Step::Publish);
        }
        if state.epochs > 0 {
            steps.push(Step::LoseJournal);
        }
        if state.feed.slot_is_ready(&state.database) {
            steps.push(Step::MakeSlot);
        }
        if state.feed.slot.is_some() {
            steps.push(Step::BeginEpoch);
        }
        self.subscriber_steps(state, steps);
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
