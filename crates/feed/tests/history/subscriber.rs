//! A reader that is cut at any frame and comes back with its last id, and the checks of what it hears.

use crate::database::{Database, Heard, Key, LAST, ROOT, Version, members, parse};
use feed::{Begin, EventId, Feed, Item, Notice, Subscription};
use fhir::{Compartment, Filter, Instant, ResourceType};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub(crate) struct Reader {
    filter: Filter,
    subscription: Option<Subscription>,
    /// Frames of the last chunk that were not looked at yet: a cut may fall between any two.
    frames: VecDeque<String>,
    last_id: Option<String>,
    since: Option<Instant>,
    /// The newest version heard of each key, and whether it is there.
    heard: BTreeMap<Key, (u64, bool)>,
    /// What was heard since `live`, in order.
    live: Option<Vec<u64>>,
    /// The last `transactionTime`.
    told: Option<Instant>,
    /// It came back with that, so that it hears again of what it had heard since: the versions that it has heard now.
    again: Option<BTreeMap<Key, (u64, bool)>>,
    /// So often it was told to drop what does not come again, since nobody knew who was a member then.
    pub(crate) unknown: usize,
    /// So often it came back with a `_since`.
    pub(crate) by_since: usize,
    name: usize,
}

impl Reader {
    pub(crate) fn new(filter: Filter, database: &Database, name: usize) -> Self {
        // Every other one knows the state of some moment, as a client with a `_since` does; which is not told what left a scope
        // before it came.
        let (mut since, mut heard) = (None, BTreeMap::new());
        if name.is_multiple_of(2) && !filter.is_scoped() {
            let state = database.0.lock().unwrap();
            let safe_time = state.watermark().safe_time;
            let known: Vec<Version> =
                state.log().into_iter().filter(|v| v.stamp <= safe_time.unix_micros()).collect();
            for version in known.iter().filter(|version| filter.matches(version.key.0)) {
                heard.insert(version.key, (version.number, !version.deleted));
            }
            since = Some(safe_time);
        }
        Self {
            filter,
            subscription: None,
            frames: VecDeque::new(),
            last_id: None,
            since,
            heard,
            live: None,
            told: None,
            again: None,
            unknown: 0,
            by_since: 0,
            name,
        }
    }

    /// It comes back with the last `transactionTime` instead of its id.
    pub(crate) fn forget_id(&mut self) {
        if let (true, Some(told)) = (self.is_group(), self.told) {
            (self.since, self.last_id, self.again) = (Some(told), None, Some(BTreeMap::new()));
            (self.live, self.by_since) = (None, self.by_since + 1);
        }
    }

    /// Reads some frames, or fewer if nothing comes.
    pub(crate) async fn read(
        &mut self,
        feed: &Feed,
        database: &Database,
        frames: usize,
        random: &mut fastrand::Rng,
    ) {
        for _ in 0..frames {
            if !self.frame(feed, database, Duration::from_millis(random.u64(..4))).await {
                break;
            }
        }
    }

    /// The connection is lost, whatever of a chunk had arrived.
    pub(crate) fn cut(&mut self, database: &Database, random: &mut fastrand::Rng) {
        if random.bool() {
            self.subscription = None;
            self.frames.clear();
        } else {
            // The client took what it had before it noticed.
            while let Some(frame) = self.frames.pop_front() {
                self.hear(&frame, database);
            }
            self.subscription = None;
        }
        if random.bool() {
            self.forget_id();
        }
    }

    async fn frame(&mut self, feed: &Feed, database: &Database, patience: Duration) -> bool {
        if let Some(frame) = self.frames.pop_front() {
            self.hear(&frame, database);
            return true;
        }
        let subscription = self.subscription.get_or_insert_with(|| {
            let begin = match &self.last_id {
                Some(id) => Begin::After { id: Some(id.parse::<EventId>().unwrap()), since: self.since },
                None => Begin::Since(self.since),
            };
            feed.subscribe(self.filter.clone(), begin)
        });
        let Ok(item) = tokio::time::timeout(patience, subscription.next()).await else { return false };
        match item.unwrap() {
            Item::Frames(frames) => {
                let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
                self.frames.extend(text.lines().map(str::to_owned));
                assert_eq!(frames.counts.total(), self.frames.len() as u64);
            }
            Item::Notice(
                notice @ (Notice::Live { transaction_time }
                | Notice::Position { transaction_time }
                | Notice::Stale { transaction_time }
                | Notice::Fresh { transaction_time }),
            ) => {
                self.last_id = Some(subscription.id().to_string());
                self.told = Some(transaction_time);
                if matches!(notice, Notice::Live { .. }) {
                    self.live.get_or_insert_default();
                }
                self.has_all(transaction_time, database);
            }
            Item::Notice(Notice::Members { .. }) => self.last_id = Some(subscription.id().to_string()),
            Item::Notice(Notice::ResetAll { reason })
                // Rather than many removals.
                if reason.starts_with("most members")
                    || (reason.starts_with("it is no longer known who") && self.again.is_some()) =>
            {
                self.unknown += usize::from(!reason.starts_with("most members"));
                self.last_id = Some(subscription.id().to_string());
                self.heard.values_mut().for_each(|heard| *heard = (0, false));
                self.again = self.again.take().map(|_| BTreeMap::new());
            }
            Item::Notice(notice) => panic!("reader {}: {notice:?} without a reason", self.name),
            Item::Waiting(_) => {}
        }
        true
    }

    /// What a `_since` of this instant leaves out was heard, or something newer of the same key. A key that
    /// has a version after the instant is not left out: pages may have skipped the earlier one for it.
    fn has_all(&self, until: Instant, database: &Database) {
        if self.is_group() {
            return;
        }
        let mut newest: BTreeMap<Key, Version> = BTreeMap::new();
        for version in database.0.lock().unwrap().log() {
            if version.concerns(&self.filter)
                && newest.get(&version.key).is_none_or(|known| known.number < version.number)
            {
                newest.insert(version.key, version);
            }
        }
        newest.retain(|_, version| version.stamp <= until.unix_micros());
        for (key, version) in newest {
            let heard = self.heard.get(&key).map(|(number, _)| *number);
            // Of what was gone before it began a reader hears nothing.
            assert!(
                heard >= Some(version.number) || (!version.is_in(&self.filter) && heard.is_none()),
                "reader {}: {key:?} of {until}: {heard:?} instead of {version:?}",
                self.name
            );
        }
    }

    fn hear(&mut self, frame: &str, database: &Database) {
        if self.is_group() {
            return self.hear_of_member(frame, database);
        }
        let mut parts = frame.split('|');
        let mut part = || parts.next().unwrap();
        let (id, event, data) = (part().to_owned(), part(), part());
        let (key, heard) = parse(data);
        assert!(self.filter.matches(key.0), "{key:?} was not asked for");
        let log = database.0.lock().unwrap().log();
        let is = |version: &&Version| match heard {
            Heard::Version { number, .. } => version.number == number,
            Heard::Left(at) => version.key == key && version.stamp == at.unix_micros(),
        };
        let version = log.iter().find(is).expect("a version that was written");
        let (number, deleted) = (version.number, event == "Bundle");
        match heard {
            Heard::Version { deleted: told, .. } => {
                assert_eq!((deleted, version.deleted), (told, told));
                assert!(version.deleted || version.is_in(&self.filter), "{version:?} is somebody else's");
            }
            Heard::Left(_) => {
                assert!(deleted && !version.deleted && !version.is_in(&self.filter), "{version:?}");
                assert!(version.was_in(&self.filter), "{version:?} never was in the scope");
            }
        }
        let before = self.heard.insert(key, (number, !deleted));
        assert!(
            before.is_none_or(|(before, _)| before < number),
            "reader {}: {key:?} version {number} after {before:?}",
            self.name
        );
        if let Some(live) = &mut self.live {
            live.push(number);
        }
        self.last_id = Some(id);
    }

    pub(crate) fn is_group(&self) -> bool {
        matches!(self.filter.compartment, Compartment::Group { .. })
    }

    /// A version is of somebody who was a member then, or is when it comes; and comes once, until it is taken back.
    fn hear_of_member(&mut self, frame: &str, database: &Database) {
        let mut parts = frame.split('|');
        let mut part = || parts.next().unwrap();
        let (id, event, data) = (part().to_owned(), part(), part());
        self.last_id = Some(id);
        let (key, heard) = parse(data);
        assert!(self.filter.matches(key.0), "{key:?} was not asked for");
        let there = event != "Bundle";
        let before = match &self.again {
            None => self.heard.get(&key).copied(),
            Some(again) => again.get(&key).copied(),
        };
        let number = match heard {
            Heard::Left(_) => before.map_or(0, |(number, _)| number),
            Heard::Version { number, .. } => number,
        };
        if there {
            assert!(
                before.is_none_or(|(before, there)| before < number || (before == number && !there)),
                "reader {}: {key:?} version {number} after {before:?}",
                self.name
            );
            let log = database.0.lock().unwrap().log();
            let at = log.iter().position(|version| version.number == number).unwrap();
            let is_member = |end: usize| {
                let members = members(log[..=end].iter());
                members.iter().any(|id| log[at].patients.contains(id))
            };
            assert!(
                key == (ResourceType::GROUP, ROOT) || (at..log.len()).any(is_member),
                "reader {}: {:?} is nobody's who was a member since",
                self.name,
                log[at]
            );
        }
        self.heard.insert(key, (number, there));
        if let Some(again) = &mut self.again {
            again.insert(key, (number, there));
        }
    }

    /// Reads until what was heard is what the tables have of the Group's members.
    pub(crate) async fn finish_group(&mut self, feed: &Feed, database: &Database) {
        let (table, log) = {
            let state = database.0.lock().unwrap();
            (state.table.clone(), state.log())
        };
        let members = members(log.iter());
        let is_member = |version: &&Version| members.iter().any(|id| version.patients.contains(id));
        let itself = |version: &&Version| version.key == (ResourceType::GROUP, ROOT);
        let wanted: BTreeMap<Key, u64> = table
            .values()
            .filter(|version| !version.deleted && self.filter.matches(version.key.0))
            .filter(|version| is_member(version) || itself(version))
            .map(|version| (version.key, version.number))
            .collect();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let mut quiet = 0;
        while quiet < 3 || self.live.is_none() || self.there() != wanted {
            let came = self.frame(feed, database, Duration::from_millis(20)).await;
            quiet = if came { 0 } else { quiet + 1 };
            assert!(
                tokio::time::Instant::now() < deadline,
                "reader {}: has {:?} and not {wanted:?}, live: {}",
                self.name,
                self.there(),
                self.live.is_some()
            );
        }
    }

    /// Reads until the last version of all has come, then compares.
    pub(crate) async fn finish(&mut self, feed: &Feed, database: &Database) {
        let (table, log) = {
            let state = database.0.lock().unwrap();
            (state.table.clone(), state.log())
        };
        let wanted: BTreeMap<Key, u64> = table
            .values()
            .filter(|version| version.is_in(&self.filter))
            .map(|version| (version.key, version.number))
            .collect();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while self.live.is_none() || !self.frames.is_empty() || !self.heard.contains_key(&LAST) {
            self.frame(feed, database, Duration::from_millis(100)).await;
            assert!(
                tokio::time::Instant::now() < deadline,
                "reader {}: has {:?} and not {wanted:?}, live: {}",
                self.name,
                self.there(),
                self.live.is_some()
            );
        }
        assert_eq!(self.there(), wanted, "reader {}", self.name);
        // Nothing may follow.
        assert!(!self.frame(feed, database, Duration::from_millis(20)).await || self.frames.is_empty());
        let live = self.live.as_deref().unwrap_or_default();
        if let Some(first) = live.first() {
            let order: Vec<_> = log
                .iter()
                .filter(|version| version.concerns(&self.filter))
                .map(|version| version.number)
                .skip_while(|number| number != first)
                .collect();
            assert_eq!(live, order, "reader {}: every version in the order of the log", self.name);
        }
    }

    fn there(&self) -> BTreeMap<Key, u64> {
        self.heard.iter().filter(|(_, heard)| heard.1).map(|(key, heard)| (*key, heard.0)).collect()
    }
}
