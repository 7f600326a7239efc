//! What a client of a Group may rely on.

use super::{Membership, Reached, State, Violation, subscriber};
use stateright::Property;

/// A client that has read all that there is holds the newest version of what belongs to the members, and nothing else.
pub const EXACT_AT_REST: &str = "at rest the client holds what its members have";
/// No version is sent again, unless the resource was removed in between.
pub const NEVER_TWICE: &str = "no version comes twice";
/// No version is sent after a later one.
pub const NEVER_BACKWARDS: &str = "no version comes after a later one";
/// Nothing is sent of a patient who is not a member at the stream's position.
pub const MEMBERS_ONLY: &str = "only members' content comes";

pub(super) fn all(membership: &Membership) -> Vec<Property<Membership>> {
    let always = [
        Property::always(EXACT_AT_REST, |model: &Membership, state: &State| {
            let members = model.true_members(&state.world, state.world.log.len());
            !state.is_told()
                || state.client.holds == subscriber::expected(&state.world, model.matching, members)
        }),
        Property::always(NEVER_TWICE, |_, state: &State| state.client.violation != Some(Violation::Twice)),
        Property::always(NEVER_BACKWARDS, |_, state: &State| {
            state.client.violation != Some(Violation::Backwards)
        }),
        Property::always(MEMBERS_ONLY, |_, state: &State| {
            state.client.violation != Some(Violation::NotAMember)
        }),
    ];
    always.into_iter().chain(membership.reached.iter().map(|reached| reached.property())).collect()
}

impl Reached {
    fn property(self) -> Property<Membership> {
        /// One function for each: a property's condition captures nothing.
        macro_rules! sometimes {
            ($($reached:ident => $name:literal,)*) => {
                match self {
                    $(Self::$reached => Property::sometimes($name, |model: &Membership, _| {
                        model.coverage.has(Self::$reached as u32)
                    }),)*
                }
            };
        }
        sometimes! {
            HandedOver => "pages of patients who stay the same handed over",
            Joined => "a joiner's resources came into an open stream",
            LeaverRemoved => "a leaver's resource was removed",
            RecentSent => "a transition sent an entry of the feed",
            Faded => "a transition faded",
            LiveSent => "a change was sent live",
            LeftScope => "a resource left by its own change",
            Reset => "a client was reset",
            PagingResumed => "a transition was resumed",
            MovingResumed => "resumed with the members of an earlier position",
            DecodedUnseen => "the feed had a commit that nobody could see",
            LeftFilter => "a resource left the filter and stayed a member's",
            CameBackSince => "a client came back with `_since`",
            Shared => "a shared transition was passed on to its end",
            JoinedLate => "a shared transition was joined late",
            WentOnAlone => "a shared transition was left in the middle",
            Finished => "everything was written and told",
        }
    }
}
