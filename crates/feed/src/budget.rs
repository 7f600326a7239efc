//! One budget for all bytes that are held for subscribers, shared or not.
//!
//! The hub takes what is free and sends its subscribers to the journal where nothing is; readers of the journal
//! and of the tables wait. What is taken comes back when the last piece of the bytes is dropped, which is
//! when the socket has it.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are of this many bytes.
const UNIT: usize = 1024;

/// A number of bytes, lent out.
#[derive(Clone)]
pub(crate) struct Budget {
    free: Arc<Semaphore>,
    units: u32,
}

/// Part of the budget.
pub(crate) struct Held(OwnedSemaphorePermit);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// More than all there is counts as all there is: the largest resource must pass too.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units)
    }

    /// Takes what is needed if it is free.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Held> {
        self.free.clone().try_acquire_many_owned(self.units(bytes)).ok().map(Held)
    }

    /// Waits until what is needed is free.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Held> {
        // The semaphore is never closed.
        self.free.clone().acquire_many_owned(self.units(bytes)).await.ok().map(Held)
    }

    /// Bytes lent out.
    pub(crate) fn held(&self) -> u64 {
        ((self.units as usize).saturating_sub(self.free.available_permits()) * UNIT) as u64
    }

    /// Gives back what turned out not to be needed, or takes what turned out to be missing. The bytes
    /// are there already, so nothing is waited for: one resource can be larger than any page.
    pub(crate) fn fit(&self, held: &mut Option<Held>, bytes: usize) {
        let Some(Held(permit)) = held else { return };
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

impl Held {
    /// Ties the part of the budget to the bytes it was taken for.
    pub(crate) fn attach(held: Option<Self>, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct Attached<B>(B, #[allow(dead_code)] Option<Held>);
        impl<B: AsRef<[u8]>> AsRef<[u8]> for Attached<B> {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        Bytes::from_owner(Attached(bytes, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_with_the_last_piece() {
        let budget = Budget::new(10 * UNIT);
        let bytes = Held::attach(budget.try_take(4 * UNIT), Bytes::from_static(b"12345678"));
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
