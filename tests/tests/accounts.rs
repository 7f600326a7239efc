//! An account of every event that was sent to every subscriber of patients and Groups: while members change, a synchronous
//! standby comes and goes (so that commits are in the log, and are seen by nobody), and the service is killed.
//!
//! Each run prints its seed. `FHIR_TAIL_TEST_SEED` repeats the choices of one, `FHIR_TAIL_TEST_SECONDS` makes it longer.

use crate::members::{copy, group, in_tables, no_version_twice};
use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::{
    Address, Case, Client, Context, Cut, Ended, Heard, History, Process, Reader, SOON, Site, Subscribe, What,
    cases, seconds, seed, until,
};
use tokio::time::{Instant, sleep, timeout};

pub(crate) fn cases() -> Vec<Case> {
    cases![each every_event_to_every_subscriber]
}

/// `p0` to `p7`. The last one is nobody's member, ever.
const PATIENTS: usize = 8;
/// Stands in a Group's mask for the Group that is nested in it.
const NESTED: u8 = 1 << 7;
const NOTES: u8 = 24;
const SECONDS: u64 = 15;

/// A subscriber, and when it heard what.
struct Listener {
    reader: Reader,
    whose: Whose,
    /// Microseconds since 1970, for each event.
    times: Vec<i64>,
    /// It comes back with an instant now and then, instead of its id.
    by_since: bool,
}

/// What it asks for.
#[derive(Clone, Copy)]
enum Whose {
    Group,
    /// Of these patients, a bit for each.
    Patients(u8),
}

fn micros_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

impl Listener {
    fn new(whose: Whose, client: Client, by_since: bool) -> Self {
        let mut subscribe = match whose {
            Whose::Group => group("g", "_type=Patient,Basic"),
            Whose::Patients(mask) => {
                let ids: Vec<_> =
                    (0..PATIENTS).filter(|n| mask & 1 << n != 0).map(|n| format!("p{n}")).collect();
                let path = "/fhir/Patient/$export".to_owned();
                Subscribe { path, ..Subscribe::with(client, &format!("patient={}", ids.join(","))) }
            }
        };
        subscribe.client = client;
        Self { reader: Reader::new(subscribe), whose, times: Vec::new(), by_since }
    }

    /// Reads until this is so, the connection is cut or lost, or the time is over.
    async fn read(
        &mut self,
        address: &Address,
        cut: Cut,
        limit: Duration,
        done: impl Fn(&Reader) -> bool,
    ) -> Option<Ended> {
        let Some(at) = address.now() else {
            sleep(Duration::from_millis(20)).await;
            return None;
        };
        let times = &mut self.times;
        let read = self.reader.read(at, cut, |reader| {
            times.resize(reader.heard.len(), micros_now());
            done(reader)
        });
        let ended = timeout(limit, read).await.ok();
        self.times.resize(self.reader.heard.len(), micros_now());
        self.reader.cut();
        ended
    }

    /// Comes and goes until it is told to stop.
    /// `told` becomes true when a change of members was told.
    async fn listen(
        mut self,
        address: Address,
        (stop, told): (Arc<AtomicBool>, Arc<AtomicBool>),
        mut random: Rng,
    ) -> Self {
        while !stop.load(Relaxed) {
            let cut = match random.u8(..3) {
                0 => Cut::Never,
                1 => Cut::Events(random.u64(1..30)),
                _ => Cut::Bytes(random.u64(100..9_000)),
            };
            self.read(&address, cut, Duration::from_millis(random.u64(50..2_500)), |_| false).await;
            told.fetch_or(self.reader.noticed("members"), Relaxed);
            if self.by_since
                && random.bool()
                && let Some(time) = self.reader.transaction_time()
            {
                self.reader.subscribe.query = format!("_type=Patient,Basic&_since={time}");
                self.reader.last_id = None;
            }
        }
        self
    }

    /// Reads on until it has what it should have.
    async fn finish(&mut self, address: &Address, wanted: &BTreeMap<String, i64>) -> Result<()> {
        let deadline = Instant::now() + SOON;
        let done = |reader: &Reader| reader.noticed("live") && copy(reader) == *wanted;
        while self.read(address, Cut::Never, deadline - Instant::now(), done).await != Some(Ended::Done) {
            ensure!(
                Instant::now() < deadline,
                "it has {:?} and not {wanted:?}: {}",
                copy(&self.reader),
                self.reader.tail()
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// Who was a member when: the history of the Groups.
struct Ledger {
    history: History,
    /// The Group's members, a bit for each patient, after so many entries of the history.
    members: Vec<u8>,
}

impl Ledger {
    fn new(history: History) -> Self {
        let (mut outer, mut nested) = (0, 0);
        let mut members = vec![0];
        for entry in &history.entries {
            if entry.key.resource_type == "Group" {
                let mask = entry.n.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
                let of = if entry.key.id == "g" { &mut outer } else { &mut nested };
                *of = if entry.deleted { 0 } else { mask };
            }
            let inner = if outer & NESTED == 0 { 0 } else { nested };
            members.push((outer | inner) & !NESTED);
        }
        Self { history, members }
    }

    /// A version's place in the history, and to whom it belongs.
    fn version(&self, version: i64) -> Result<(usize, u8)> {
        let place =
            self.history.version(version).with_context(|| format!("nobody wrote version {version}"))?;
        let whose = self.history.entries[place].n.context("a version without n")?;
        Ok((place, 1 << whose))
    }

    /// Nothing of anybody else: who asked for patients gets what is theirs, and who asked for a Group what is of somebody who was a
    /// member at a place that the stream may have stood at, after all that it had told before, and before what was not even
    /// written when the event came.
    fn check(&self, whose: Whose, in_order: bool, heard: &[Heard], times: &[i64]) -> Result<()> {
        let stamps: Vec<_> = self.history.entries.iter().map(|entry| entry.stamp).collect();
        let mut at_least = 0;
        for (heard, time) in heard.iter().zip(times) {
            let (key, place) = match &heard.what {
                What::Resource { key, version, .. } => (key, Some(self.version(*version)?)),
                What::Deletion { key, stamp } => {
                    // Who comes back with an instant goes back.
                    if let Some(place) = self.history.deletion(key, *stamp).filter(|_| in_order) {
                        at_least = at_least.max(place + 1);
                    }
                    (key, None)
                }
                What::Notice { .. } => continue,
            };
            let Some((place, owner)) = place else { continue };
            if in_order {
                at_least = at_least.max(place + 1);
            }
            let at_most = stamps.iter().rposition(|stamp| stamp <= time).map_or(0, |place| place + 1);
            let places = at_least.max(place + 1)..=at_most;
            let is_theirs = match whose {
                Whose::Patients(asked) => asked & owner != 0,
                Whose::Group => places.clone().any(|place| self.members[place] & owner != 0),
            };
            ensure!(
                is_theirs,
                "{key} of {owner:#b}, place {place}, came at a place in {places:?}: members {:?}",
                self.members.get(places.clone())
            );
        }
        Ok(())
    }
}

async fn execute(sql: &tokio_postgres::Client, statement: &str) -> Result<()> {
    sql.batch_execute(statement).await.with_context(|| statement.to_owned())
}

fn note(id: u8, whose: usize) -> String {
    format!(
        r#"select fhir.put('Basic', 'n{id}', '{{"resourceType":"Basic","n":{whose},"subject":{{"reference":"Patient/p{whose}"}}}}');"#
    )
}

fn put_group(id: &str, mask: u8) -> String {
    let nested = (mask & NESTED != 0).then(|| "Group/h".to_owned());
    let patients = (0..PATIENTS - 1).filter(|n| mask & 1 << n != 0).map(|n| format!("Patient/p{n}"));
    let member = |reference: String| format!(r#"{{"entity":{{"reference":"{reference}"}}}}"#);
    let members: Vec<_> = patients.chain(nested).map(member).collect();
    format!(
        r#"select fhir.put('Group', '{id}', '{{"resourceType":"Group","n":{mask},"type":"person","actual":true,"member":[{}]}}');"#,
        members.join(",")
    )
}

/// Writes until it is told to stop.
async fn write(sql: tokio_postgres::Client, stop: Arc<AtomicBool>, mut random: Rng) -> Result<()> {
    while !stop.load(Relaxed) {
        let some_note = |random: &mut Rng| note(random.u8(..NOTES), random.usize(..PATIENTS));
        // Few come and go at a time: if most leave it is a reset.
        let mask = |random: &mut Rng| 0b0000_0111 | 1 << random.u8(3..7) | 1 << random.u8(3..7);
        let statement = match random.u8(..20) {
            0..11 => some_note(&mut random),
            11..14 => format!(
                "delete from fhir.resource where resource_type = 'Basic' and id = 'n{}'",
                random.u8(..NOTES)
            ),
            14..16 => put_group("g", mask(&mut random) | if random.bool() { NESTED } else { 0 }),
            16 => put_group("h", 1 << random.u8(..7)),
            // In one transaction; always in this order, so that nobody waits for each other.
            17..19 => {
                format!("begin; {} {} commit", some_note(&mut random), put_group("g", mask(&mut random)))
            }
            // Most leave.
            _ if random.u8(..4) == 0 => put_group("g", 1 << random.u8(..7)),
            _ => put_group("g", mask(&mut random)),
        };
        execute(&sql, &statement).await?;
        sleep(Duration::from_millis(random.u64(5..60))).await;
    }
    Ok(())
}

/// A standby that comes and goes.
struct Standby {
    process: Option<Process>,
    times: u32,
}

impl Standby {
    async fn comes(&mut self, site: &Site) -> Result<()> {
        self.times += 1;
        self.process = Some(site.cluster.receiver(&format!("received-{}", self.times))?);
        until("the standby to be synchronous", SOON, || async {
            let sql = "select exists (select from pg_stat_replication where sync_state = 'sync')";
            Ok(site.sql.query_one(sql, &[]).await?.try_get::<_, bool>(0)?.then_some(()))
        })
        .await
    }

    /// Whether somebody waits for it is what its absence is for.
    async fn goes(&mut self, site: &Site, random: &mut Rng) -> Result<bool> {
        self.process = None;
        sleep(Duration::from_millis(random.u64(100..900))).await;
        let sql = "select exists (select from pg_stat_activity where wait_event = 'SyncRep')";
        Ok(site.sql.query_one(sql, &[]).await?.try_get(0)?)
    }
}

async fn every_event_to_every_subscriber(context: Context) -> Result<()> {
    let seed = seed()?;
    report(&format!("seed {seed}"));
    let tally = account(&context, seed).await.with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))?;
    report(&tally);
    Ok(())
}

async fn account(context: &Context, seed: u64) -> Result<String> {
    let mut random = Rng::with_seed(seed);
    let mut site = Site::start(context).await?;
    History::begin(&site.sql).await?;
    for n in 0..PATIENTS {
        let patient =
            format!(r#"select fhir.put('Patient', 'p{n}', '{{"resourceType":"Patient","n":{n}}}')"#);
        execute(&site.sql, &patient).await?;
    }
    execute(&site.sql, &(put_group("h", 0) + &put_group("g", 0b111))).await?;
    site.ready().await?;
    let mut standby = Standby { process: None, times: 0 };
    // Our own questions do not wait.
    site.sql.batch_execute("alter system set synchronous_standby_names = 'standby'").await?;
    site.sql.batch_execute("select pg_reload_conf()").await?;
    site.sql.batch_execute("set synchronous_commit = local").await?;
    standby.comes(&site).await?;

    let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let address = site.server.address();
    let mut writers = Vec::new();
    for _ in 0..4 {
        writers.push(tokio::spawn(write(site.cluster.connect().await?, stop.clone(), random.fork())));
    }
    let of_group = |client, by_since| Listener::new(Whose::Group, client, by_since);
    let of_patients = |mask| Listener::new(Whose::Patients(mask), Client::Raw, false);
    let listeners: Vec<_> = (0..3)
        .flat_map(|_| [of_group(Client::Raw, false), of_group(Client::Raw, true)])
        .chain([of_group(Client::EventSource, false), of_patients(0b1), of_patients(0b1000_1010)])
        .map(|listener| {
            tokio::spawn(listener.listen(address.clone(), (stop.clone(), told.clone()), random.fork()))
        })
        .collect();

    let (mut kills, mut waited) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(seconds()?.unwrap_or(SECONDS));
    // However slow the machine is: until enough has happened.
    while Instant::now() < deadline || kills < 2 || waited < 3 || !told.load(Relaxed) {
        // Later less goes wrong, so that a change of members comes to its end.
        let pause = if Instant::now() < deadline { 900 } else { 6_000 };
        sleep(Duration::from_millis(random.u64(100..pause))).await;
        waited += u32::from(standby.goes(&site, &mut random).await?);
        if random.u8(..3) == 0 {
            site.server.kill().await?;
            sleep(Duration::from_millis(random.u64(..300))).await;
            site.server.start().await?;
            kills += 1;
        }
        standby.comes(&site).await?;
    }
    stop.store(true, Relaxed);
    for writer in writers {
        writer.await??;
    }
    site.ready().await?;
    let ledger = Ledger::new(History::read(&site.sql).await?);
    let stranger = "select version_id from fhir.resource where resource_type = 'Patient' and id = 'p7'";
    let stranger: i64 = site.sql.query_one(stranger, &[]).await?.try_get(0)?;
    let (mut events, mut removals, mut changes, mut resets) = (0, 0, 0, 0);
    for (number, listener) in listeners.into_iter().enumerate() {
        let mut listener = listener.await?;
        let wanted = match listener.whose {
            Whose::Group => in_tables(&site).await?,
            Whose::Patients(mask) => of_patients_in_tables(&site, mask).await?,
        };
        listener.finish(&address, &wanted).await.with_context(|| format!("listener {number}"))?;
        judge(&ledger, &listener, stranger).with_context(|| format!("listener {number}"))?;
        let heard = &listener.reader.heard;
        events += heard.len();
        removals += heard.iter().filter(|heard| matches!(heard.what, What::Deletion { .. })).count();
        changes += listener.reader.notices("members").count();
        resets += listener.reader.notices("reset-all").count();
    }
    ensure!(
        removals > 0 && changes > 0,
        "{removals} removals and {changes} changes of members: nothing is tested"
    );
    Ok(format!(
        "{} changes written, {events} events judged, {removals} removals, {changes} changes of members told, {resets} resets, \
         {kills} kills, {waited} times commits waited for the standby",
        ledger.history.entries.len()
    ))
}

/// Judges what one has heard. `stranger` is a version of the patient who never was a member.
fn judge(ledger: &Ledger, listener: &Listener, stranger: i64) -> Result<()> {
    let Listener { reader, whose, times, by_since } = listener;
    ledger.check(*whose, !by_since, &reader.heard, times)?;
    if !by_since {
        no_version_twice(reader)?;
    }
    // It would find what is somebody else's.
    let mut heard = reader.heard.clone();
    for heard in heard.iter_mut().rev() {
        if let What::Resource { version, .. } = &mut heard.what {
            *version = stranger;
            let asked_for = matches!(whose, Whose::Patients(mask) if mask & 1 << 7 != 0);
            let found = ledger.check(*whose, false, std::slice::from_ref(heard), &[micros_now()]).is_err();
            ensure!(found != asked_for, "the account finds nothing");
            return Ok(());
        }
    }
    bail!("nothing was heard: {}", reader.tail())
}

/// What the tables have of these patients.
async fn of_patients_in_tables(site: &Site, mask: u8) -> Result<BTreeMap<String, i64>> {
    let sql = "select resource_type || '/' || id, version_id from fhir.resource
                where resource_type in ('Patient', 'Basic') and $1::int & (1 << (content ->> 'n')::int) <> 0";
    let rows = site.sql.query(sql, &[&i32::from(mask)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

#[allow(
    clippy::print_stderr,
    reason = "the seed is what a failure is repeated by, and the figures are what it shows"
)]
fn report(text: &str) {
    eprintln!("{text}");
}
