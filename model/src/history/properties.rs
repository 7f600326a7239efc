//! What a subscriber may rely on.

use super::database::Transaction;
use super::subscriber::{KEYS, Server};
use super::{History, Reached, State};
use stateright::Property;

/// Who is live and has read all that there is, has the newest of everything.
pub const NEVER_LOST: &str = "never lost";
/// Who comes back with an id hears nothing again.
pub const NEVER_TWICE: &str = "never twice";
/// No version after a newer one.
pub const NEVER_BACKWARDS: &str = "never backwards";
/// Nothing that a crash undid.
pub const NEVER_UNDONE: &str = "never what a crash undid";

pub(super) fn all(history: &History) -> Vec<Property<History>> {
    let always = [
        Property::always(NEVER_LOST, |_, state: &State| is_complete(state)),
        Property::always(NEVER_TWICE, |_, state: &State| !state.subscriber.twice),
        Property::always(NEVER_BACKWARDS, |_, state: &State| !state.subscriber.backwards),
        Property::always(NEVER_UNDONE, nothing_undone),
    ];
    always.into_iter().chain(history.reached.iter().map(|reached| reached.property())).collect()
}

/// Nothing is on its way any more, neither in the database nor to the subscriber, and so it has everything.
fn is_complete(state: &State) -> bool {
    let Server::Follows { standing, live: true } = state.subscriber.server else { return true };
    let database = &state.database;
    let at_rest = standing.position == database.insert
        && state.feed.begins.is_some()
        && standing.epoch == state.feed.epoch
        && database.transactions.iter().all(|transaction| !transaction.is_open());
    if !at_rest {
        return true;
    }
    (0..KEYS).all(|key| {
        let has = state.subscriber.has[key].map(usize::from);
        // There are two.
        #[allow(clippy::cast_possible_truncation)]
        match database.visible(key as u8) {
            None => has.is_none(),
            // It asked for what is committed from a place on.
            Some((version, _))
                if has.is_none()
                    && state.subscriber.from.is_some_and(|from| database.place(version) < Some(from)) =>
            {
                true
            }
            // Who never had it need not hear that it is gone.
            Some((version, row)) => has == Some(version) || (row.deleted && has.is_none()),
        }
    })
}

fn nothing_undone(_: &History, state: &State) -> bool {
    let undone = |version: usize| state.database.transactions[version] == Transaction::Lost;
    state.subscriber.has.iter().flatten().all(|version| !undone(usize::from(*version)))
}

impl Reached {
    fn property(self) -> Property<History> {
        /// One function for each: a property's condition captures nothing.
        macro_rules! sometimes {
            ($($reached:ident => $name:literal,)*) => {
                match self {
                    $(Self::$reached => Property::sometimes($name, |history: &History, _| {
                        history.coverage.has(Self::$reached as u32)
                    }),)*
                }
            };
        }
        sometimes! {
            PagesThenLive => "pages, then live",
            RoundResumed => "a round resumed",
            SecondRound => "a second round",
            TombstoneSent => "a deletion told by the pages",
            WatermarkWaitedForDisk => "a watermark waited for the disk",
            VisibleCommitLost => "a commit that was seen was lost",
            PlaceUsedAgain => "the place of a lost commit was used again",
            ClockStepped => "the clock stepped back",
            StampAfterClock => "a stamp later than the clock, as the time was closed",
            EntryDropped => "an entry dropped that the pages had",
            CommitNotVisible => "a commit before L that was not visible",
            LiveDelivery => "a live delivery",
            CutoverResumed => "resumed with the watermark in the id",
            ResetThenLive => "a reset, then live",
            TimeTold => "a later time told to a quiet stream",
            SafeTimeHeld => "the safe time was held where it was",
            DeletedBehindStamp => "an insert refused, deleted behind its stamp",
        }
    }
}
