//! What a client may rely on.

use super::{Facts, Reached, Server, State};
use stateright::Property;

/// A client that follows a feed which has passed everything has what the database has.
pub const NEVER_INCOMPLETE: &str = "never incomplete";
/// No client is told to drop what it has while a fact fails.
pub const NEVER_DROPPED_IN_VAIN: &str = "never dropped in vain";

pub(super) fn all(facts: &Facts) -> Vec<Property<Facts>> {
    let always = [
        Property::always(NEVER_INCOMPLETE, |_: &Facts, state: &State| is_complete(state)),
        Property::always(NEVER_DROPPED_IN_VAIN, |_, state: &State| !state.client.in_vain),
    ];
    always.into_iter().chain(facts.reached.iter().map(|reached| reached.property())).collect()
}

fn is_complete(state: &State) -> bool {
    let end = state.database.end();
    let all_received =
        state.service.as_ref().is_some_and(|service| service.connected && service.received == end);
    let follows = state.client.server == Server::Following;
    let all_heard = state.client.id.is_some_and(|id| id.position == end);
    !all_received || !follows || !all_heard || state.client.has == state.database.row()
}

impl Reached {
    fn property(self) -> Property<Facts> {
        /// One function for each: a property's condition captures nothing.
        macro_rules! sometimes {
            ($($reached:ident => $name:literal,)*) => {
                match self {
                    $(Self::$reached => Property::sometimes($name, |facts: &Facts, _| {
                        facts.coverage.has(Self::$reached as u32)
                    }),)*
                }
            };
        }
        sometimes! {
            Untold => "an untold deletion came in",
            ResetAll => "a client was told to drop what it has",
            ResetSince => "a client was reset from its safe time",
            RefusedAfterPages => "a replay was refused after its last page",
            RefusedReset => "a reset was refused before it was told",
            SecondRound => "a replay had a second round",
            EndedBeforeEpoch => "the process ended between a new slot and its epoch",
            LiveBeforeUntold => "an untold deletion came in after a client had passed it",
        }
    }
}
