//! The times that were closed and are not safe yet.
//!
//! A time is safe when every transaction that had an id right after it was closed has ended: what stamped before that
//! is visible then, and whatever gets an id later stamps later.

use fhir::Instant;
use std::collections::VecDeque;

/// A transaction's id, as Postgres shows it: the order of two is that of their difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Xid(pub(crate) u32);

impl Xid {
    /// Whether it was given before another.
    pub(crate) const fn is_before(self, other: Self) -> bool {
        // No two that are open at the same time are further apart than half of all.
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }

    pub(crate) fn older(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }

    pub(crate) fn newer(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

/// The transactions that have an id, of which the oldest and the newest say enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    pub(crate) oldest: Xid,
    pub(crate) newest: Xid,
}

impl Open {
    /// Those of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { oldest: self.oldest.older(other.oldest), newest: self.newest.newer(other.newest) }
    }
}

struct Closing {
    time: Instant,
    /// The newest of the transactions that were open then.
    newest: Option<Xid>,
}

/// While a transaction is open for long: fewer of them only mean that safe time moves in larger steps.
const KEPT: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Closings(VecDeque<Closing>);

impl Closings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A time was closed; `open` was read after that.
    pub(super) fn push(&mut self, time: Instant, open: Option<Open>) {
        if self.0.len() == KEPT {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.0.push_back(Closing { time, newest: open.map(|open| open.newest) });
    }

    /// The newest time that is safe now that only these are open. It and what is older is forgotten.
    pub(super) fn take_safe(&mut self, open: Option<Open>) -> Option<Instant> {
        let has_ended = |closing: &Closing| match (closing.newest, open) {
            (None, _) | (_, None) => true,
            (Some(newest), Some(open)) => newest.is_before(open.oldest),
        };
        let mut safe = None;
        while self.0.front().is_some_and(has_ended) {
            safe = self.0.pop_front().map(|closing| closing.time).max(safe);
        }
        safe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const fn at(seconds: i64) -> Instant {
        Instant::from_unix_micros(seconds * 1_000_000)
    }

    fn open(xids: &[u32]) -> Option<Open> {
        xids.iter().map(|xid| Open { oldest: Xid(*xid), newest: Xid(*xid) }).reduce(Open::and)
    }

    #[test]
    fn a_time_is_safe_when_those_that_were_open_have_ended() {
        let mut closings = Closings::default();
        closings.push(at(1), None);
        assert_eq!(closings.take_safe(open(&[7])), Some(at(1)), "nobody was");
        closings.push(at(2), open(&[7, 9]));
        assert_eq!(closings.take_safe(open(&[7, 9])), None);
        closings.push(at(3), open(&[9, 12]));
        assert_eq!(closings.take_safe(open(&[9, 12, 13])), None, "one of them is still open");
        assert_eq!(closings.take_safe(open(&[12, 13])), Some(at(2)));
        assert_eq!(closings.take_safe(open(&[13])), Some(at(3)));
        assert!(closings.is_empty());
        closings.push(at(4), open(&[13]));
        assert_eq!(closings.take_safe(None), Some(at(4)));
    }

    #[test]
    fn ids_go_round() {
        assert!(Xid(u32::MAX - 1).is_before(Xid(3)) && !Xid(3).is_before(Xid(u32::MAX - 1)));
        let both = open(&[2, u32::MAX]).unwrap();
        assert_eq!(both, Open { oldest: Xid(u32::MAX), newest: Xid(2) });
    }

    proptest! {
        /// Whoever comes and goes: a time is safe only when all have ended that were open when it was closed, and when
        /// nobody is open it is, even if many were kept.
        #[test]
        fn no_time_is_safe_too_early(first in any::<u32>(), steps in prop::collection::vec(0..4_u8, 1..1_000)) {
            let mut closings = Closings::default();
            let (mut next, mut running, mut waits) = (0_u32, BTreeSet::new(), Vec::new());
            let list = |running: &BTreeSet<u32>| {
                let xids: Vec<_> = running.iter().map(|n| first.wrapping_add(*n)).collect();
                open(&xids)
            };
            for (now, step) in (0..).zip(steps) {
                match step {
                    0 => {
                        running.insert(next);
                        next += 1;
                    }
                    1 => drop(running.pop_first()),
                    2 => drop(running.pop_last()),
                    _ => {
                        closings.push(at(now), list(&running));
                        waits.push((at(now), running.clone()));
                    }
                }
                if let Some(safe) = closings.take_safe(list(&running)) {
                    let early = waits.iter().filter(|(time, _)| *time <= safe).any(|(_, then)| !then.is_disjoint(&running));
                    prop_assert!(!early, "{safe} with {running:?}");
                }
            }
            closings.push(at(10_000), list(&running));
            prop_assert_eq!(closings.take_safe(None), Some(at(10_000)));
        }
    }
}
