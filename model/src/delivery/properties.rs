//! What client and database may rely on.

use super::subscriber::Server;
use super::{Delivery, Reached, State, rows_before, wanted_up_to};
use stateright::{Model, Property};

/// Up to the id that it has, a client heard everything that it wants.
pub const NEVER_LOST: &str = "never lost";
/// Nothing is heard again, nor out of order.
pub const NEVER_TWICE: &str = "never twice";
/// What is acknowledged is on our disk, and our disk knows that it is.
pub const NEVER_ACKNOWLEDGED_AHEAD: &str = "never acknowledged ahead of the disk";
/// Nobody is reset whose next event is kept.
pub const NEVER_RESET_NEEDLESSLY: &str = "never reset needlessly";
/// One history is never taken for another.
pub const NEVER_A_FALSE_FORK: &str = "never a false fork";
/// When nothing is left to happen, everything has arrived and was acknowledged.
pub const NEVER_STUCK: &str = "never stuck";

pub(super) fn all(delivery: &Delivery) -> Vec<Property<Delivery>> {
    let always = [
        Property::always(NEVER_LOST, |delivery: &Delivery, state: &State| {
            let wanted = wanted_up_to(delivery.script, state.subscriber.id);
            state.subscriber.heard & wanted == wanted
        }),
        Property::always(NEVER_TWICE, |_, state: &State| !state.subscriber.twice),
        Property::always(NEVER_ACKNOWLEDGED_AHEAD, |delivery: &Delivery, state: &State| {
            let rows = rows_before(delivery.script, state.confirmed.max(state.disk.lsn));
            state.confirmed <= state.disk.lsn && state.disk.rows & rows == rows
        }),
        Property::always(NEVER_RESET_NEEDLESSLY, |_, state: &State| !state.subscriber.needless),
        Property::always(NEVER_A_FALSE_FORK, |_, state: &State| !state.forked),
        Property::always(NEVER_STUCK, is_not_stuck),
    ];
    always.into_iter().chain(delivery.reached.iter().map(|reached| reached.property())).collect()
}

fn is_not_stuck(delivery: &Delivery, state: &State) -> bool {
    let mut steps = Vec::new();
    delivery.actions(state, &mut steps);
    // Faults are steps too: this looks at states in which none is left.
    if !steps.is_empty() {
        return true;
    }
    let end = state.committed;
    let wanted = wanted_up_to(delivery.script, u8::MAX);
    let has_all = state.subscriber.heard == wanted || state.subscriber.server == Server::Reset;
    has_all && state.confirmed == end && state.disk.rows == rows_before(delivery.script, end)
}

impl Reached {
    fn property(self) -> Property<Delivery> {
        /// One function for each: a property's condition captures nothing.
        macro_rules! sometimes {
            ($($reached:ident => $name:literal,)*) => {
                match self {
                    $(Self::$reached => Property::sometimes($name, |delivery: &Delivery, _| {
                        delivery.coverage.has(Self::$reached as u32)
                    }),)*
                }
            };
        }
        sometimes! {
            LiveDelivery => "a live delivery",
            BackFromJournal => "a laggard came back from the journal",
            WaitedForDisk => "the joining point was not on disk yet",
            IdAhead => "an id ahead of the feed",
            CameAgain => "a transaction came again",
            CutWithinTransaction => "a transaction was cut off",
            KeepaliveAhead => "a keepalive ahead of the disk",
            JournalCaughtUp => "the journal caught up with the hub",
            PositionTold => "a position told without an event",
            RightlyReset => "a reset behind retention",
            ChunkDropped => "a chunk dropped that was passed",
        }
    }
}
