//! What is shown of the progress: a line on a terminal, and log lines about what goes wrong.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

const TEMPLATE: &str = "{spinner} {msg}  {binary_bytes}  {binary_bytes_per_sec}";

/// Where the stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    /// The current state comes.
    Replaying,
    /// Changes come as they commit.
    Live,
    /// They come late.
    Stale,
}

/// The line.
pub(super) struct Progress {
    bar: ProgressBar,
    phase: Phase,
    events: u64,
    bytes: u64,
}

impl Progress {
    /// `on_stdout`: lines go to standard output; where that is the terminal too, nothing is drawn between them.
    pub(super) fn new(on_stdout: bool) -> Self {
        let bar = if on_stdout && std::io::stdout().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        } else {
            // Draws nothing either where standard error is no terminal.
            ProgressBar::new_spinner()
        };
        // A template that cannot be read leaves the bar as it is; a test reads it.
        let bar = match ProgressStyle::with_template(TEMPLATE) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, phase: Phase::Connecting, events: 0, bytes: 0 }
    }

    pub(super) fn enters(&mut self, phase: Phase) {
        if phase != self.phase {
            self.phase = phase;
            self.show();
        }
    }

    /// So much was received.
    pub(super) fn received(&mut self, events: u64, bytes: usize) {
        self.events += events;
        self.bytes += bytes as u64;
        self.bar.set_position(self.bytes);
        self.show();
    }

    /// Writes log lines, which the line on the terminal is out of the way of.
    pub(super) fn log(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        let phase = match self.phase {
            Phase::Connecting => "connecting",
            Phase::Replaying => "replaying",
            Phase::Live => "live",
            Phase::Stale => "stale",
        };
        self.bar.set_message(format!("{phase}  {} events", HumanCount(self.events)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let mut progress = Progress::new(false);
        progress.bar.set_draw_target(ProgressDrawTarget::hidden());
        progress.enters(Phase::Live);
        progress.received(1_500, 7);
        assert_eq!(progress.bar.message(), "live  1,500 events");
        assert_eq!((progress.bar.position(), progress.events), (7, 1_500));
    }
}
