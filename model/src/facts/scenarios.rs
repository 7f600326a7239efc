//! The scenarios: which facts fail, and what else happens.

use super::{Facts, NEVER_DROPPED_IN_VAIN, NEVER_INCOMPLETE, Reached};
use crate::{Bug, Coverage};

/// All of them. None is violated without a mistake.
pub fn all() -> Vec<Facts> {
    vec![
        Facts {
            name: "the triggers do not fire for a while",
            length: 4,
            disabled: 2,
            cuts: 1,
            purges: 1,
            reached: &[
                Reached::Untold,
                Reached::ResetAll,
                Reached::ResetSince,
                Reached::RefusedReset,
                Reached::RefusedAfterPages,
                Reached::SecondRound,
                Reached::LiveBeforeUntold,
            ],
            ..Facts::plain()
        },
        Facts {
            name: "the triggers do not fire, and we are killed",
            disabled: 1,
            kills: 2,
            purges: 1,
            reached: &[Reached::EndedBeforeEpoch, Reached::ResetAll, Reached::ResetSince],
            ..Facts::plain()
        },
        Facts {
            name: "rows are hidden for a while",
            hidden: 2,
            cuts: 1,
            purges: 1,
            reached: &[Reached::RefusedAfterPages, Reached::RefusedReset, Reached::SecondRound],
            ..Facts::plain()
        },
        Facts {
            name: "rows are hidden, and the triggers do not fire",
            disabled: 1,
            hidden: 1,
            kills: 1,
            cuts: 1,
            purges: 1,
            reached: &[Reached::Untold, Reached::RefusedAfterPages, Reached::EndedBeforeEpoch],
            ..Facts::plain()
        },
    ]
}

/// Each mistake, in a scenario that has what the mistake needs; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, Facts)> {
    let disabled = Facts { disabled: 1, ..Facts::plain() };
    let killed = Facts { kills: 1, ..disabled.clone() };
    let hidden = Facts { hidden: 1, ..Facts::plain() };
    let purged = Facts { cuts: 1, purges: 1, ..hidden.clone() };
    [
        (Bug::UntoldIsPassedOver, &disabled, NEVER_INCOMPLETE),
        (Bug::AnsweredBefore, &disabled, NEVER_INCOMPLETE),
        (Bug::UntoldIsNoFork, &disabled, NEVER_INCOMPLETE),
        (Bug::UntoldIsAcknowledged, &killed, NEVER_INCOMPLETE),
        (Bug::ForkIsNotNoted, &killed, NEVER_INCOMPLETE),
        (Bug::NoLookAfterPages, &hidden, NEVER_INCOMPLETE),
        (Bug::LookBeforePages, &hidden, NEVER_INCOMPLETE),
        (Bug::PolicyIsNoError, &hidden, NEVER_INCOMPLETE),
        (Bug::ResetWithoutLook, &purged, NEVER_DROPPED_IN_VAIN),
    ]
    .into_iter()
    .map(|(bug, scenario, violated)| (violated, Facts { bug: Some(bug), ..scenario.clone() }))
    .collect()
}

impl Facts {
    /// Nothing fails.
    fn plain() -> Self {
        Self {
            name: "",
            length: 3,
            disabled: 0,
            hidden: 0,
            kills: 0,
            cuts: 0,
            purges: 0,
            bug: None,
            reached: &[],
            coverage: Coverage::default(),
        }
    }
}
