//! The scenarios: each has few transactions and few faults, and is visited in every order.

use super::properties::{NEVER_BACKWARDS, NEVER_LOST, NEVER_TWICE, NEVER_UNDONE};
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
                Reached::SafeTimeHeld,
                Reached::LiveDelivery,
            ],
            ..History::plain()
        },
        History {
            name: "a quiet stream is told the time; _since",
            ticks: 2,
            since: true,
            watermarks: 1,
            cuts: 1,
            reached: &[Reached::TimeTold, Reached::CommitNotVisible, Reached::LiveDelivery],
            ..History::plain()
        },
        History {
            name: "cuts: 2 keys",
            keys: 2,
            ticks: 2,
            cuts: 1,
            reached: &[Reached::RoundResumed, Reached::CutoverResumed, Reached::CommitNotVisible],
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
                Reached::WatermarkWaitedForDisk,
                Reached::VisibleCommitLost,
                Reached::PlaceUsedAgain,
                Reached::RoundResumed,
            ],
            ..History::plain()
        },
        History {
            name: "the clock steps: rounds",
            steps: 1,
            far: 3,
            rounds: 1,
            reached: &[
                Reached::ClockStepped,
                Reached::StampAfterClock,
                Reached::SecondRound,
                Reached::CommitNotVisible,
            ],
            ..History::plain()
        },
        History {
            name: "the clock steps twice: deletions, cuts, _since",
            ticks: 2,
            steps: 2,
            far: 1,
            deletions: true,
            since: true,
            cuts: 1,
            reached: &[
                Reached::StampAfterClock,
                Reached::RoundResumed,
                Reached::CutoverResumed,
                Reached::TombstoneSent,
                Reached::CommitNotVisible,
            ],
            ..History::plain()
        },
        History {
            name: "the clock steps: slow writers, _since, lazy watermarks",
            ticks: 2,
            steps: 1,
            far: 2,
            slow: true,
            since: true,
            lazy: true,
            cuts: 1,
            reached: &[Reached::StampAfterClock, Reached::CommitNotVisible, Reached::SafeTimeHeld],
            ..History::plain()
        },
        History {
            name: "the clock steps while the journal is lost",
            ticks: 2,
            steps: 1,
            far: 2,
            since: true,
            epochs: 1,
            reached: &[Reached::StampAfterClock, Reached::ResetThenLive, Reached::CommitNotVisible],
            ..History::plain()
        },
        History {
            name: "the clock steps and the power fails",
            ticks: 2,
            steps: 1,
            far: 2,
            asynchronous: true,
            crashes: 1,
            watermarks: 1,
            reached: &[Reached::StampAfterClock, Reached::VisibleCommitLost, Reached::PagesThenLive],
            ..History::plain()
        },
        History {
            name: "only what is committed from now on",
            ticks: 2,
            ahead: true,
            cuts: 1,
            reached: &[Reached::LiveDelivery, Reached::EntryDropped, Reached::CutoverResumed],
            ..History::plain()
        },
        History {
            name: "the journal is lost: a new slot, and a reset",
            ticks: 2,
            epochs: 1,
            watermarks: 1,
            reached: &[Reached::ResetThenLive, Reached::LiveDelivery],
            ..History::plain()
        },
    ]
}

/// Each mistake, in a scenario that is small enough and has what the mistake needs; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, History)> {
    let slow = History { slow: true, rounds: 1, ..History::plain() };
    let crash = History { asynchronous: true, crashes: 1, ticks: 2, ..History::plain() };
    let steps = History { ticks: 2, steps: 1, far: 2, watermarks: 1, ..History::plain() };
    let steps_and_crash = History { crashes: 1, ..steps.clone() };
    let steps_and_reset = History { epochs: 1, ..steps.clone() };
    let ahead = History { ahead: true, ..History::plain() };
    let reset = History { ticks: 2, epochs: 1, watermarks: 1, ..History::plain() };
    let since = History { ticks: 2, since: true, watermarks: 1, cuts: 1, ..History::plain() };
    let early = History { transactions: 3, ticks: 1, deletions: true, early: true, ..History::plain() };
    let cut = History { deletions: true, cuts: 1, ..History::plain() };
    [
        (Bug::StampIgnoresClosedTime, &steps, NEVER_LOST),
        (Bug::WritersBeforeClosing, &slow, NEVER_LOST),
        (Bug::ClosedIsSafe, &slow, NEVER_LOST),
        (Bug::ClosedTimeIsForgotten, &steps_and_crash, NEVER_TWICE),
        (Bug::JournalBeginsAtClock, &steps_and_reset, NEVER_LOST),
        (Bug::StampBeforeTransactionId, &slow, NEVER_LOST),
        (Bug::StampBeforeLock, &slow, NEVER_BACKWARDS),
        (Bug::DeletedBehindStamp, &early, NEVER_BACKWARDS),
        (Bug::NothingWaitsForDisk, &crash, NEVER_UNDONE),
        (Bug::PageBeforeLogIsOnDisk, &crash, NEVER_LOST),
        (Bug::ResumeWithNewWatermark, &cut, NEVER_LOST),
        (Bug::CommitAtFenceIsBefore, &ahead, NEVER_LOST),
        (Bug::ReplayBeforeJournalBegins, &reset, NEVER_LOST),
        (Bug::IdHasNewestSafeTime, &reset, NEVER_LOST),
        (Bug::PositionHasNewestSafeTime, &since, NEVER_LOST),
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
            far: 0,
            crashes: 0,
            cuts: 0,
            epochs: 0,
            watermarks: 0,
            rounds: 0,
            lazy: false,
            since: false,
            ahead: false,
            bug: None,
            reached: &[],
            coverage: Coverage::default(),
        }
    }
}
