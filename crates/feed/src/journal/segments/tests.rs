//! Every check is made twice: on the journal that was written, and on the one that is found again.

use super::*;
use crate::journal::BlockBuilder;
use crate::{Before, Change, Kind, Origin, Transaction};
use fhir::{Patients, ResourceType};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);

fn state() -> State {
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    State::begin(origin, Lsn::new(1), Instant::from_unix_micros(0))
}

/// Appends a block of changes, given as (commit, stamp); the ordinal counts within the commit.
fn append(journal: &Segments, state: &mut State, rows: &[(u64, i64)]) {
    let mut builder =
        BlockBuilder::new(state.head_anchor(), state.running_max, state.offset, Instant::MIN, 0);
    for (lsn, stamp) in rows {
        let same = state.head.commit_lsn == Lsn::new(*lsn);
        let ordinal = if same { state.head.ordinal + 1 } else { 0 };
        let position = Position { commit_lsn: Lsn::new(*lsn), ordinal, part: 0 };
        let stamp = Instant::from_unix_micros(*stamp);
        let data = format!("{lsn}/{ordinal}").into();
        let change = Change {
            position,
            stamp,
            resource_type: ResourceType::PATIENT,
            kind: Kind::Upsert,
            patients: Patients::none(),
            before: Before::Nothing,
            group_before: None,
            tick: None,
            data,
        };
        let transaction = Transaction { commit_lsn: position.commit_lsn, xid: 3, commit_time: stamp };
        builder.push(&change, transaction.hash32(), stamp);
        state.transaction = Some(transaction);
        state.head = position;
        state.running_max = state.running_max.max(stamp);
    }
    let block = builder.finish().unwrap();
    state.offset = block.header.offset;
    journal.append(vec![block], state).unwrap();
}

fn positions_after(journal: &Segments, position: Position) -> Vec<Position> {
    let mut found = Vec::new();
    let mut preceding = None;
    journal
        .blocks_after(position, &mut |header, block| {
            assert!(preceding.is_none_or(|last| header.preceding == last), "no gap between blocks");
            preceding = Some(header.last);
            for entry in block()?.entries() {
                found.push(entry?.position);
            }
            Ok(true)
        })
        .unwrap();
    found.retain(|found| *found > position);
    found
}

fn twice(directory: &Path, bytes: u64, journal: Segments, check: impl Fn(&Segments)) -> Segments {
    check(&journal);
    drop(journal);
    let journal = Segments::with_segments_of(bytes, directory).unwrap();
    check(&journal);
    journal.reopen().unwrap();
    check(&journal);
    journal
}

/// Blocks of rows: commits rise or stay, stamps wander.
fn blocks() -> impl Strategy<Value = Vec<Vec<(u64, i64)>>> {
    prop::collection::vec(prop::collection::vec((0u64..3, -40i64..60), 1..5), 1..25).prop_map(|blocks| {
        let (mut lsn, mut clock) = (10, 1000);
        let mut row = |(step, jitter): (u64, i64)| {
            lsn += step * 7;
            clock += 10;
            (lsn, clock + jitter)
        };
        blocks.into_iter().map(|rows| rows.into_iter().map(&mut row).collect()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn reads_and_seeks_as_a_plain_list_would(blocks in blocks(), safe_time in 900i64..1800, fence_lsn in 0u64..600, from in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let journal = Segments::with_segments_of(200, directory.path()).unwrap();
        let mut state = state();
        journal.begin(&state, &[]).unwrap();
        let (mut all, mut seekable) = (Vec::new(), Vec::new());
        for rows in &blocks {
            let (preceding, before) = (state.head_anchor(), all.len());
            append(&journal, &mut state, rows);
            all.extend(positions_after(&journal, preceding.position));
            prop_assert_eq!(all.len(), before + rows.len());
            seekable.push((preceding, state.running_max, state.head.commit_lsn));
        }
        let watermark = Watermark { safe_time: Instant::from_unix_micros(safe_time), fence_lsn: Lsn::new(fence_lsn) };
        let expected = seekable.iter().find(|(_, max, lsn)| watermark.leaves_to_feed(*max, *lsn)).map(|(preceding, ..)| *preceding);
        let at = from.index(all.len());
        twice(directory.path(), 200, journal, |journal| {
            assert_eq!(journal.seek(watermark).unwrap(), expected);
            assert_eq!(positions_after(journal, all[at]), &all[at + 1..]);
            assert_eq!(journal.load().unwrap().as_ref(), Some(&state));
            assert_eq!(journal.bytes(), state.offset);
        });
    }
}

#[test]
fn retention_drops_the_oldest_whole_segments_and_says_so_first() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Segments::with_segments_of(1, directory.path()).unwrap();
    let mut state = state();
    journal.begin(&state, &[]).unwrap();
    for n in 1..=10 {
        append(&journal, &mut state, &[(n * 10, i64::try_from(n).unwrap())]);
    }
    let kept = state.offset / 2;
    assert!(journal.purge(Retention { bytes: kept, age: HOUR }, &mut state).unwrap());
    assert!(journal.bytes() <= kept && journal.bytes() > 0);
    let floor = state.floor;
    assert_eq!(
        floor.stamp,
        Instant::from_unix_micros(i64::try_from(floor.position.commit_lsn.get() / 10).unwrap())
    );
    let journal = twice(directory.path(), 1, journal, |journal| {
        assert_eq!(journal.load().unwrap().unwrap().floor, floor);
        let dropped = usize::try_from(floor.position.commit_lsn.get() / 10).unwrap();
        assert_eq!(positions_after(journal, floor.position).len(), 10 - dropped);
        // Who stands before the floor meets a gap.
        let mut preceding = None;
        journal
            .blocks_after(Position::ZERO, &mut |header, _| {
                preceding = Some(header.preceding);
                Ok(false)
            })
            .unwrap();
        assert_eq!(preceding, Some(floor.position));
    });
    assert!(!journal.purge(Retention { bytes: kept, age: HOUR }, &mut state).unwrap());
}

#[test]
fn age_alone_keeps_what_one_of_the_clocks_calls_young() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Segments::with_segments_of(1, directory.path()).unwrap();
    let mut state = state();
    journal.begin(&state, &[]).unwrap();
    // The database's clock has jumped a year between the entries; ours has not moved.
    append(&journal, &mut state, &[(10, 0)]);
    append(&journal, &mut state, &[(20, 365 * 24 * 3600 * 1_000_000)]);
    state.watermark = Some(Watermark { safe_time: state.running_max, fence_lsn: Lsn::new(30) });
    assert!(!journal.purge(Retention { bytes: u64::MAX, age: HOUR }, &mut state).unwrap());
    assert!(journal.purge(Retention { bytes: u64::MAX, age: Duration::ZERO }, &mut state).unwrap());
    assert_eq!(state.floor.position.commit_lsn, Lsn::new(10));
}

#[test]
fn a_new_epoch_leaves_nothing_of_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Segments::with_segments_of(1, directory.path()).unwrap();
    let mut old = state();
    journal.begin(&old, &[]).unwrap();
    append(&journal, &mut old, &[(1000, 1)]);
    let mut new = state();
    journal.begin(&new, &[]).unwrap();
    append(&journal, &mut new, &[(10, 1)]);
    twice(directory.path(), 1, journal, |journal| {
        assert_eq!(journal.load().unwrap().unwrap().epoch, new.epoch);
        assert_eq!(positions_after(journal, Position::ZERO), [new.head]);
    });
}
