//! The scenarios: what is restored, and what else happens.

use super::{NEVER_A_LOST_HISTORY, NEVER_RESET_NEEDLESSLY, Reached, Restore, Restored};
use crate::{Bug, Coverage};

/// All of them. None is violated without a mistake.
pub fn all() -> Vec<Restore> {
    vec![
        Restore {
            name: "both are restored, and retention drops",
            purges: 1,
            reached: &[
                Reached::ContinuedAfterRestore,
                Reached::OtherTransaction,
                Reached::OtherTransactionLater,
                Reached::UnprovenReset,
                Reached::ProvenReset,
            ],
            ..Restore::of(Restored::Both)
        },
        Restore {
            name: "both are restored after a restart",
            kills: 1,
            reached: &[Reached::UnknownRun, Reached::ContinuedAfterRestore, Reached::CameAgain],
            ..Restore::of(Restored::Both)
        },
        Restore {
            name: "both are restored, and the epoch ends",
            alterations: 1,
            reached: &[Reached::ProvenReset, Reached::UnprovenReset],
            ..Restore::of(Restored::Both)
        },
        Restore {
            name: "both are restored while pages are read",
            pages: true,
            full: true,
            kills: 1,
            reached: &[Reached::ResumedPages, Reached::UnprovenReset],
            ..Restore::of(Restored::Both)
        },
        Restore {
            name: "the database is restored",
            reached: &[Reached::ForkSeen, Reached::OtherTransaction, Reached::OtherTransactionLater],
            ..Restore::of(Restored::Database)
        },
        Restore {
            name: "the journal is restored",
            kills: 1,
            reached: &[Reached::UnknownRun, Reached::ProvenReset, Reached::CameAgain],
            ..Restore::of(Restored::Journal)
        },
        Restore {
            name: "nothing is restored",
            restored: None,
            kills: 1,
            purges: 1,
            alterations: 1,
            reached: &[Reached::CameAgain, Reached::ProvenReset],
            ..Restore::of(Restored::Both)
        },
        Restore {
            name: "nothing is restored, and pages are read",
            restored: None,
            kills: 2,
            pages: true,
            full: true,
            reached: &[Reached::CameAgain, Reached::ResumedPages],
            ..Restore::of(Restored::Both)
        },
    ]
}

/// Each mistake, in a scenario that has what the mistake needs; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, Restore)> {
    let both = Restore::of(Restored::Both);
    let purged = Restore { purges: 1, ..both.clone() };
    let pages = Restore { pages: true, ..both.clone() };
    let killed = Restore { restored: None, kills: 2, full: true, ..pages.clone() };
    [
        (Bug::IdWithoutTransaction, &both, NEVER_A_LOST_HISTORY),
        (Bug::IdAheadIsNotCompared, &both, NEVER_A_LOST_HISTORY),
        (Bug::ResetWithoutProof, &purged, NEVER_A_LOST_HISTORY),
        (Bug::RunSurvivesRestart, &purged, NEVER_A_LOST_HISTORY),
        (Bug::WatermarkIsNotProven, &pages, NEVER_A_LOST_HISTORY),
        (Bug::PageBeforeWatermarkIsNoted, &killed, NEVER_RESET_NEEDLESSLY),
        (Bug::IdBeforeRunIsNoted, &killed, NEVER_RESET_NEEDLESSLY),
    ]
    .into_iter()
    .map(|(bug, scenario, violated)| (violated, Restore { bug: Some(bug), ..scenario.clone() }))
    .collect()
}

impl Restore {
    /// Nothing but one restore.
    fn of(restored: Restored) -> Self {
        Self {
            name: "",
            length: 3,
            restored: Some(restored),
            kills: 0,
            purges: 0,
            alterations: 0,
            pages: false,
            full: false,
            bug: None,
            reached: &[],
            coverage: Coverage::default(),
        }
    }
}
