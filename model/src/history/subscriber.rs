//! A subscriber: pages up to a watermark, rounds, the cutover to the feed, following; its client with the last id it got.
//!
//! The service keeps nothing of a subscriber beyond its connection, so what was sent and is still on its way when the
//! connection is lost is as if it had not been sent: an event and its arrival are one step.

use super::clock::{BEGINNING, FAR_AHEAD, Instant};
use super::database::{Database, Lsn, Row, TRANSACTIONS};
use super::feed::Feed;
use super::watermark::Watermark;
use crate::Bug;

/// Keys of all scenarios.
pub const KEYS: usize = 2;

/// A round of pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Round {
    /// Of which epoch.
    pub epoch: u8,
    /// Only what was stamped after it; [`BEGINNING`]: all, and no tombstones.
    pub since: Instant,
    /// Its upper bound, and where the feed takes over.
    pub watermark: Watermark,
}

/// A place among the pages: of the rows or of the tombstones, after the last that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// Whether the rows are done.
    pub tombstones: bool,
    /// Stamp and key of the last one.
    pub after: Option<(Instant, u8)>,
}

/// A place in the feed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Standing {
    /// Of which epoch.
    pub epoch: u8,
    /// Everything committed before it was passed.
    pub position: Lsn,
    /// From where a reset goes on.
    pub safe_time: Instant,
    /// Until the feed has passed its fence LSN.
    pub cutover: Option<Watermark>,
}

/// What an event id says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Id {
    /// From the request's beginning.
    Beginning,
    /// Within the pages.
    Replay {
        /// Of this round.
        round: Round,
        /// After this row.
        cursor: Cursor,
    },
    /// In the feed.
    Feed(Standing),
}

/// A page of one row, or none if there are no more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Page {
    /// The row, and whose it is.
    pub row: Option<(usize, Row)>,
    /// Where the log ended when it had been read: it may have seen everything before.
    pub seen: Lsn,
}

/// What the service does for the subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Server {
    /// It is not connected.
    Away,
    /// Waits for the first watermark.
    FirstWatermark {
        /// The lower bound.
        since: Instant,
    },
    /// Reads pages.
    Pages {
        /// Of this round.
        round: Round,
        /// From here on.
        cursor: Cursor,
        /// Rounds that may follow: none one that was resumed.
        rounds: u8,
        /// A page that was read and is not sent yet.
        page: Option<Page>,
    },
    /// The pages are done, and the next watermark decides whether there is another round.
    NextWatermark {
        /// The round before.
        round: Round,
        /// See `Pages`.
        rounds: u8,
    },
    /// A resumed round that takes a watermark anew (a seeded mistake).
    OtherWatermark {
        /// The round.
        round: Round,
        /// The cursor.
        cursor: Cursor,
    },
    /// Follows the feed.
    Follows {
        /// From here.
        standing: Standing,
        /// Whether `live` was said.
        live: bool,
    },
}

/// The subscriber and what it heard.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subscriber {
    /// What is done for it.
    pub server: Server,
    /// The id of the last event.
    pub id: Id,
    /// The request's `_since`.
    pub since: Instant,
    /// If that was far ahead: only what was committed from this place on was asked for.
    pub from: Option<Lsn>,
    /// What `live`, or `position` after it, said to use as the next `_since`.
    pub time: Option<Instant>,
    /// What it heard since it began or was reset, as bits.
    pub heard: u8,
    /// What it has of each key: the transaction whose row it heard last.
    pub has: [Option<u8>; KEYS],
    /// Something came twice.
    pub twice: bool,
    /// A version came after a newer one.
    pub backwards: bool,
}

impl Subscriber {
    pub(crate) fn new(since: Instant) -> Self {
        Self {
            server: Server::Away,
            id: Id::Beginning,
            since,
            from: None,
            time: None,
            heard: 0,
            has: [None; KEYS],
            twice: false,
            backwards: false,
        }
    }

    /// Comes back with its last id.
    pub(crate) fn connect(&mut self, feed: &Feed, bug: Option<Bug>) {
        let floor = feed.begins.map(|(_, since)| since);
        self.server = match self.id {
            Id::Beginning => Server::FirstWatermark { since: self.since },
            Id::Replay { round, .. }
                if round.epoch != feed.epoch
                    || floor.is_none_or(|floor| floor > round.watermark.safe_time) =>
            {
                self.reset(round.since)
            }
            Id::Replay { round, cursor } if bug == Some(Bug::ResumeWithNewWatermark) => {
                Server::OtherWatermark { round, cursor }
            }
            Id::Replay { round, cursor } => Server::Pages { round, cursor, rounds: 0, page: None },
            Id::Feed(standing) => self.follow(standing, feed),
        };
    }

    /// Begins anew, with `_since` as `live` told it.
    pub(crate) fn connect_since(&mut self, since: Instant) {
        (self.id, self.since, self.from, self.heard) = (Id::Beginning, since, None, 0);
        self.server = Server::FirstWatermark { since };
    }

    /// The newest state of all that changed follows: what was heard may come again.
    fn reset(&mut self, since: Instant) -> Server {
        self.heard = 0;
        Server::FirstWatermark { since }
    }

    fn follow(&mut self, standing: Standing, feed: &Feed) -> Server {
        if standing.epoch == feed.epoch {
            Server::Follows { standing, live: false }
        } else {
            self.reset(standing.safe_time)
        }
    }

    /// A watermark that holds, while one is waited for.
    pub(crate) fn watermark(&mut self, watermark: Watermark, rounds: u8, feed: &Feed, bug: Option<Bug>) {
        let epoch = feed.epoch;
        let rows = Cursor { tombstones: false, after: None };
        match self.server {
            Server::FirstWatermark { since } => {
                let begins = feed.begins.map_or(Instant::MAX, |(_, since)| since);
                if watermark.safe_time < begins && bug != Some(Bug::ReplayBeforeJournalBegins) {
                    return;
                }
                if since != BEGINNING && since >= watermark.safe_time {
                    let cutover = Watermark { safe_time: since, fence_lsn: watermark.fence_lsn };
                    self.from = (since == FAR_AHEAD).then_some(watermark.fence_lsn);
                    self.cutover(epoch, cutover, watermark.safe_time, feed, bug);
                } else {
                    let round = Round { epoch, since, watermark };
                    self.server = Server::Pages { round, cursor: rows, rounds, page: None };
                }
            }
            Server::NextWatermark { round, rounds } => {
                if watermark.safe_time <= round.watermark.safe_time {
                    self.cutover(round.epoch, round.watermark, round.watermark.safe_time, feed, bug);
                } else {
                    let round = Round { since: round.watermark.safe_time, watermark, ..round };
                    self.server = Server::Pages { round, cursor: rows, rounds: rounds - 1, page: None };
                }
            }
            Server::OtherWatermark { round, cursor } => {
                let round = Round { watermark, ..round };
                self.server = Server::Pages { round, cursor, rounds: 0, page: None };
            }
            Server::Away | Server::Pages { .. } | Server::Follows { .. } => {}
        }
    }

    /// Whether a watermark is waited for.
    pub(crate) fn waits_for_watermark(&self) -> bool {
        matches!(
            self.server,
            Server::FirstWatermark { .. } | Server::NextWatermark { .. } | Server::OtherWatermark { .. }
        )
    }

    /// Reads the next page.
    pub(crate) fn read_page(&mut self, database: &Database) {
        if let Server::Pages { round, cursor, page, .. } = &mut self.server {
            // There are two keys.
            #[allow(clippy::cast_possible_truncation)]
            let keys = KEYS as u8;
            let row = database.next_row(
                cursor.tombstones,
                round.since,
                round.watermark.safe_time,
                cursor.after,
                keys,
            );
            *page = Some(Page { row, seen: database.insert });
        }
    }

    /// The connection that read a page and still waits for the disk is lost with the database.
    pub(crate) fn forget_page(&mut self) {
        if let Server::Pages { page, .. } = &mut self.server {
            *page = None;
        }
    }

    /// Sends the page that was read, or goes on where there are no more.
    pub(crate) fn send_page(
        &mut self,
        database: &Database,
        feed: &Feed,
        another_round: bool,
        bug: Option<Bug>,
    ) {
        let Server::Pages { round, cursor, rounds, page: Some(page) } = self.server else { return };
        let cursor = match page.row {
            Some((version, row)) => {
                let cursor = Cursor { after: Some((row.stamp, row.key)), ..cursor };
                self.hear(version, row.key, database);
                self.id = Id::Replay { round, cursor };
                cursor
            }
            None if !cursor.tombstones && round.since != BEGINNING => {
                Cursor { tombstones: true, after: None }
            }
            None => {
                if another_round {
                    self.server = Server::NextWatermark { round, rounds };
                } else {
                    self.cutover(round.epoch, round.watermark, round.watermark.safe_time, feed, bug);
                }
                return;
            }
        };
        self.server = Server::Pages { round, cursor, rounds, page: None };
    }

    /// Over to the feed. It is read from the beginning of the journal on: what lies before the first entry on the feed's
    /// side is dropped as all on the other side is.
    fn cutover(&mut self, epoch: u8, cutover: Watermark, safe_time: Instant, feed: &Feed, bug: Option<Bug>) {
        self.server = match feed.begins {
            Some((begins, since))
                if epoch == feed.epoch
                    && (since <= cutover.safe_time && begins <= cutover.fence_lsn
                        || bug == Some(Bug::ReplayBeforeJournalBegins)) =>
            {
                let standing = Standing { epoch, position: begins, safe_time, cutover: Some(cutover) };
                Server::Follows { standing, live: false }
            }
            _ => self.reset(safe_time),
        };
    }

    /// The next entry of the feed, or `live` at its end.
    pub(crate) fn follow_on(&mut self, database: &Database, feed: &Feed, bug: Option<Bug>) {
        let Server::Follows { mut standing, live } = self.server else { return };
        if standing.epoch != feed.epoch {
            self.server = self.reset(standing.safe_time);
            return;
        }
        if standing.position < feed.published {
            let lsn = standing.position;
            standing.position += 1;
            standing.safe_time = standing.safe_time.max(feed.entry_safe_time[usize::from(lsn)]);
            let wanted = database.at(lsn).filter(|(_, row)| {
                standing.cutover.is_none_or(|cutover| cutover.leaves_to_feed(row.stamp, lsn, bug))
            });
            if let Some(cutover) = standing.cutover
                && lsn > cutover.fence_lsn
            {
                standing.cutover = None;
            }
            if let Some((version, row)) = wanted {
                self.hear(version, row.key, database);
                self.id = Id::Feed(standing);
            }
            self.server = Server::Follows { standing, live };
            return;
        }
        if standing.cutover.is_some_and(|cutover| feed.published >= cutover.fence_lsn) {
            standing.cutover = None;
        }
        if standing.cutover.is_none() && !live {
            self.time = Some(standing.safe_time.max(feed.passed_safe_time));
            self.id = Id::Feed(standing);
            self.server = Server::Follows { standing, live: true };
        } else {
            self.tell_time(standing, live, feed, bug);
            self.server = Server::Follows { standing, live };
        }
    }

    /// `position`, or another notice to a stream that is at the feed's end.
    fn tell_time(&mut self, standing: Standing, live: bool, feed: &Feed, bug: Option<Bug>) {
        if let Some(time) = self.next_time(standing, live, feed, bug) {
            self.time = Some(time);
            self.id = Id::Feed(standing);
        }
    }

    /// The time that such a notice would tell, if it is a later one.
    fn next_time(&self, standing: Standing, live: bool, feed: &Feed, bug: Option<Bug>) -> Option<Instant> {
        let newest = feed
            .watermark
            .filter(|_| bug == Some(Bug::PositionHasNewestSafeTime))
            .map(|watermark| watermark.safe_time);
        let time = standing.safe_time.max(newest.unwrap_or(feed.passed_safe_time));
        (live && self.time.is_none_or(|told| told < time)).then_some(time)
    }

    /// Whether [`follow_on`](Self::follow_on) has something to do.
    pub(crate) fn can_follow(&self, feed: &Feed, bug: Option<Bug>) -> bool {
        let Server::Follows { standing, live } = self.server else { return false };
        standing.epoch != feed.epoch
            || standing.position < feed.published
            || standing.cutover.is_some_and(|cutover| feed.published >= cutover.fence_lsn)
            || (standing.cutover.is_none() && !live)
            || self.next_time(standing, live, feed, bug).is_some()
    }

    fn hear(&mut self, version: usize, key: u8, database: &Database) {
        debug_assert!(version < TRANSACTIONS);
        // Versions are numbered as they are stamped, and told as they are committed.
        let stamp = |version: usize| database.transactions[version].committed().map(|(row, _)| row.stamp);
        let before = self.has[usize::from(key)].map(usize::from);
        if let Some(before) = before
            && self.heard & 1 << before != 0
            && before != version
            && (database.place(before) > database.place(version) || stamp(before) >= stamp(version))
        {
            self.backwards = true;
        }
        self.twice |= self.heard & 1 << version != 0;
        self.heard |= 1 << version;
        // There are fewer than 256.
        #[allow(clippy::cast_possible_truncation)]
        (self.has[usize::from(key)] = Some(version as u8));
    }
}
