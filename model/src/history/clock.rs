//! The database's clock: it ticks, stands still, and sometimes steps back.
//!
//! Where it steps, the margin that a mark leaves is a tick and a half: a step back of one tick is within it, a
//! step of two is beyond. Where it does not, half a tick is enough.

/// A reading of the clock, or a stamp.
pub type Instant = i8;

/// Before every stamp.
pub const BEGINNING: Instant = i8::MIN;

/// A tick. The microsecond that a stamp is ahead of the one before at least is the unit: far less.
pub const TICK: Instant = 8;

/// Whether so many steps are more than a margin.
pub(crate) const fn beyond_margin(stepped: Instant) -> bool {
    stepped > 1
}

/// The clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Clock {
    /// What it shows.
    pub now: Instant,
    /// How many ticks it has stepped back, all steps together: what a monotonic clock of ours would show besides.
    pub stepped: Instant,
    /// How many ticks it will still make.
    pub ticks: u8,
    /// How many ticks it may still step back, at once.
    pub steps: Instant,
}

impl Clock {
    pub(crate) fn tick(&mut self) {
        self.now += TICK;
        self.ticks -= 1;
    }

    pub(crate) fn step_back(&mut self, by: Instant) {
        self.now -= by * TICK;
        self.stepped += by;
        self.steps = 0;
    }

    /// What lies a margin before an instant.
    pub fn safe(&self, instant: Instant) -> Instant {
        instant - if self.steps == 0 && self.stepped == 0 { TICK / 2 } else { TICK + TICK / 2 }
    }

    /// Whether it has stepped back by more than a margin.
    pub fn beyond_margin(&self) -> bool {
        beyond_margin(self.stepped)
    }
}
