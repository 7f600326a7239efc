//! Random histories against the real feed: whatever the order of stamping, committing, becoming visible,
//! decoding, sample_base, cutting and restarting, a subscriber ends with the table, hears nothing twice, and
//! live hears every version in the order of the log.

// A test may stop at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod database;
mod subscriber;

use database::{Database, ROOT, encounter};
use feed::{Feed, Framing, Lsn, Options, Origin, PublishError, Publisher};
use fhir::{Compartment, Filter, Patients, ResourceType, TypeSet};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use subscriber::Reader;

/// One line for a frame: id, event, data.
struct Lines;

impl Framing for Lines {
    fn begin(&self, id: &str, event: ResourceType, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{id}|{event}|").as_bytes());
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

async fn open(directory: &Path) -> (Feed, Publisher) {
    let options = Options {
        directory: directory.to_owned(),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 2,
        held_bytes: 8 << 20,
        base_urls: fhir::BaseUrls::default(),
    };
    // The thread of the feed that was dropped may still hold the lock.
    for _ in 0..10_000 {
        if let Ok(opened) = Feed::open(options.clone(), Arc::new(Lines)) {
            return opened;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the journal stays locked");
}

fn origin() -> Origin {
    Origin { system: 1, timeline: 1, identity: String::new() }
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readers {
    /// Of all kinds.
    All,
    /// Of a Group, a little at a time.
    OfMembers,
    /// Of a Group, very many, nearly all with one filter; some of them hardly ever read.
    Crowd,
}

async fn history(seed: u64, who: Readers) {
    let of_members = who != Readers::All;
    let most = if who == Readers::Crowd { 24 } else { 4 };
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().unwrap();
    let database = Database::default();
    database.0.lock().unwrap().clock = 1_000_000;
    let (mut feed, mut publisher) = open(directory.path()).await;

    // What was there before the slot.
    {
        let mut state = database.0.lock().unwrap();
        for _ in 0..random.usize(..20) {
            state.tick(random.i64(0..5));
            state.write(&mut random, 6);
            if random.bool() {
                state.commit(&mut random);
            }
        }
        while state.has_open() {
            state.commit(&mut random);
        }
        state.write_root(&mut random);
    }
    let (start, since) = database.0.lock().unwrap().create_slot();
    publisher.begin_epoch(origin(), start, since, false).await.unwrap();
    feed.set_source(Arc::new(database.clone()));

    let mut readers = Vec::new();
    let steps = if of_members { random.usize(150..500) } else { random.usize(50..250) };
    for step in 0..steps {
        match random.u8(..100) {
            0..35 => {
                let mut state = database.0.lock().unwrap();
                state.tick(random.i64(0..5));
                state.write(&mut random, 6);
            }
            35..50 => database.0.lock().unwrap().commit(&mut random),
            50..62 => database.0.lock().unwrap().reveal(&mut random),
            62..75 => {
                let batch = database.0.lock().unwrap().decode(&mut random);
                publisher.publish(batch).await.unwrap();
            }
            75 => {
                let mut state = database.0.lock().unwrap();
                state.tick(random.i64(0..30));
                state.write_tick();
            }
            76..80 => {
                let watermark = database.0.lock().unwrap().watermark();
                feed.note_watermark(feed.sample_base(), watermark);
            }
            80..84 if readers.len() < most => {
                let types: TypeSet =
                    [[ResourceType::PATIENT].as_slice(), &[ResourceType::PATIENT, encounter()]]
                        [random.usize(..2)]
                    .iter()
                    .copied()
                    .collect();
                let of = |ids: &[&str]| Compartment::Patients(Patients::from_ids(ids.iter().copied()));
                let with_group = types.iter().chain([ResourceType::GROUP]).collect();
                let filter = match random.u8(if of_members { 6..8 } else { 0..8 }) {
                    0..3 => Filter::of_types(types),
                    3 => Filter::of_patients(types, Compartment::AnyPatient),
                    4 => Filter::of_patients(types, of(&["a"])),
                    5 => Filter::of_patients(types, of(&["b", "c"])),
                    6 => Filter::of_group(with_group, &ROOT.to_string(), None),
                    _ => Filter::of_group(types, &ROOT.to_string(), None),
                };
                let so_many = if who == Readers::Crowd { random.usize(1..12) } else { 1 };
                for _ in 0..so_many {
                    readers.push(Reader::new(filter.clone(), &database, step));
                }
            }
            // Most of a crowd read whatever there is, and so come to the same places; the rest stand still.
            84..96 if who == Readers::Crowd && !readers.is_empty() => {
                let slow = readers.len() / 4;
                let begin = if random.u8(..8) == 0 { 0 } else { slow };
                let frames = random.usize(1..30);
                for reader in &mut readers[begin..] {
                    reader.read(&feed, &database, frames, &mut random).await;
                }
            }
            84..96 if !readers.is_empty() => {
                let reader = random.usize(..readers.len());
                let frames = if of_members { random.usize(1..4) } else { random.usize(1..8) };
                readers[reader].read(&feed, &database, frames, &mut random).await;
            }
            96..98 if !readers.is_empty() => {
                let reader = random.usize(..readers.len());
                readers[reader].cut(&database, &mut random);
            }
            98 if random.u8(..3) == 0 => {
                readers.iter_mut().for_each(|reader| reader.cut(&database, &mut random));
                drop((feed, publisher));
                (feed, publisher) = open(directory.path()).await;
                assert_eq!(publisher.origin(), Some(origin()));
                feed.set_source(Arc::new(database.clone()));
                // The slot may stand before what is on our disk: the acknowledgement was still on its way.
                let slot = Lsn::new(publisher.durable_lsn().get().saturating_sub(random.u64(..100)));
                publisher.resume(slot);
                database.0.lock().unwrap().restart_from(slot);
            }
            _ => {}
        }
    }

    for reader in &mut readers {
        if random.u8(..3) == 0 {
            reader.cut(&database, &mut random);
        }
    }
    database.0.lock().unwrap().write_last(&mut random);
    while !database.0.lock().unwrap().all_decoded() {
        let batch = database.0.lock().unwrap().decode(&mut random);
        publisher.publish(batch).await.unwrap();
    }
    database.0.lock().unwrap().tick(10);
    database.0.lock().unwrap().write_tick();
    let watermark = database.0.lock().unwrap().watermark();
    feed.note_watermark(feed.sample_base(), watermark);
    let batch = database.0.lock().unwrap().decode(&mut random);
    publisher.publish(batch).await.unwrap();
    // A reader of a Group may have a tick written.
    let log = async {
        loop {
            let batch = database.0.lock().unwrap().decode(&mut random);
            if !batch.changes.is_empty() {
                publisher.publish(batch).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let read = async {
        for reader in &mut readers {
            if reader.is_group() {
                reader.finish_group(&feed, &database).await;
            } else {
                reader.finish(&feed, &database).await;
            }
        }
    };
    tokio::select! {
        () = log => {}
        () = read => {}
    }
}

fn run(seed: u64, readers: Readers) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(history(seed, readers));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(seed in any::<u64>()) {
        run(seed, Readers::All);
    }

    #[test]
    fn members_come_and_go_exactly(seed in any::<u64>()) {
        run(seed, Readers::OfMembers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn members_come_and_go_exactly_for_a_crowd(seed in any::<u64>()) {
        run(seed, Readers::Crowd);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_comes_again_as_another_is_a_fork() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path()).await;
    let database = Database::default();
    let mut random = fastrand::Rng::with_seed(1);
    let (start, since) = {
        let mut state = database.0.lock().unwrap();
        let begun = state.create_slot();
        while state.log().is_empty() {
            state.write(&mut random, 1);
            state.commit(&mut random);
        }
        begun
    };
    publisher.begin_epoch(origin(), start, since, false).await.unwrap();
    let mut batch = database.0.lock().unwrap().decode(&mut random);
    publisher.publish(batch.clone()).await.unwrap();
    publisher.publish(batch.clone()).await.unwrap();
    let head = feed.status().head;
    batch.transactions[0].xid += 1;
    assert_eq!(publisher.publish(batch).await, Err(PublishError::Fork(head.commit_lsn)));
}
