//! One budget for all bytes that are held for subscribers, shared or not.
//!
//! The hub takes what is free and sends its subscribers to the journal where nothing is; readers of the journal
//! and of the tables wait. What is taken comes back when the last piece of the bytes is dropped, which is
//! when the socket has it.
//!
//! A client that reads nothing must not keep the others waiting. So while somebody waits, what was read for a client and
//! not taken for a while is taken back, oldest first, to be read again ([`Reclaim`]). When that is not enough, clients that
//! have not taken what their connection has in hand are dropped ([`Pressure`]).

use crate::Pressure;
use bytes::Bytes;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant as Clock, sleep};

/// Permits are of this many bytes.
const UNIT: usize = 1024;
/// How often a reader that waits looks for what can be taken back.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What a client has not taken from for this long can be taken back.
const UNTOUCHED: Duration = Duration::from_millis(400);
/// When the list of what can be taken back is this long, what is gone is swept out.
const SWEEP_AT: usize = 256;

/// A number of bytes, lent out.
#[derive(Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    room: Arc<Room>,
}

/// Part of the budget.
pub(crate) struct Reservation(OwnedSemaphorePermit);

/// What waits for one client and can be read again.
pub(crate) trait Reclaim: Send + Sync {
    /// Since when nothing was taken from it, and how many bytes are left; `None` if nothing is.
    fn untouched_since(&self) -> Option<(Clock, usize)>;

    /// Drops it; how many bytes that were.
    fn reclaim(&self) -> usize;
}

/// Who waits for room, and what could make some.
struct Room {
    reclaimable: Mutex<Reclaimable>,
    waiting: AtomicUsize,
    /// Units that are waited for.
    wanted: AtomicUsize,
    reclaimed: AtomicU64,
    pressure: Pressure,
}

struct Reclaimable {
    all: Vec<Weak<dyn Reclaim>>,
    sweep_at: usize,
    /// When it was last looked at.
    looked: Option<Clock>,
}

/// A reader that waits.
struct Waiting<'a> {
    room: &'a Room,
    units: usize,
}

impl Budget {
    /// `pressure` is put on those who hold it when it is short.
    pub(crate) fn new(bytes: usize, pressure: Pressure) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        let reclaimable = Reclaimable { all: Vec::new(), sweep_at: SWEEP_AT, looked: None };
        let room = Room {
            reclaimable: Mutex::new(reclaimable),
            waiting: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            reclaimed: AtomicU64::new(0),
            pressure,
        };
        Self { free: Arc::new(Semaphore::new(units as usize)), units, room: Arc::new(room) }
    }

    /// More than all there is counts as all there is: the largest resource must pass too.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }

    /// Takes what is needed if it is free.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Reservation> {
        self.free.clone().try_acquire_many_owned(self.units(bytes)).ok().map(Reservation)
    }

    /// Waits until what is needed is free; what others have not taken for a while makes room.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Reservation> {
        if let Some(held) = self.try_take(bytes) {
            return Some(held);
        }
        Box::pin(self.wait(bytes)).await
    }

    async fn wait(&self, bytes: usize) -> Option<Reservation> {
        let units = self.units(bytes);
        let _waiting = Waiting::new(&self.room, units as usize);
        let mut taken = pin!(self.free.clone().acquire_many_owned(units));
        loop {
            self.make_room();
            tokio::select! {
                biased;
                // The semaphore is never closed.
                taken = &mut taken => return taken.ok().map(Reservation),
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Takes back what was not touched for a while, oldest first, as much as is waited for; and if that is not there,
    /// asks those for it who cannot read again.
    fn make_room(&self) {
        let now = Clock::now();
        let room = &*self.room;
        let Some(mut reclaimable) = room.reclaimable.try_lock() else { return };
        // One look serves all that wait.
        if reclaimable.looked.is_some_and(|looked| now.duration_since(looked) < LOOK_EVERY / 2) {
            return;
        }
        reclaimable.looked = Some(now);
        reclaimable.all.retain(|held| held.strong_count() > 0);
        let all = reclaimable.all.iter().filter_map(Weak::upgrade);
        let mut untouched: Vec<_> = all
            .filter_map(|held| {
                let (since, bytes) = held.untouched_since()?;
                Some((since, bytes, held))
            })
            .collect();
        drop(reclaimable);
        untouched.sort_by_key(|(since, ..)| *since);
        // What the first of those who wait has got already is not known: it may be somewhat too much.
        let mut missing = room.wanted.load(Relaxed) * UNIT;
        for (since, bytes, held) in untouched {
            if missing == 0 {
                return;
            }
            // What was just read will be taken in a moment, or be reclaimed a moment later.
            let bytes = if now.duration_since(since) < UNTOUCHED {
                bytes
            } else {
                room.reclaimed.fetch_add(1, Relaxed);
                held.reclaim()
            };
            missing = missing.saturating_sub(bytes);
        }
        if missing > 0 {
            room.pressure.ask_for(missing);
        }
    }

    /// Notes what can be taken back.
    pub(crate) fn may_reclaim(&self, held: Weak<dyn Reclaim>) {
        let mut reclaimable = self.room.reclaimable.lock();
        if reclaimable.all.len() >= reclaimable.sweep_at {
            reclaimable.all.retain(|held| held.strong_count() > 0);
            reclaimable.sweep_at = SWEEP_AT.max(2 * reclaimable.all.len());
        }
        reclaimable.all.push(held);
    }

    /// All bytes that there are to lend.
    pub(crate) fn bytes(&self) -> usize {
        self.units as usize * UNIT
    }

    /// Bytes lent out.
    pub(crate) fn held(&self) -> u64 {
        ((self.units as usize).saturating_sub(self.free.available_permits()) * UNIT) as u64
    }

    /// How many readers wait.
    pub(crate) fn waiting(&self) -> usize {
        self.room.waiting.load(Relaxed)
    }

    /// How often what waited for a client was taken back.
    pub(crate) fn reclaimed(&self) -> u64 {
        self.room.reclaimed.load(Relaxed)
    }

    /// Gives back what turned out not to be needed, or takes what turned out to be missing. The bytes
    /// are there already, so nothing is waited for: one resource can be larger than any page.
    pub(crate) fn fit(&self, held: &mut Option<Reservation>, bytes: usize) {
        let Some(Reservation(permit)) = held else { return };
        let (has, needs) = (permit.num_permits(), self.units(bytes) as usize);
        if has >= needs {
            drop(permit.split(has - needs));
        } else {
            let missing = (needs - has).min(self.free.available_permits());
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            if let Ok(more) = self.free.clone().try_acquire_many_owned(missing) {
                permit.merge(more);
            }
        }
    }
}

impl<'a> Waiting<'a> {
    fn new(room: &'a Room, units: usize) -> Self {
        room.waiting.fetch_add(1, Relaxed);
        room.wanted.fetch_add(units, Relaxed);
        Self { room, units }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Relaxed);
        self.room.wanted.fetch_sub(self.units, Relaxed);
    }
}

impl Reservation {
    /// Ties the part of the budget to the bytes it was taken for.
    pub(crate) fn attach(held: Option<Self>, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct Attached<B>(B, #[allow(dead_code)] Option<Reservation>);
        impl<B: AsRef<[u8]>> AsRef<[u8]> for Attached<B> {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        Bytes::from_owner(Attached(bytes, held))
    }

    /// The part of it that so many bytes need, or all of it if that is less.
    pub(crate) fn part(held: &mut Option<Self>, bytes: usize) -> Option<Self> {
        let Reservation(permit) = held.as_mut()?;
        permit.split(bytes.div_ceil(UNIT).min(permit.num_permits())).map(Self)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_with_the_last_piece() {
        let budget = Budget::new(10 * UNIT, Pressure::default());
        let bytes = Reservation::attach(budget.try_take(4 * UNIT), Bytes::from_static(b"12345678"));
        let piece = bytes.slice(2..4);
        drop(bytes);
        assert_eq!(budget.held(), 4 * UNIT as u64);
        assert!(budget.try_take(7 * UNIT).is_none());
        drop(piece);
        assert_eq!(budget.held(), 0);
        assert!(budget.try_take(usize::MAX).is_some(), "the largest resource passes alone");
        let mut held = budget.try_take(8 * UNIT);
        budget.fit(&mut held, 1);
        assert_eq!(budget.held(), UNIT as u64);
        budget.fit(&mut held, 5 * UNIT);
        assert_eq!(budget.held(), 5 * UNIT as u64);
    }
}
