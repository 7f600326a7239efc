//! What a client may rely on.

use super::client::concerning;
use super::{Reached, Restore, Server, State};
use stateright::Property;

/// A client that follows has what the database has, and nothing of a history that was lost.
pub const NEVER_A_LOST_HISTORY: &str = "an id of a lost history is never continued silently";
/// What could be continued exactly is.
pub const NEVER_RESET_NEEDLESSLY: &str = "never reset needlessly";

pub(super) fn all(restore: &Restore) -> Vec<Property<Restore>> {
    let always = [
        Property::always(NEVER_A_LOST_HISTORY, |_: &Restore, state: &State| has_what_there_is(state)),
        Property::always(NEVER_RESET_NEEDLESSLY, |_, state: &State| !state.client.needless),
    ];
    always.into_iter().chain(restore.reached.iter().map(|reached| reached.property())).collect()
}

fn has_what_there_is(state: &State) -> bool {
    let Some(service) = state.service.as_ref().filter(|service| service.connected) else { return true };
    if state.client.server != Server::Following {
        return true;
    }
    let watermark = state.client.id.and_then(|id| id.stage.watermark()).unwrap_or(0);
    let passed = service.received.len().max(usize::from(watermark));
    state.client.has == concerning(&state.database.log, passed)
}

impl Reached {
    fn property(self) -> Property<Restore> {
        /// One function for each: a property's condition captures nothing.
        macro_rules! sometimes {
            ($($reached:ident => $name:literal,)*) => {
                match self {
                    $(Self::$reached => Property::sometimes($name, |restore: &Restore, _| {
                        restore.coverage.has(Self::$reached as u32)
                    }),)*
                }
            };
        }
        sometimes! {
            ContinuedAfterRestore => "a client continued after a restore",
            OtherTransaction => "another transaction at the id's position",
            OtherTransactionLater => "another transaction at the position of an id ahead",
            UnknownRun => "an id of an unknown run",
            CameAgain => "what a crash had lost came again",
            ProvenReset => "a reset from the safe time",
            UnprovenReset => "a reset of everything, for want of a proof",
            ResumedPages => "pages resumed by another run",
            ForkSeen => "a fork that the service saw by itself",
        }
    }
}
