//! A database in a few hundred bytes: writers that stamp, commit and become visible as separate steps, a log that is
//! decoded later, watermarks and pages as the real one gives them.

use feed::{
    Answer, Batch, Before, Change, Kind, Lsn, Page, PageRequest, PageRows, Position, Sample, Scope, Source,
    Transaction, Watermark,
};
use fhir::{Filter, Instant, Patients, ResourceType, TypeSet};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(crate) type Key = (ResourceType, u8);

pub(crate) fn encounter() -> ResourceType {
    "Encounter".parse().unwrap()
}

/// Written last, and by nobody else. Every reader asks for its type.
pub(crate) const LAST: Key = (ResourceType::PATIENT, u8::MAX);

/// One version of a resource.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) key: Key,
    pub(crate) number: u64,
    pub(crate) stamp: i64,
    pub(crate) deleted: bool,
    /// To whom it belongs; if it is deleted, to whom it belonged.
    pub(crate) patients: Patients,
    /// To whom the version before it belonged, if that was there.
    pub(crate) before: Option<Patients>,
    /// Of a Group: its members, and the Groups that are nested in it.
    pub(crate) group: Option<Roster>,
    /// What it replaced, of a Group.
    group_before: Option<bytes::Bytes>,
    /// No version: the time from here on.
    tick: Option<i64>,
}

/// Who is in a Group: patients, each from a time to before a time, and other Groups.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    patients: Vec<(&'static str, i64, i64)>,
    nested: Vec<u8>,
}

/// The Group that readers ask for. It is never deleted.
pub(crate) const ROOT: u8 = 0;
const GROUPS: u8 = 3;

/// The members of a Group, if these are the newest versions; a tick says what time it is.
pub(crate) fn members<'a>(versions: impl Iterator<Item = &'a Version>) -> Vec<String> {
    let mut newest: BTreeMap<u8, &Version> = BTreeMap::new();
    let mut time = i64::MIN;
    for version in versions.filter(|version| version.key.0 == ResourceType::GROUP) {
        match version.tick {
            Some(tick) => time = tick,
            None => {
                newest.insert(version.key.1, version);
            }
        }
    }
    let (mut seen, mut found, mut members) = (Vec::new(), vec![ROOT], Vec::new());
    while let Some(id) = found.pop() {
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        if let Some(roster) =
            newest.get(&id).filter(|version| !version.deleted).and_then(|version| version.group.as_ref())
        {
            let now = roster.patients.iter().filter(|(_, from, until)| *from <= time && time < *until);
            members.extend(now.map(|(id, ..)| (*id).to_owned()));
            found.extend(&roster.nested);
        }
    }
    members
}

impl Version {
    /// Whether it is there and is what was asked for.
    pub(crate) fn is_in(&self, filter: &Filter) -> bool {
        !self.deleted && filter.matches(self.key.0) && filter.compartment.contains(&self.patients)
    }

    /// Whether what it replaced was.
    pub(crate) fn was_in(&self, filter: &Filter) -> bool {
        let before = self.before.as_ref();
        filter.matches(self.key.0) && before.is_some_and(|before| filter.compartment.contains(before))
    }

    /// Whether who asked for that hears of it.
    pub(crate) fn concerns(&self, filter: &Filter) -> bool {
        self.is_in(filter) || self.was_in(filter)
    }
}

#[derive(Clone, Debug)]
struct Open {
    started: i64,
    xid: u32,
    versions: Vec<Version>,
}

#[derive(Clone, Debug)]
struct Committed {
    open: Open,
    lsn: u64,
    visible: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) clock: i64,
    lsn: u64,
    xid: u32,
    number: u64,
    open: Vec<Open>,
    log: Vec<Committed>,
    /// What others can see.
    pub(crate) table: BTreeMap<Key, Version>,
    decoded: usize,
    /// Row messages of the transaction in decoding that were handed out.
    piece: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Database(pub(crate) Arc<Mutex<State>>);

impl State {
    pub(crate) fn tick(&mut self, micros: i64) {
        self.clock += micros;
    }

    /// A transaction begins, or an open one stamps a row that nobody else holds.
    pub(crate) fn write(&mut self, random: &mut fastrand::Rng, keys: u8) {
        if self.open.len() < 3 && random.bool() {
            self.xid += 1;
            self.open.push(Open { started: self.clock, xid: self.xid, versions: Vec::new() });
        }
        let Some(writer) = (!self.open.is_empty()).then(|| random.usize(..self.open.len())) else { return };
        let types = [ResourceType::PATIENT, encounter(), ResourceType::GROUP];
        let resource_type = types[random.usize(..10) / 4];
        let ids = if resource_type == ResourceType::GROUP { GROUPS } else { keys };
        let key = (resource_type, random.u8(..ids));
        let held = |versions: &[Version]| versions.iter().any(|version| version.key == key);
        let elsewhere = (0..self.open.len()).any(|other| other != writer && held(&self.open[other].versions));
        if elsewhere || self.log.iter().any(|done| !done.visible && held(&done.open.versions)) {
            return;
        }
        let own = self.open[writer].versions.iter().rev().find(|version| version.key == key);
        let before = own.or_else(|| self.table.get(&key));
        let exists = before.is_some_and(|before| !before.deleted);
        let stamp = before.map_or(self.clock, |before| self.clock.max(before.stamp + 1));
        self.clock = self.clock.max(stamp);
        self.number += 1;
        let group_before = before.filter(|before| exists && before.group.is_some()).map(data);
        let group = (resource_type == ResourceType::GROUP).then(|| some_group(random, self.clock));
        let before = before.filter(|_| exists).map(|before| before.patients.clone());
        let deleted = exists && key != (ResourceType::GROUP, ROOT) && random.u8(..4) == 0;
        let patients = match &before {
            _ if group.is_some() => Patients::none(),
            Some(before) if deleted || random.bool() => before.clone(),
            _ => Patients::from_ids(["a", "b", "c"].into_iter().filter(|_| random.u8(..3) == 0)),
        };
        let version = Version {
            key,
            number: self.number,
            stamp,
            deleted,
            patients,
            before,
            group,
            group_before,
            tick: None,
        };
        self.open[writer].versions.push(version);
    }

    pub(crate) fn commit(&mut self, random: &mut fastrand::Rng) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.swap_remove(random.usize(..self.open.len()));
        self.lsn += 10 + random.u64(..50);
        self.log.push(Committed { open, lsn: self.lsn, visible: false });
        self.lsn += 5;
    }

    /// A committed transaction becomes visible, in any order.
    pub(crate) fn reveal(&mut self, random: &mut fastrand::Rng) {
        let hidden: Vec<_> = (0..self.log.len()).filter(|index| !self.log[*index].visible).collect();
        if let Some(index) = (!hidden.is_empty()).then(|| hidden[random.usize(..hidden.len())]) {
            self.log[index].visible = true;
            for version in self.log[index].open.versions.clone() {
                self.table.insert(version.key, version);
            }
        }
    }

    pub(crate) fn settle(&mut self, random: &mut fastrand::Rng) {
        while !self.open.is_empty() {
            self.commit(random);
        }
        while self.log.iter().any(|done| !done.visible) {
            self.reveal(random);
        }
    }

    /// One more write, after all others: whoever is live and has it, has everything.
    pub(crate) fn write_last(&mut self, random: &mut fastrand::Rng) {
        self.settle(random);
        self.write_root(random);
        self.tick(1);
        self.xid += 1;
        self.number += 1;
        let version = Version {
            key: LAST,
            number: self.number,
            stamp: self.clock,
            deleted: false,
            patients: Patients::from_ids(["a", "b", "c"]),
            before: None,
            group: None,
            group_before: None,
            tick: None,
        };
        self.open.push(Open { started: self.clock, xid: self.xid, versions: vec![version] });
        self.settle(random);
    }

    /// Writes what time it is into the log.
    pub(crate) fn write_tick(&mut self) {
        self.xid += 1;
        self.number += 1;
        let version = Version {
            key: (ResourceType::GROUP, u8::MAX),
            number: self.number,
            stamp: self.clock,
            deleted: false,
            patients: Patients::none(),
            before: None,
            group: None,
            group_before: None,
            tick: Some(self.clock),
        };
        self.lsn += 10;
        let open = Open { started: self.clock, xid: self.xid, versions: vec![version] };
        self.log.push(Committed { open, lsn: self.lsn, visible: true });
        self.lsn += 5;
    }

    /// The Group that readers ask for has somebody in it, and another.
    pub(crate) fn write_root(&mut self, random: &mut fastrand::Rng) {
        self.settle(random);
        self.tick(1);
        self.xid += 1;
        self.number += 1;
        let key = (ResourceType::GROUP, ROOT);
        let before = self.table.get(&key);
        let stamp = before.map_or(self.clock, |before| self.clock.max(before.stamp + 1));
        let version = Version {
            key,
            number: self.number,
            stamp,
            deleted: false,
            patients: Patients::none(),
            before: before.map(|before| before.patients.clone()),
            group: Some(Roster {
                patients: vec![("a", i64::MIN, i64::MAX), ("b", i64::MIN, i64::MAX)],
                nested: vec![1],
            }),
            group_before: before.map(data),
            tick: None,
        };
        self.clock = self.clock.max(stamp);
        self.open.push(Open { started: self.clock, xid: self.xid, versions: vec![version] });
        self.settle(random);
    }

    /// The slot begins here, which waits for open transactions.
    pub(crate) fn create_slot(&mut self) -> (Lsn, Instant) {
        self.decoded = self.log.len();
        self.lsn += 1;
        (Lsn::new(self.lsn), Instant::from_unix_micros(self.clock))
    }

    pub(crate) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Replication begins again: what was not acknowledged comes once more, from its beginning.
    pub(crate) fn restart_from(&mut self, acknowledged: Lsn) {
        self.decoded = self.log.partition_point(|done| done.lsn + 5 <= acknowledged.get());
        self.piece = 0;
    }

    /// The next piece of the log: part of a transaction, several, or nothing but a keepalive.
    pub(crate) fn decode(&mut self, random: &mut fastrand::Rng) -> Batch {
        let mut batch = Batch::default();
        let mut room = random.usize(1..6);
        while room > 0 && self.decoded < self.log.len() {
            let done = &self.log[self.decoded];
            let commit_lsn = Lsn::new(done.lsn);
            let commit_time = Instant::from_unix_micros(done.open.started);
            let rest: Vec<_> = done.open.versions.iter().enumerate().skip(self.piece).take(room).collect();
            if !rest.is_empty() {
                batch.transactions.push(Transaction { commit_lsn, xid: done.open.xid, commit_time });
            }
            for (ordinal, version) in &rest {
                let position = Position { commit_lsn, ordinal: *ordinal as u64, part: 0 };
                batch.changes.push(change(version, position));
            }
            room -= rest.len();
            self.piece += rest.len();
            if self.piece == done.open.versions.len() {
                batch.passed = Some(Lsn::new(done.lsn + 5));
                self.decoded += 1;
                self.piece = 0;
                room = room.saturating_sub(1);
            }
        }
        if self.decoded == self.log.len() {
            batch.passed = Some(Lsn::new(self.lsn));
        }
        batch
    }

    pub(crate) fn all_decoded(&self) -> bool {
        self.decoded == self.log.len()
    }

    /// Every version in the order of the log.
    pub(crate) fn log(&self) -> Vec<Version> {
        self.log.iter().flat_map(|done| done.open.versions.clone()).collect()
    }

    pub(crate) fn watermark(&self) -> Watermark {
        let open =
            self.open.iter().chain(self.log.iter().filter(|done| !done.visible).map(|done| &done.open));
        let safe_time = open.map(|open| open.started).chain([self.clock]).min().unwrap_or(0) - 1;
        Watermark { safe_time: Instant::from_unix_micros(safe_time), fence_lsn: Lsn::new(self.lsn) }
    }

    fn page(&self, request: &PageRequest, out: &mut dyn PageRows) -> Page {
        let mut rows: Vec<_> = self
            .table
            .values()
            .filter(|version| version.key.0 == request.resource_type)
            .filter(|version| version.deleted == (request.kind == Kind::Deletion))
            .map(|version| (Instant::from_unix_micros(version.stamp), version))
            .filter(|(stamp, _)| request.since.is_none_or(|since| *stamp > since) && *stamp <= request.until)
            .map(|(stamp, version)| (stamp, Box::<str>::from(version.key.1.to_string()), version))
            .collect();
        rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        rows.retain(|row| request.after.as_ref().is_none_or(|after| (row.0, &row.1) > (after.0, &after.1)));
        let more = rows.len() > 2;
        rows.truncate(2);
        let next = rows.last().filter(|_| more).map(|row| (row.0, row.1.clone()));
        for (stamp, id, version) in &rows {
            // What cannot be streamed is passed over, half written or not at all.
            for good in [false, true] {
                let wanted = |scope: &Scope| (scope.wants)(id, &version.patients);
                let wanted = request.scope.as_ref().is_none_or(wanted);
                out.row(*stamp, id, &mut |out| {
                    let data = if version.deleted { deletion(version) } else { data(version) };
                    out.extend_from_slice(&data);
                    good && wanted
                });
            }
        }
        Page { expected: Some(rows.len()), next, large: None }
    }
}

fn change(version: &Version, position: Position) -> Change {
    if let Some(time) = version.tick {
        return Change::tick(position, Instant::from_unix_micros(time));
    }
    Change {
        position,
        stamp: Instant::from_unix_micros(version.stamp),
        resource_type: version.key.0,
        kind: if version.deleted { Kind::Deletion } else { Kind::Upsert },
        patients: if version.deleted { Patients::none() } else { version.patients.clone() },
        before: version.before.clone().map_or(Before::Nothing, Before::Patients),
        group_before: version.group_before.clone(),
        tick: None,
        data: if version.deleted { deletion(version) } else { data(version) },
    }
}

/// Some members, some of them for a time, and some Groups in it.
fn some_group(random: &mut fastrand::Rng, now: i64) -> Roster {
    let mut patients = Vec::new();
    for id in ["a", "b", "c", "d"] {
        if random.bool() {
            let from = if random.u8(..4) == 0 { now + random.i64(-20..60) } else { i64::MIN };
            let until = if random.u8(..4) == 0 { now + random.i64(-20..60) } else { i64::MAX };
            patients.push((id, from, until));
        }
    }
    Roster { patients, nested: (0..GROUPS).filter(|_| random.u8(..3) == 0).collect() }
}

/// What a deletion is streamed as; with its number.
fn deletion(version: &Version) -> bytes::Bytes {
    let Version { key: (resource_type, id), number, .. } = version;
    format!(
        r#"{{"number":{number},"entry":[{{"request":{{"method":"DELETE","url":"{resource_type}/{id}"}}}}]}}"#
    )
    .into()
}

fn data(version: &Version) -> bytes::Bytes {
    let Version { key: (resource_type, id), number, deleted, .. } = version;
    if let Some(Roster { patients, nested }) = &version.group {
        let period = |from: i64, until: i64| {
            let bound = |name: &str, open: bool, at: i64| match open {
                true => String::new(),
                false => format!(r#","{name}":"{}""#, Instant::from_unix_micros(at)),
            };
            let start = bound("start", from == i64::MIN, from);
            // The end that is written is the last moment.
            let end = bound("end", until == i64::MAX, until - 1);
            format!(r#""period":{{"id":"x"{start}{end}}},"#)
        };
        let patients = patients.iter().map(|(id, from, until)| {
            format!(r#"{{{}"entity":{{"reference":"Patient/{id}"}}}}"#, period(*from, *until))
        });
        let nested = nested.iter().map(|id| format!(r#"{{"entity":{{"reference":"Group/{id}"}}}}"#));
        let members = patients.chain(nested).collect::<Vec<_>>().join(",");
        return format!(
            r#"{{"id":"{id}","resourceType":"Group","number":{number},"deleted":false,"type":"person","actual":true,"member":[{members}]}}"#
        )
        .into();
    }
    format!(r#"{{"id":"{id}","resourceType":"{resource_type}","number":{number},"deleted":{deleted}}}"#)
        .into()
}

impl Source for Database {
    fn watermark(&self) -> Answer<'_, Sample> {
        let state = self.0.lock().unwrap();
        let watermark = state.watermark();
        let taken = tokio::time::Instant::now();
        Box::pin(async move { Ok(Sample { watermark, taken, tombstones_purged: None }) })
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn present(
        &self,
        since: Option<Instant>,
        _: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        let state = self.0.lock().unwrap();
        let after = |version: &&Version| since.is_none_or(|since| version.stamp > since.unix_micros());
        let kind = |version: &Version| if version.deleted { Kind::Deletion } else { Kind::Upsert };
        let mut present: Vec<_> =
            state.table.values().filter(after).map(|version| (kind(version), version.key.0)).collect();
        present.dedup();
        Box::pin(async move { Ok(present) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        let state = self.0.lock().unwrap();
        let version = state.table.get(&(ResourceType::GROUP, id.parse().unwrap()));
        let group = version.filter(|version| !version.deleted).map(data);
        Box::pin(async move { Ok(group) })
    }

    fn are_most(&self, patients: usize) -> Answer<'_, bool> {
        // It depends on what is stored at the moment.
        let most = (self.0.lock().unwrap().clock + i64::try_from(patients).unwrap()) % 3 == 0;
        Box::pin(async move { Ok(most) })
    }

    fn tick(&self) -> Answer<'_, ()> {
        self.0.lock().unwrap().write_tick();
        Box::pin(async { Ok(()) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        let page = self.0.lock().unwrap().page(&request, rows);
        Box::pin(async move { Ok(page) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

/// What a subscriber heard of a resource.
pub(crate) enum Heard {
    /// A version, or a deletion, by its number.
    Version { number: u64, deleted: bool },
    /// That it left, at this time.
    Left(Instant),
}

pub(crate) fn parse(data: &str) -> (Key, Heard) {
    let read: serde_json::Value = serde_json::from_str(data).unwrap();
    if let Some(url) = read["entry"][0]["request"]["url"].as_str() {
        let (resource_type, id) = url.split_once('/').unwrap();
        if let Some(number) = read["number"].as_u64() {
            let key = (resource_type.parse().unwrap(), id.parse().unwrap());
            return (key, Heard::Version { number, deleted: true });
        }
        assert_eq!(read["meta"]["tag"][0]["code"], "out-of-scope");
        let at = read["meta"]["lastUpdated"].as_str().unwrap().parse().unwrap();
        return ((resource_type.parse().unwrap(), id.parse().unwrap()), Heard::Left(at));
    }
    let text = |name: &str| read[name].as_str().unwrap();
    let key = (text("resourceType").parse().unwrap(), text("id").parse().unwrap());
    let (number, deleted) = (read["number"].as_u64().unwrap(), read["deleted"].as_bool().unwrap());
    (key, Heard::Version { number, deleted })
}
