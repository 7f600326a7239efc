//! The scenarios: a handful of rows, some that the filter wants, and every fault once.

use super::log::Script;
use super::properties::{NEVER_ACKNOWLEDGED_AHEAD, NEVER_LOST, NEVER_RESET_NEEDLESSLY, NEVER_TWICE};
use super::{Delivery, Reached};
use crate::{Bug, Coverage};

/// A wanted row alone; a transaction of two; one that nobody wants.
const THREE: Script = &[&[true], &[false, true], &[false]];
const TWO: Script = &[&[true], &[false, true]];
/// What nobody wants at the end.
const TAIL: Script = &[&[true], &[false], &[false]];

/// All of them. None is violated without a mistake.
pub fn all() -> Vec<Delivery> {
    vec![
        Delivery {
            name: "a subscriber is cut off, and retention drops",
            cuts: 2,
            purges: 1,
            reached: &[
                Reached::LiveDelivery,
                Reached::BackFromJournal,
                Reached::WaitedForDisk,
                Reached::KeepaliveAhead,
                Reached::PositionTold,
                Reached::RightlyReset,
            ],
            ..Delivery::plain(THREE)
        },
        Delivery {
            name: "we are killed, and the database restarts",
            kills: 1,
            disconnects: 1,
            reached: &[
                Reached::IdAhead,
                Reached::CameAgain,
                Reached::CutWithinTransaction,
                Reached::ChunkDropped,
                Reached::BackFromJournal,
            ],
            ..Delivery::plain(TWO)
        },
        Delivery {
            name: "the journal fails, and the database restarts",
            failures: 1,
            disconnects: 1,
            reached: &[Reached::JournalCaughtUp, Reached::CameAgain, Reached::WaitedForDisk],
            ..Delivery::plain(TWO)
        },
        Delivery {
            name: "we are killed, the journal fails, a client is cut off",
            kills: 1,
            cuts: 1,
            failures: 1,
            reached: &[
                Reached::IdAhead,
                Reached::JournalCaughtUp,
                Reached::ChunkDropped,
                Reached::PositionTold,
            ],
            ..Delivery::plain(TWO)
        },
    ]
}

/// Each mistake, in a scenario that has what the mistake needs; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, Delivery)> {
    let plain = Delivery::plain(THREE);
    let kill = Delivery { kills: 1, ..Delivery::plain(THREE) };
    let retention = Delivery { cuts: 1, purges: 1, ..Delivery::plain(TAIL) };
    let fail = Delivery { failures: 1, ..Delivery::plain(THREE) };
    [
        (Bug::AcknowledgeKeepaliveAtOnce, &kill, NEVER_ACKNOWLEDGED_AHEAD),
        (Bug::AcknowledgeReceived, &kill, NEVER_ACKNOWLEDGED_AHEAD),
        (Bug::JoinAfterReadingHead, &plain, NEVER_LOST),
        (Bug::JoinWithoutWaitingForDisk, &plain, NEVER_LOST),
        (Bug::PositionIsLastMatch, &retention, NEVER_RESET_NEEDLESSLY),
        (Bug::PositionWithFullChannel, &plain, NEVER_LOST),
        (Bug::ChunkAsItComes, &kill, NEVER_TWICE),
        (Bug::JournalGoesOnFromHub, &fail, NEVER_ACKNOWLEDGED_AHEAD),
    ]
    .into_iter()
    .map(|(bug, scenario, violated)| (violated, Delivery { bug: Some(bug), ..scenario.clone() }))
    .collect()
}

impl Delivery {
    /// No faults.
    fn plain(script: Script) -> Self {
        Self {
            name: "",
            script,
            kills: 0,
            disconnects: 0,
            cuts: 0,
            failures: 0,
            purges: 0,
            bug: None,
            reached: &[],
            coverage: Coverage::default(),
        }
    }
}
