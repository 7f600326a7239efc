//! The result of a load: counted, shown on the bar, and summarised at the end.

use super::batch::Origin;
use super::resource::Bad;
use indicatif::{HumanCount, HumanDuration, ProgressBar};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;

/// The number of bad resources that are reported one by one; further ones are only counted.
const TOLD: u64 = 100;

/// Writes a line to standard error.
fn complain(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Shared by the reader and the writer.
pub(super) struct Report {
    bar: ProgressBar,
    begun: Instant,
    written: AtomicU64,
    deleted: AtomicU64,
    bad: AtomicU64,
}

impl Report {
    pub(super) fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            begun: Instant::now(),
            written: AtomicU64::new(0),
            deleted: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        }
    }

    /// The bar, to be moved by the bytes read.
    pub(super) fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    /// So much was committed.
    pub(super) fn committed(&self, written: u64, deleted: u64) {
        self.written.fetch_add(written, Relaxed);
        self.deleted.fetch_add(deleted, Relaxed);
        self.bar.set_message(self.summary());
    }

    /// Something could not be loaded.
    pub(super) fn tell(&self, origin: &Origin, bad: &Bad) {
        let told = self.bad.fetch_add(1, Relaxed);
        if told < TOLD {
            self.bar.suspend(|| complain(format_args!("{origin}: {bad}")));
        } else if told == TOLD {
            self.bar.suspend(|| complain(format_args!("more of the kind follow; they are only counted")));
        }
    }

    /// How many could not be loaded.
    pub(super) fn bad(&self) -> u64 {
        self.bad.load(Relaxed)
    }

    /// Takes the bar away and says what was done.
    pub(super) fn finish(&self) -> String {
        self.bar.finish_and_clear();
        format!("{} in {}", self.summary(), HumanDuration(self.begun.elapsed()))
    }

    fn summary(&self) -> String {
        let (written, deleted) = (self.written.load(Relaxed), self.deleted.load(Relaxed));
        let deletions =
            if deleted > 0 { format!(", {} deleted", HumanCount(deleted)) } else { String::new() };
        // Of a rate nobody reads the digits after 2^53, nor the fraction.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = ((written + deleted) as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64;
        let noun = if written == 1 { "resource" } else { "resources" };
        format!("{} {noun} loaded{deletions}, {}/s", HumanCount(written), HumanCount(rate))
    }
}
