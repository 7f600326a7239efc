//! The scenarios: each has few writes and few faults, and is visited in every order.

use super::properties::{EXACT_AT_REST, MEMBERS_ONLY, NEVER_TWICE};
use super::{Membership, Patients, RESOURCES, Reached, Write};
use crate::{Bug, Coverage};

const ANN: Patients = 1;
const BOB: Patients = 2;
/// What a filter asks for, besides.
const FINAL: Patients = 4;
/// The Group that is asked for.
const GROUP: usize = RESOURCES;
/// One that is nested in it.
const NESTED: usize = RESOURCES + 1;

const fn write(key: usize, patients: Patients) -> Write {
    Write { key, content: Some(patients) }
}

const fn delete(key: usize) -> Write {
    Write { key, content: None }
}

/// All of them. None is violated without a mistake.
pub fn all() -> Vec<Membership> {
    vec![
        Membership {
            name: "a patient's own stream; the journal drops entries",
            cuts: 1,
            purges: 1,
            reached: &[Reached::HandedOver, Reached::LeftScope, Reached::LiveSent, Reached::DecodedUnseen],
            ..one_patient()
        },
        Membership {
            name: "one joins, resources change hands",
            cuts: 1,
            reached: &[Reached::Joined, Reached::RecentSent, Reached::LiveSent, Reached::LeftScope],
            ..joins()
        },
        Membership {
            name: "one leaves, resources change",
            cuts: 1,
            reached: &[Reached::LeaverRemoved, Reached::Faded, Reached::MovingResumed],
            ..leaves()
        },
        Membership {
            name: "one leaves and joins again",
            cuts: 1,
            reached: &[Reached::Joined, Reached::Faded, Reached::PagingResumed],
            ..leaves_and_joins()
        },
        Membership {
            name: "one joins as another leaves; a deletion",
            first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
            writes: vec![write(GROUP, BOB), write(1, ANN | BOB), delete(0)],
            cuts: 1,
            reached: &[Reached::Joined, Reached::LeaverRemoved, Reached::DecodedUnseen],
            ..plain()
        },
        Membership {
            name: "a nested Group; the journal drops entries",
            first: [Some(ANN), Some(BOB), Some(BOB), Some(ANN)],
            writes: vec![write(NESTED, 0), write(GROUP, ANN)],
            cuts: 1,
            purges: 1,
            samples: 1,
            reached: &[Reached::Joined, Reached::Reset, Reached::LeaverRemoved],
            ..plain()
        },
        Membership {
            name: "a filter that resources leave and come to",
            cuts: 1,
            purges: 1,
            reached: &[Reached::HandedOver, Reached::LeftFilter, Reached::LiveSent, Reached::Reset],
            ..filtered()
        },
        Membership {
            name: "a filter, and one joins",
            cuts: 1,
            reached: &[Reached::Joined, Reached::LeftFilter, Reached::RecentSent, Reached::PagingResumed],
            ..joins_filtered()
        },
        Membership {
            name: "a filter, and one leaves",
            matching: FINAL,
            first: [Some(ANN | FINAL), Some(ANN | BOB), Some(ANN | BOB), Some(0)],
            writes: vec![write(GROUP, BOB), write(0, ANN), write(1, ANN | BOB | FINAL)],
            cuts: 1,
            reached: &[Reached::LeaverRemoved, Reached::LeftFilter, Reached::Faded],
            ..plain()
        },
        Membership {
            name: "one joins while a client with `_since` is away",
            purges: 1,
            reached: &[Reached::CameBackSince, Reached::Joined, Reached::LiveSent, Reached::Reset],
            ..since()
        },
        Membership {
            name: "one comes and goes, with `_since`",
            reached: &[Reached::CameBackSince, Reached::LeaverRemoved, Reached::MovingResumed],
            cuts: 2,
            ..came_and_went()
        },
        Membership {
            name: "a shared transition: one leaves",
            limits: 1,
            reached: SHARED,
            ..shared(leaves())
        },
        Membership {
            name: "a shared transition: one leaves and joins again",
            limits: 1,
            cuts: 1,
            reached: SHARED,
            ..shared(leaves_and_joins())
        },
        Membership {
            name: "a shared transition: one joins; entries are dropped",
            limits: 1,
            purges: 1,
            reached: &[Reached::Shared, Reached::JoinedLate, Reached::WentOnAlone, Reached::Reset],
            writes: vec![write(GROUP, ANN | BOB), write(1, ANN)],
            ..shared(joins())
        },
    ]
    .into_iter()
    .map(|mut scenario| {
        scenario.coverage = Coverage::default();
        scenario
    })
    .collect()
}

/// Each mistake, in a scenario that is small enough; with the property that it violates.
pub fn mistakes() -> Vec<(&'static str, Membership)> {
    let purged = Membership {
        first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(0, ANN), write(GROUP, BOB), write(GROUP, ANN)],
        purges: 1,
        cuts: 1,
        ..plain()
    };
    let exchange = Membership {
        first: [Some(ANN | BOB), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(GROUP, ANN | BOB), write(0, BOB), write(1, BOB)],
        cuts: 1,
        ..plain()
    };
    [
        (Bug::LaterRoundInScope, one_patient(), EXACT_AT_REST),
        (Bug::NoBeforeImage, joins(), EXACT_AT_REST),
        (Bug::MembersFromTable, leaves(), MEMBERS_ONLY),
        (Bug::GroupWithoutBeforeImage, purged, MEMBERS_ONLY),
        (Bug::RowBehindDroppedChange, Membership { purges: 1, ..joins() }, EXACT_AT_REST),
        (Bug::MembersAtBothEndsOnly, leaves_and_joins(), EXACT_AT_REST),
        (Bug::SilencedLate, leaves(), MEMBERS_ONLY),
        (Bug::LeaversDeletionsSilenced, leaves_and_deletes(), EXACT_AT_REST),
        (Bug::JoinAtOnce, joins(), NEVER_TWICE),
        (Bug::NothingRecent, joins(), EXACT_AT_REST),
        (Bug::LeaversByTableAlone, leaves(), EXACT_AT_REST),
        (Bug::StayersAgain, exchange, NEVER_TWICE),
        (Bug::RowsAndRecent, joins(), EXACT_AT_REST),
        (Bug::NoFading, leaves(), EXACT_AT_REST),
        (Bug::FadingFromBefore, leaves(), EXACT_AT_REST),
        (Bug::PagingForgetsFrom, Membership { cuts: 1, ..leaves() }, EXACT_AT_REST),
        (Bug::MovingForgetsFrom, Membership { cuts: 1, ..leaves() }, EXACT_AT_REST),
        (Bug::NoBeforeImage, filtered(), EXACT_AT_REST),
        (Bug::LeavesFilterSilently, filtered(), EXACT_AT_REST),
        (Bug::LeavesFilterSilently, joins_filtered(), EXACT_AT_REST),
        (Bug::JoinersUnfiltered, joins_filtered(), EXACT_AT_REST),
        (Bug::SinceIgnoresGroups, since(), EXACT_AT_REST),
        (Bug::SinceBeforeJournal, Membership { purges: 1, ..since() }, EXACT_AT_REST),
        (Bug::CameAndWentIsKept, came_and_went(), EXACT_AT_REST),
        (Bug::GoesOnFromTransition, Membership { limits: 1, ..shared(joins()) }, EXACT_AT_REST),
        (Bug::LateJoinerStartsAtNewest, shared(joins()), EXACT_AT_REST),
        (Bug::SharedByFilterAlone, Membership { cuts: 0, since: 0, ..shared(came_and_went()) }, NEVER_TWICE),
        (Bug::PassesOnWithoutIds, Membership { limits: 1, ..shared(joins()) }, NEVER_TWICE),
    ]
    .into_iter()
    .map(|(bug, scenario, violated)| (violated, Membership { bug: Some(bug), ..scenario }))
    .collect()
}

/// Ann's resources: one becomes Bob's, one comes from him, and one is deleted.
fn one_patient() -> Membership {
    Membership {
        patients: Some(ANN),
        first: [Some(ANN), Some(BOB), Some(0), Some(0)],
        writes: vec![write(0, BOB), write(1, ANN), delete(1)],
        ..plain()
    }
}

/// Bob joins Ann; his resource may become hers, and hers his.
fn joins() -> Membership {
    Membership {
        first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(GROUP, ANN | BOB), write(1, ANN), write(0, BOB)],
        ..plain()
    }
}

/// Ann leaves Bob; her resource changes, and what they share becomes hers alone.
fn leaves() -> Membership {
    Membership {
        first: [Some(ANN), Some(ANN | BOB), Some(ANN | BOB), Some(0)],
        writes: vec![write(GROUP, BOB), write(0, ANN), write(1, ANN)],
        ..plain()
    }
}

/// Ann leaves Bob; her resource changes and is deleted.
fn leaves_and_deletes() -> Membership {
    Membership { writes: vec![write(GROUP, BOB), write(0, ANN), delete(0)], ..leaves() }
}

/// Ann leaves and joins again, and her resource changes.
fn leaves_and_joins() -> Membership {
    Membership {
        first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(GROUP, 0), write(GROUP, ANN), write(0, ANN)],
        ..plain()
    }
}

/// Ann's resources, of which those that are final are asked for: they come to be it, and cease.
fn filtered() -> Membership {
    Membership {
        patients: Some(ANN),
        matching: FINAL,
        first: [Some(ANN | FINAL), Some(ANN), Some(0), Some(0)],
        writes: vec![write(0, ANN), write(1, ANN | FINAL), write(0, ANN | FINAL)],
        ..plain()
    }
}

/// Bob joins Ann, and has what is final and what is not.
fn joins_filtered() -> Membership {
    Membership {
        matching: FINAL,
        first: [Some(ANN | FINAL), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(GROUP, ANN | BOB), write(1, BOB | FINAL), write(0, ANN)],
        ..plain()
    }
}

/// Bob joins Ann, whose resource changes, while a client is away that knows an instant.
fn since() -> Membership {
    Membership {
        first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(GROUP, ANN | BOB), write(0, ANN), write(1, ANN)],
        cuts: 1,
        since: 1,
        ..plain()
    }
}

/// Bob joins Ann and leaves, and a client that has what was his knows an instant from before that.
fn came_and_went() -> Membership {
    Membership {
        first: [Some(ANN), Some(BOB), Some(ANN), Some(0)],
        writes: vec![write(0, ANN), write(GROUP, ANN | BOB), write(GROUP, ANN)],
        cuts: 1,
        since: 1,
        ..plain()
    }
}

/// What a shared transition is about.
const SHARED: &[Reached] = &[Reached::Shared, Reached::JoinedLate, Reached::WentOnAlone];

/// The same for one of several who stand where the members change.
fn shared(alone: Membership) -> Membership {
    Membership { shared: true, ..alone }
}

/// Nobody, nothing, and no faults.
fn plain() -> Membership {
    Membership {
        name: "",
        patients: None,
        matching: 0,
        first: [None, None, Some(0), Some(0)],
        writes: vec![],
        cuts: 0,
        since: 0,
        purges: 0,
        samples: 0,
        shared: false,
        limits: 0,
        bug: None,
        reached: &[],
        coverage: Coverage::default(),
    }
}
