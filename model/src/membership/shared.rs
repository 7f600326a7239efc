//! One transition for all subscribers who stand where the members change (rule 22).
//!
//! A task runs it as one subscriber would, and keeps its items. The client of the model passes them on. Whoever else reads it
//! is not modelled: the task may begin before the client comes, and may be ahead of it by any number of items.

use super::subscriber::{Following, Place, Stream};
use super::world::{Patients, Position, Stamp};
use super::{Membership, Reached, State};
use crate::Bug;

/// What a stream sends, with the event id that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Item {
    /// A version of a resource, whose it is, and who the members are where it is sent.
    Resource(usize, Stamp, Patients, Patients),
    /// A deletion, or a resource that left.
    Removal(usize),
    /// `live`, with the safe time if a client may come back with it.
    Live(Option<Stamp>),
    /// A position alone.
    Position,
    /// `reset-all`.
    ResetAll,
}

/// What takes items: a client, or the log of a shared transition.
pub(super) trait Out {
    /// Takes an item.
    fn give(&mut self, item: Item, id: Place);
}

impl Out for Vec<(Item, Place)> {
    fn give(&mut self, item: Item, id: Place) {
        self.push((item, id));
    }
}

/// A shared transition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shared {
    /// The position before the members change.
    from: Position,
    /// Where the task is.
    place: Place,
    /// The items that are kept.
    items: Vec<(Item, Place)>,
    /// How many were dropped.
    dropped: usize,
    end: Option<End>,
}

/// How a shared transition ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum End {
    /// The stream is settled here.
    Settled(Position),
    /// It cannot be continued by anybody.
    Reset,
    /// Each goes on alone.
    Alone,
}

/// A limit that a shared transition meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The next item does not fit: what is kept stays.
    Full,
    /// The memory is needed elsewhere: what is kept is dropped.
    Reclaimed,
}

impl Shared {
    fn begin(from: Position) -> Self {
        let following = Following { from: Some(from), ..Following::at(from) };
        Self { from, place: Place::Following(following), items: Vec::new(), dropped: 0, end: None }
    }

    /// Whether it may still meet a limit.
    pub(super) const fn runs(&self) -> bool {
        self.end.is_none()
    }

    /// Where a subscriber goes on that leaves it: from the last id that it got.
    fn leave(&self, passed: usize, id: Place, bug: Option<Bug>) -> Place {
        if bug == Some(Bug::GoesOnFromTransition) {
            return self.place;
        }
        if passed == 0 { Self::begin(self.from).place } else { id }
    }
}

impl Membership {
    /// The task takes a step; it begins, where the members change next, if there is none. `None`: it has to wait.
    pub(super) fn run_shared(&self, state: &mut State) -> Option<()> {
        if state.shared.is_none() {
            let Some(Place::Following(following)) = state.stream else { return None };
            if following.from.is_some() || following.fading.is_some() {
                return None;
            }
            let mut stream = Stream { model: self, world: &mut state.world, out: &mut Vec::new() };
            state.shared = Some(Shared::begin(stream.next_change(following.position)?));
            return Some(());
        }
        let shared = state.shared.as_mut().filter(|shared| shared.runs())?;
        let place = {
            let mut stream = Stream { model: self, world: &mut state.world, out: &mut shared.items };
            stream.step(shared.place)?
        };
        match place {
            // The reset is each subscriber's own.
            Place::Start => {
                shared.items.retain(|(item, _)| *item != Item::ResetAll);
                shared.end = Some(End::Reset);
            }
            Place::Following(following) if following.from.is_none() && following.fading.is_none() => {
                shared.end = Some(End::Settled(following.position));
            }
            _ => {}
        }
        // Nobody asks where it was: it would only multiply the states.
        shared.place = if shared.runs() { place } else { Place::Start };
        Some(())
    }

    /// The task meets a limit while it takes a step.
    pub(super) fn limit_shared(&self, state: &mut State, limit: Limit) -> Option<()> {
        let kept = state.shared.as_ref()?.items.len();
        self.run_shared(state)?;
        let shared = state.shared.as_mut()?;
        match limit {
            // The step has to have an item, which is not kept.
            Limit::Full if shared.items.len() == kept => return None,
            Limit::Full => shared.items.truncate(kept),
            Limit::Reclaimed => shared.dropped += std::mem::take(&mut shared.items).len(),
        }
        shared.end = Some(End::Alone);
        if !self.has(Bug::GoesOnFromTransition) {
            shared.place = Place::Start;
        }
        Some(())
    }

    /// The client comes to where the members change.
    pub(super) fn join_shared(&self, state: &mut State, from: Position) -> Place {
        let same = |shared: &&Shared| shared.from == from || self.has(Bug::SharedByFilterAlone);
        let passed = match state.shared.as_ref().filter(same) {
            None => {
                state.shared = Some(Shared::begin(from));
                0
            }
            Some(shared) => {
                let items = shared.items.len() + shared.dropped;
                if items > 0 {
                    self.reach(Reached::JoinedLate);
                }
                if self.has(Bug::LateJoinerStartsAtNewest) { items } else { 0 }
            }
        };
        Place::Shared(from, passed)
    }

    /// The client passes on the next item. `None`: it has to wait.
    pub(super) fn pass_on(&self, state: &mut State, passed: usize) -> Option<Place> {
        let State { shared, client, world, .. } = state;
        let shared = shared.as_ref()?;
        if passed >= shared.dropped
            && let Some((item, id)) = shared.items.get(passed - shared.dropped)
        {
            let id = if self.has(Bug::PassesOnWithoutIds) { client.id } else { *id };
            client.give(*item, id);
            return Some(Place::Shared(shared.from, passed + 1));
        }
        let end = if passed < shared.dropped { End::Alone } else { shared.end? };
        Some(match end {
            End::Settled(position) => {
                self.reach(Reached::Shared);
                Place::Following(Following::at(position))
            }
            End::Reset => Stream { model: self, world, out: client }.reset(),
            End::Alone => {
                if passed > 0 {
                    self.reach(Reached::WentOnAlone);
                }
                shared.leave(passed, client.id, self.bug)
            }
        })
    }
}
