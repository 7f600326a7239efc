//! What each step does to a state, and which of the situations that scenarios are about it reaches.

use super::clock::{BEGINNING, Instant};
use super::database::{Database, Row, Transaction};
use super::subscriber::{self, Server};
use super::watermark::{Closing, Closings, Sampler, Watermark};
use super::{History, Reached, State, Step};
use crate::Bug;

impl History {
    fn write(&self, state: &mut State, number: usize, key: u8, deleted: bool) {
        let now = state.clock.now;
        let before = state.database.visible(key).map(|(_, row)| row.stamp);
        let earliest = self.earliest(&state.database);
        if earliest > now {
            self.reach(Reached::StampAfterClock);
        }
        let stamp = now.max(earliest).max(before.map_or(now, |before| before + 1));
        let transaction = &mut state.database.transactions[number];
        *transaction = match *transaction {
            Transaction::Stamped { row, .. } => Transaction::Written { row },
            Transaction::Idle | Transaction::Identified => {
                Transaction::Written { row: Row { key, deleted, stamp } }
            }
            other => other,
        };
    }

    /// The earliest stamp that may be taken.
    fn earliest(&self, database: &Database) -> Instant {
        if self.has_bug(Bug::StampIgnoresClosedTime) { BEGINNING } else { database.closed.saturating_add(1) }
    }

    fn sample(&self, state: &mut State, step: Step) {
        let now = state.clock.now;
        let reached = state.feed.begins.map_or(BEGINNING, |(_, since)| since);
        state.sampler = match (step, state.sampler) {
            (Step::CloseTime, Sampler::Idle) => Sampler::Closed { time: state.database.close(now, reached) },
            (Step::CloseTime, Sampler::Writers { open }) => {
                let time = state.database.close(now, reached);
                state.closings.push(Closing { time, waits_for: open });
                self.safe(state, open)
            }
            (Step::SampleWriters, Sampler::Idle) if self.has_bug(Bug::WritersBeforeClosing) => {
                Sampler::Writers { open: state.database.writers() }
            }
            (Step::SampleWriters, Sampler::Idle) => self.safe(state, state.database.writers()),
            (Step::SampleWriters, Sampler::Closed { time }) => {
                let open = state.database.writers();
                state.closings.push(Closing { time, waits_for: open });
                self.safe(state, open)
            }
            (Step::SamplePlace, Sampler::Safe { safe_time }) => {
                Sampler::Place { watermark: Watermark { safe_time, fence_lsn: state.database.insert } }
            }
            (_, other) => other,
        };
    }

    /// The safe time, which never falls. If no time is known to be safe yet there is no watermark.
    fn safe(&self, state: &mut State, open: u8) -> Sampler {
        let safe = state.closings.take_safe(open, self.bug);
        let before = state.feed.watermark.map(|watermark| watermark.safe_time);
        if !state.feed.settled && safe.is_some() {
            let newest = state.database.newest().filter(|_| !self.has_bug(Bug::JournalBeginsAtClock));
            state.feed.settle(newest);
        }
        if open != 0 && safe.is_none() && before.is_some() {
            self.reach(Reached::SafeTimeHeld);
        }
        safe.max(before).map_or(Sampler::Idle, |safe_time| Sampler::Safe { safe_time })
    }

    pub(super) fn apply(&self, state: &mut State, step: Step) {
        let bug = self.bug;
        let now = state.clock.now;
        match step {
            Step::Tick => state.clock.tick(),
            Step::StepBack(by) => {
                state.clock.step_back(by);
                self.reach(Reached::ClockStepped);
            }
            Step::Begin(number) => state.database.transactions[number] = Transaction::Begun,
            Step::Identify(number) => {
                if state.database.transactions[number] == Transaction::Begun {
                    state.database.transactions[number] = Transaction::Identified;
                }
            }
            Step::Stamp(number, key, deleted) => {
                let row = Row { key, deleted, stamp: now.max(self.earliest(&state.database)) };
                let transaction = &mut state.database.transactions[number];
                *transaction = match *transaction {
                    Transaction::Begun => Transaction::Stamped { row, identified: false },
                    Transaction::Identified => Transaction::Stamped { row, identified: true },
                    Transaction::Idle => Transaction::Stamped { row, identified: true },
                    other => other,
                };
            }
            Step::Refuse(number) => {
                if let Transaction::Stamped { row, .. } = state.database.transactions[number]
                    && state.database.visible(row.key).is_some_and(|(_, there)| there.deleted)
                {
                    self.reach(Reached::DeletedBehindStamp);
                }
                state.database.transactions[number] = Transaction::Lost;
            }
            Step::Write(number, key, deleted) => self.write(state, number, key, deleted),
            Step::Commit(number) => {
                if let Transaction::Written { row } = state.database.transactions[number] {
                    let lsn = state.database.insert;
                    state.database.transactions[number] = Transaction::Committed { row, lsn };
                    state.database.insert += 1;
                    if !self.asynchronous {
                        // Nobody sees it before it is on disk anyway.
                        state.database.flushed += 1;
                    }
                    if state.database.transactions.contains(&Transaction::Lost) {
                        self.reach(Reached::PlaceUsedAgain);
                    }
                }
            }
            Step::Appear(number) => {
                if let Transaction::Committed { row, lsn } = state.database.transactions[number] {
                    state.database.transactions[number] = Transaction::Visible { row, lsn };
                }
            }
            Step::Flush => state.database.flushed += 1,
            Step::Crash => {
                state.crashes -= 1;
                let visible = |database: &Database| {
                    database.transactions.iter().filter(|t| matches!(t, Transaction::Visible { .. })).count()
                };
                let before = visible(&state.database);
                state.database.crash();
                if visible(&state.database) < before {
                    self.reach(Reached::VisibleCommitLost);
                }
                (state.sampler, state.closings) = (Sampler::Idle, Closings::default());
                state.subscriber.forget_page();
                if self.has_bug(Bug::ClosedTimeIsForgotten) {
                    state.database.closed = BEGINNING;
                }
            }
            Step::CloseTime | Step::SampleWriters | Step::SamplePlace => {
                if state.sampler == Sampler::Idle && !state.subscriber.waits_for_watermark() {
                    state.watermarks -= 1;
                }
                self.sample(state, step);
                if let Sampler::Place { watermark } = state.sampler
                    && state.database.flushed < watermark.fence_lsn
                {
                    self.reach(Reached::WatermarkWaitedForDisk);
                }
            }
            Step::WatermarkHolds => self.watermark_holds(state),
            Step::Publish => state.feed.publish(),
            Step::LoseJournal => {
                state.epochs -= 1;
                state.feed.lose(&state.database);
                (state.sampler, state.closings) = (Sampler::Idle, Closings::default());
            }
            Step::MakeSlot => {
                // Its making writes to the log and waits for the disk.
                state.database.flushed = state.database.insert;
                state.feed.make_slot(&state.database);
            }
            Step::BeginEpoch => {
                if let Some(slot) = state.feed.slot {
                    state.feed.begin(slot, now);
                }
            }
            Step::Connect => {
                if state.subscriber.id != subscriber::Id::Beginning {
                    match state.subscriber.id {
                        subscriber::Id::Replay { .. } => self.reach(Reached::RoundResumed),
                        subscriber::Id::Feed(standing) if standing.cutover.is_some() => {
                            self.reach(Reached::CutoverResumed);
                        }
                        _ => {}
                    }
                }
                state.subscriber.connect(&state.feed, bug);
            }
            Step::ConnectSince => {
                if let Some(time) = state.subscriber.time {
                    state.subscriber.connect_since(time);
                }
            }
            Step::Cut => {
                state.cuts -= 1;
                state.subscriber.server = Server::Away;
            }
            Step::ReadPage => state.subscriber.read_page(&state.database),
            Step::SendPage(another) => self.send_page(state, another),
            Step::Follow => self.follow(state),
        }
    }

    fn watermark_holds(&self, state: &mut State) {
        let Sampler::Place { watermark } = std::mem::replace(&mut state.sampler, Sampler::Idle) else {
            return;
        };
        let unseen =
            |t: &Transaction| matches!(t, Transaction::Committed { lsn, .. } if *lsn < watermark.fence_lsn);
        if state.database.transactions.iter().any(unseen) {
            self.reach(Reached::CommitNotVisible);
        }
        state.feed.note(watermark, self.bug);
        let second = matches!(state.subscriber.server, Server::NextWatermark { .. });
        state.subscriber.watermark(watermark, self.rounds, &state.feed, self.bug);
        if second && matches!(state.subscriber.server, Server::Pages { .. }) {
            self.reach(Reached::SecondRound);
        }
    }

    fn send_page(&self, state: &mut State, another: bool) {
        let heard = state.subscriber.heard;
        state.subscriber.send_page(&state.database, &state.feed, another, self.bug);
        if state.subscriber.heard != heard
            && let Server::Pages { cursor, .. } = state.subscriber.server
            && cursor.tombstones
        {
            self.reach(Reached::TombstoneSent);
        }
    }

    fn follow(&self, state: &mut State) {
        let before = (state.subscriber.heard, state.subscriber.server);
        let time = state.subscriber.time;
        state.subscriber.follow_on(&state.database, &state.feed, self.bug);
        let (Server::Follows { standing: from, live: was_live }, Server::Follows { standing, live }) =
            (before.1, state.subscriber.server)
        else {
            return;
        };
        let passed = standing.position > from.position;
        let heard = state.subscriber.heard != before.0;
        if passed && !heard {
            self.reach(Reached::EntryDropped);
        }
        if passed && heard && was_live {
            self.reach(Reached::LiveDelivery);
        }
        if was_live && state.subscriber.time != time {
            self.reach(Reached::TimeTold);
        }
        if live && !was_live && !passed {
            if state.subscriber.heard != 0 {
                self.reach(Reached::PagesThenLive);
            }
            if state.feed.epoch > 0 {
                self.reach(Reached::ResetThenLive);
            }
        }
    }
}
