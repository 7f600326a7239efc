//! What is shown of the progress: a line on a terminal, log lines about what goes wrong, and metrics.

use super::metrics::Metrics;
use client::{Change, Notice, NoticeKind, Position, Update};
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const TEMPLATE: &str = "{spinner} {msg}  {binary_bytes}  {binary_bytes_per_sec}";
/// Where nobody sees the line, a log line says so often how far a replay is.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// Before that nobody can tell how long it will take.
const TOO_EARLY: Duration = Duration::from_secs(2);

/// Where the stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
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
    /// Nobody sees the line.
    unseen: bool,
    metrics: Arc<Metrics>,
    phase: Phase,
    /// Before it was stale it was live.
    was_live: bool,
    events: u64,
    bytes: u64,
    /// Of each kind, since the metrics had them.
    counted: [u64; 3],
    expected: Option<Expected>,
    told: Instant,
}

/// How much is to come.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// About so many resources are the current state.
    total: u64,
    /// So many of them had come before.
    before: u64,
    /// How many events had come when we were told.
    events: u64,
    at: Instant,
}

impl Expected {
    /// Per cent of what is to come when so many events have come. Never 100: that is for the service to say.
    fn per_cent(&self, events: u64) -> u64 {
        let done = self.before.saturating_add(events - self.events);
        // Both may be as large as they like.
        let part = u128::from(done) * 100 / u128::from(self.total.max(1));
        u64::try_from(part).unwrap_or(u64::MAX).min(99)
    }

    /// How long it takes still, if it goes on as it went since we were told.
    fn left(&self, events: u64, now: Instant) -> Option<Duration> {
        let (came, passed) = (events - self.events, now.saturating_duration_since(self.at));
        let rest = self.total.saturating_sub(self.before).saturating_sub(came);
        if came == 0 || passed < TOO_EARLY {
            return None;
        }
        // What would take longer than a duration can say is not known.
        #[allow(clippy::cast_precision_loss)]
        Duration::try_from_secs_f64(passed.as_secs_f64() * (rest as f64 / came as f64)).ok()
    }
}

impl Progress {
    /// `on_stdout`: lines go to standard output; where that is the terminal too, nothing is drawn between them.
    pub(super) fn new(on_stdout: bool, metrics: Arc<Metrics>) -> Self {
        let hidden = on_stdout && std::io::stdout().is_terminal();
        let bar = if hidden {
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
        Self {
            bar,
            unseen: !hidden && !std::io::stderr().is_terminal(),
            metrics,
            phase: Phase::Connecting,
            was_live: false,
            events: 0,
            bytes: 0,
            counted: [0; 3],
            expected: None,
            told: Instant::now(),
        }
    }

    /// Shows what happens to the recording.
    pub(super) fn shows(&mut self, update: Update<'_>) {
        match update {
            Update::Resuming { position, run } => self.resumes(position, run),
            Update::Connecting => self.enters(Phase::Connecting),
            Update::Connected => self.enters(Phase::Replaying),
            Update::Change(change) => self.counts(change),
            Update::Received(bytes) => self.received(bytes),
            Update::Estimated { total, before } => self.expects(total, before),
            Update::Notice(notice) => self.notice(notice),
            Update::Disconnected { reason, retry_in } => {
                self.lost();
                self.log(|| tracing::warn!(why = reason, again_in = ?retry_in, "no stream"));
            }
            Update::Stopped(signal) => self.log(|| tracing::info!("stopped by {signal}")),
            Update::Ended => self.bar.finish_and_clear(),
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let text = &notice.text;
        match &notice.kind {
            NoticeKind::Live(_) => self.is_live(),
            NoticeKind::Reset => {
                self.resets("reset");
                self.log(|| tracing::warn!("reset: {text}"));
            }
            NoticeKind::ResetAll => {
                self.resets("reset-all");
                self.log(|| tracing::warn!("reset-all: {text}"));
            }
            NoticeKind::Stale(since) => {
                self.is_stale(since.as_deref());
                let since = since.as_deref().unwrap_or("an unknown time");
                self.log(|| tracing::warn!("stale: what changed after {since} may be missing: {text}"));
            }
            NoticeKind::Fresh => {
                self.is_fresh();
                self.log(|| tracing::info!("fresh: {text}"));
            }
            NoticeKind::Estimated(_) | NoticeKind::End | NoticeKind::Other => {}
        }
    }

    /// It resumes from there, in this run of a download after the first.
    fn resumes(&self, position: &Position, run: Option<u64>) {
        let time = position.live.as_ref().and_then(|live| live.transaction_time.as_deref());
        if let Some(Ok(time)) = time.map(str::parse) {
            self.metrics.is_as_of(time);
        }
        if position.last_event_id.is_some() {
            // A state of an earlier release does not say how many.
            let after = match position.lines {
                0 => String::new(),
                lines => format!(" after line {}", HumanCount(lines)),
            };
            match (&position.live, time) {
                (None, _) => {
                    let within =
                        run.map_or_else(|| "the current state".to_owned(), |run| format!("run {run}"));
                    tracing::info!("resumes{after}, within {within}");
                }
                (Some(_), None) => tracing::info!("resumes{after}"),
                (Some(_), Some(time)) => tracing::info!("resumes{after}; it was live as of {time}"),
            }
        }
    }

    fn enters(&mut self, phase: Phase) {
        self.metrics.connected(phase != Phase::Connecting);
        if phase != self.phase {
            self.phase = phase;
            self.show();
        }
    }

    /// The stream is gone, or there was none; another will be asked for.
    fn lost(&mut self) {
        self.metrics.reconnects();
        self.expected = None;
        self.was_live = false;
        self.enters(Phase::Connecting);
    }

    fn is_live(&mut self) {
        self.was_live = true;
        self.expected = None;
        self.enters(Phase::Live);
    }

    /// What changed since then may be missing.
    fn is_stale(&mut self, since: Option<&str>) {
        if let Some(Ok(since)) = since.map(str::parse) {
            self.metrics.is_as_of(since);
        }
        self.enters(Phase::Stale);
    }

    fn is_fresh(&mut self) {
        self.enters(if self.was_live { Phase::Live } else { Phase::Replaying });
    }

    /// The notice of this code has come.
    fn resets(&mut self, code: &str) {
        self.metrics.resets(code);
        self.was_live = false;
        self.expected = None;
        self.enters(Phase::Replaying);
    }

    /// About so many resources are the current state, of which so many are there.
    fn expects(&mut self, total: u64, before: u64) {
        let now = Instant::now();
        let expected = Expected { total, before, events: self.events, at: now };
        self.expected = Some(expected);
        self.told = now;
        let (of, per_cent) = (HumanCount(total), expected.per_cent(self.events));
        self.log(|| match before {
            0 => tracing::info!("the current state comes: about {of} resources"),
            _ => tracing::info!("the current state goes on at {per_cent} % of about {of} resources"),
        });
        self.show();
    }

    /// A change came.
    fn counts(&mut self, change: Change) {
        self.events += 1;
        self.counted[change as usize] += 1;
    }

    /// So many bytes came, with what was counted since the last.
    fn received(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.metrics.bytes(bytes as u64);
        for (op, count) in ["upsert", "delete", "remove"].into_iter().zip(&mut self.counted) {
            self.metrics.events(op, std::mem::take(count));
        }
        if self.phase == Phase::Live {
            self.metrics.is_current();
        }
        if self.unseen && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            if let Some(how_far) = self.how_far() {
                self.log(|| tracing::info!("the current state comes: {how_far}"));
            }
        }
        self.bar.set_position(self.bytes);
        self.show();
    }

    /// Writes log lines, which the line on the terminal is out of the way of.
    fn log(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Per cent of the current state, and how long it takes still.
    fn how_far(&self) -> Option<String> {
        let expected = self.expected.filter(|_| self.phase == Phase::Replaying)?;
        let per_cent = expected.per_cent(self.events);
        Some(match expected.left(self.events, Instant::now()) {
            Some(left) => format!("{per_cent} %, about {} left", HumanDuration(left)),
            None => format!("{per_cent} %"),
        })
    }

    fn show(&self) {
        let phase = match self.phase {
            Phase::Connecting => "connecting",
            Phase::Replaying => "replaying",
            Phase::Live => "live",
            Phase::Stale => "stale",
        };
        let how_far = self.how_far().map(|how_far| format!("  {how_far}")).unwrap_or_default();
        self.bar.set_message(format!("{phase}{how_far}  {} events", HumanCount(self.events)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let progress = Progress::new(false, Arc::new(Metrics::new().unwrap()));
        progress.bar.set_draw_target(ProgressDrawTarget::hidden());
        progress
    }

    #[test]
    fn it_counts() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let mut progress = progress();
        progress.is_live();
        (0..1_500).for_each(|_| progress.counts(Change::Upsert));
        progress.received(7);
        assert_eq!(progress.bar.message(), "live  1,500 events");
        assert_eq!((progress.bar.position(), progress.events), (7, 1_500));
    }

    #[test]
    fn how_far_it_is_is_shown_while_the_current_state_comes() {
        let mut progress = progress();
        progress.enters(Phase::Replaying);
        progress.expects(200, 50);
        assert_eq!(progress.bar.message(), "replaying  25 %  0 events");
        (0..30).for_each(|_| progress.counts(Change::Upsert));
        progress.received(1);
        assert_eq!(progress.bar.message(), "replaying  40 %  30 events");
        progress.is_live();
        assert_eq!(progress.bar.message(), "live  30 events");
    }

    #[test]
    fn it_is_an_estimate() {
        let at = Instant::now();
        let expected = Expected { total: 1_000, before: 100, events: 7, at };
        let later = |seconds| at + Duration::from_secs(seconds);
        assert_eq!((expected.per_cent(7), expected.left(7, later(60))), (10, None));
        assert_eq!((expected.per_cent(107), expected.left(107, later(1))), (20, None));
        assert_eq!(expected.left(107, later(10)), Some(Duration::from_secs(80)));
        // There are more than it was thought.
        assert_eq!((expected.per_cent(5_000), expected.left(5_000, later(10))), (99, Some(Duration::ZERO)));
        // Whatever a stranger says.
        for (total, before) in [(0, 0), (0, 7), (u64::MAX, 0), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            let expected = Expected { total, before, events: 0, at };
            assert!(expected.per_cent(u64::MAX) <= 99 && expected.per_cent(1) <= 99);
            let _ = expected.left(1, later(1 << 40));
        }
    }

    #[test]
    fn fresh_is_what_it_was_before() {
        let mut progress = progress();
        progress.enters(Phase::Replaying);
        progress.is_stale(Some("no time"));
        progress.is_fresh();
        assert_eq!(progress.phase, Phase::Replaying);
        progress.is_live();
        progress.is_stale(None);
        progress.is_fresh();
        assert_eq!(progress.phase, Phase::Live);
    }
}
