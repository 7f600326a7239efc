//! The scenarios: each has few transactions and few faults, and is visited in every order.

use super::properties::{NEVER_BACKWARDS, NEVER_LOST, NEVER_UNDONE};
use super::{History, Reached};
use crate::{Bug, Coverage};

/// All of them. None is violated without a mistake.
pub fn all() -> Vec<History> {
    vec![
        History {
            name: "rounds: 3 writers of one key",
            transactions: 3,
            rounds: 1,
            reached: &[
                Reached::PagesThenLive,
                Reached::SecondRound,
                Reached::EntryDropped,
                Reached::LiveDelivery,
            ],
            ..History::plain()
        },
        History {
            name: "slow writers: begin, id, write apart; _since",
            slow: true,
            since: true,
            cuts: 1,
            reached: &[
                Reached::PagesThenLive,
                Reached::CommitNotVisible,
                Reached::WHeld,
                Reached::LiveDelivery,
            ],
            ..History::plain()
        },
        History {
            name: "a quiet stream is told the time; _since",
            ticks: 2,
            since: true,
            marks: 1,
            cuts: 1,
            reached: &[Reached::TimeTold, Reached::CommitNotVisible, Reached::LiveDelivery],
            ..History::plain()
        },
        History {
            name: "cuts: 2 keys",
            keys: 2,
            ticks: 2,
            cuts: 1,
            reached: &[Reached::RoundResumed, Reached::SplitResumed, Reached::CommitNotVisible],
            ..History::plain()
        },
        History {
            name: "deletions: rounds and a cut",
            ticks: 2,
            deletions: true,
            rounds: 1,
            cuts: 1,
            reached: &[Reached::TombstoneSent, Reached::SecondRound, Reached::RoundResumed],
            ..History::plain()
        },
        History {
            name: "inserts that are stamped before they wait",
            transactions: 3,
            ticks: 2,
            deletions: true,
            early: true,
            reached: &[Reached::DeletedBehindStamp, Reached::LiveDelivery, Reached::EntryDropped],
            ..History::plain()
        },
        History {
            name: "power failure: asynchronous commits",
            asynchronous: true,
            crashes: 1,
            cuts: 1,
            reached: &[
                Reached::MarkWaitedForDisk,
                Reached::VisibleCommitLost,
                Reached::PlaceUsedAgain,
                Reached::RoundResumed,
            ],
            ..History::plain()
        },
        History {
            name: "the clock steps back within the margin",
            ticks: 4,
            steps: 1,
            rounds: 1,
            reached: &[Reached::ClockStepped, Reached::SecondRound, Reached::PagesThenLive],
            ..History::plain()
        },
        History {
            name: "the clock steps back beyond the margin",
            ticks: 4,
            steps: 2,
            rounds: 1,
            reached: &[Reached::ClockSteppedFar, Reached::SecondRound, Reached::CommitNotVisible],
            ..History::plain()
        },
        History {
            name: "the journal is lost: a new slot, and a reset",
            ticks: 2,
            epochs: 1,
            marks: 1,
            reached: &[Reached::ResetThenLive, Reached::LiveDelivery],
            ..History::plain()
        },
    ]
}

/// Each mistake, in a scenario that is small enough and has what the mistake needs; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, History)> {
    let slow = History { slow: true, rounds: 1, ..History::plain() };
    let crash = History { asynchronous: true, crashes: 1, ticks: 2, ..History::plain() };
    let far = History { ticks: 3, steps: 2, rounds: 1, ..History::plain() };
    let reset = History { ticks: 2, epochs: 1, marks: 1, ..History::plain() };
    let since = History { ticks: 2, since: true, marks: 1, cuts: 1, ..History::plain() };
    let early = History { transactions: 3, ticks: 1, deletions: true, early: true, ..History::plain() };
    let cut = History { deletions: true, cuts: 1, ..History::plain() };
    [
        (Bug::StampIsTransactionStart, &slow, NEVER_LOST),
        (Bug::ActivityBeforeClock, &slow, NEVER_LOST),
        (Bug::StampBeforeTransactionId, &slow, NEVER_LOST),
        (Bug::StampBeforeLock, &slow, NEVER_BACKWARDS),
        (Bug::DeletedBehindStamp, &early, NEVER_BACKWARDS),
        (Bug::NothingWaitsForDisk, &crash, NEVER_UNDONE),
        (Bug::PageBeforeLogIsOnDisk, &crash, NEVER_LOST),
        (Bug::ResumeWithNewMark, &cut, NEVER_LOST),
        (Bug::RoundAfterClockStep, &far, NEVER_LOST),
        (Bug::CommitAtLIsBefore, &far, NEVER_LOST),
        (Bug::ReplayBeforeJournalBegins, &reset, NEVER_LOST),
        (Bug::IdHasNewestW, &reset, NEVER_LOST),
        (Bug::PositionHasNewestW, &since, NEVER_LOST),
    ]
    .into_iter()
    .map(|(bug, scenario, violated)| (violated, History { bug: Some(bug), ..scenario.clone() }))
    .collect()
}

impl History {
    /// Two transactions on one key, no faults, one round.
    fn plain() -> Self {
        Self {
            name: "",
            transactions: 2,
            keys: 1,
            slow: false,
            deletions: false,
            early: false,
            asynchronous: false,
            ticks: 3,
            steps: 0,
            crashes: 0,
            cuts: 0,
            epochs: 0,
            marks: 0,
            rounds: 0,
            since: false,
            bug: None,
            reached: &[],
            coverage: Coverage::default(),
        }
    }
}
