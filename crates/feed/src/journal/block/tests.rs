//! What is put into a block comes out of it, and what is damaged is found.

use super::*;
use crate::Lsn;
use proptest::prelude::*;

fn set(ids: &[String]) -> Patients {
    Patients::from_ids(ids.iter().map(String::as_str))
}

fn change(ordinal: u64, part: u16, stamp: i64, index: usize, deletion: bool, data: Vec<u8>) -> Change {
    Change {
        position: Position { commit_lsn: Lsn::new(7), ordinal, part },
        stamp: Instant::from_unix_micros(stamp),
        resource_type: ResourceType::from_index(index).unwrap(),
        kind: if deletion { Kind::Deletion } else { Kind::Upsert },
        patients: Patients::none(),
        before: Before::Nothing,
        group_before: None,
        tick: None,
        data: data.into(),
    }
}

proptest! {
    #[test]
    fn a_block_gives_back_what_was_put_in(
        rows in prop::collection::vec((any::<i64>(), 0..RESOURCE_TYPES, any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)), 1..20),
        whose in prop::collection::vec((prop::collection::vec("[a-c]{1,3}", 0..3), 0..3), 20),
        safe_time in any::<i64>(),
    ) {
        let mut builder = BlockBuilder::new(Anchor::default(), Instant::MIN, 0, Instant::from_unix_micros(safe_time), 0);
        let changes: Vec<_> = (1..).zip(rows).map(|(n, (stamp, index, deletion, data))| change(n, 3, stamp, index, deletion, data)).collect();
        let changes: Vec<_> = changes.into_iter().zip(&whose).map(|(change, (ids, before))| {
            let before = match before {
                0 => Before::Nothing,
                1 => Before::Patients(set(&ids[..ids.len() / 2])),
                _ => Before::Unknown,
            };
            Change { patients: set(ids), before, ..change }
        }).collect();
        for (change, transaction) in changes.iter().zip(7..) {
            builder.push(change, transaction, Instant::from_unix_micros(safe_time));
        }
        let packed = builder.finish().unwrap();
        let block = Block::unpack(&packed.header, &packed.entries).unwrap();
        prop_assert_eq!(&Header::decode(&packed.header.encode()).unwrap(), &packed.header);
        prop_assert_eq!(packed.header.last, changes.last().unwrap().position);
        prop_assert_eq!(packed.header.running_max, changes.iter().map(|c| c.stamp).max().unwrap());
        let entries: Vec<_> = block.entries().map(Result::unwrap).collect();
        prop_assert_eq!(entries.len(), changes.len());
        for ((entry, change), transaction) in entries.iter().zip(&changes).zip(7..) {
            prop_assert_eq!(entry.transaction, transaction);
            prop_assert_eq!(entry.position, change.position);
            prop_assert_eq!(entry.stamp, change.stamp);
            prop_assert_eq!(entry.kind, change.kind);
            prop_assert_eq!(entry.resource_type, change.resource_type);
            prop_assert_eq!(entry.data, &change.data[..]);
            prop_assert_eq!(&entry.patients().unwrap(), &change.patients);
            prop_assert_eq!(&entry.before().unwrap(), &change.before);
            prop_assert!(packed.header.types.contains(change.resource_type));
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::decode(&bytes);
        let header = BlockBuilder::new(Anchor::default(), Instant::MIN, 0, Instant::MIN, 0).header;
        if let Ok(block) = Block::unpack(&Header { length: 300, ..header }, &bytes) {
            let _ = block.entries().take(100).count();
        }
        let block = Block(bytes);
        prop_assert!(block.entries().take(100).count() < 100);
    }

    #[test]
    fn keys_sort_as_positions_do(a in any::<(u64, u64, u16)>(), b in any::<(u64, u64, u16)>()) {
        let key = |(lsn, ordinal, part)| {
            let position = Position { commit_lsn: Lsn::new(lsn), ordinal, part };
            let mut out = Vec::new();
            write_position(position, &mut out);
            (position, out)
        };
        let ((a, a_key), (b, b_key)) = (key(a), key(b));
        prop_assert_eq!(a.cmp(&b), a_key.cmp(&b_key));
    }
}
