//! The database's clock: it ticks, stands still, and sometimes steps back. A step forward is several ticks at once.

/// A reading of the clock, or a stamp.
pub type Instant = i8;

/// Before every stamp.
pub const BEGINNING: Instant = i8::MIN;

/// Later than every stamp.
pub const FAR_AHEAD: Instant = i8::MAX;

/// A tick. The microsecond that a stamp is ahead of the one before at least is the unit: far less.
pub const TICK: Instant = 8;

/// The clock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Clock {
    /// What it shows.
    pub now: Instant,
    /// How many ticks it will still make.
    pub ticks: u8,
    /// How often it may still step back.
    pub steps: u8,
}

impl Clock {
    pub(crate) fn tick(&mut self) {
        self.now += TICK;
        self.ticks -= 1;
    }

    pub(crate) fn step_back(&mut self, by: Instant) {
        self.now -= by * TICK;
        self.steps -= 1;
    }
}
