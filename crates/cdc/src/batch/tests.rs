use super::*;
use bytes::Bytes;
use feed::{Before, Change, Kind};
use fhir::{Instant, Patients, ResourceType};
use pg::Timestamp;
use pg::pgoutput::encode::encode;
use pg::pgoutput::{self, Begin, Column, Commit, Emitted, Relation, ReplicaIdentity, Row, Truncate};

/// Yields as many changes as the length of the first column says, in as many parts.
struct Repeat;

impl RowDecoder for Repeat {
    fn encoding(&mut self, _: Arc<Encoding>) {}

    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        if relation.name == "bad" { Err(LayoutError::Table("no".to_owned())) } else { Ok(()) }
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let Some(Column::Text(text)) = row.new.and_then(|new| new.get(0)) else { return Ok(()) };
        for part in 0..u16::try_from(text.len()).unwrap() {
            out.push(Change {
                position: Position { part, ..position },
                stamp: Instant::MIN,
                resource_type: ResourceType::BUNDLE,
                kind: Kind::Upsert,
                patients: Patients::none(),
                before: Before::Nothing,
                group_before: None,
                tick: None,
                data: Bytes::copy_from_slice(&[0; 1_000]),
            });
        }
        Ok(())
    }

    fn truncated(&mut self, _: &[u32]) -> Result<(), LayoutError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LayoutError> {
        Ok(())
    }

    fn restart(&mut self) {}
}

fn event(message: &Message<'_>) -> Event {
    Event::Message(encode(message).into())
}

fn begin(commit: u64) -> Event {
    let commit_lsn = Lsn::new(commit);
    let xid = u32::try_from(commit).unwrap();
    event(&Message::Begin(Begin { commit_lsn, commit_time: Timestamp(7), xid }))
}

fn commit(at: u64, end: u64) -> Event {
    let (commit_lsn, end_lsn) = (Lsn::new(at), Lsn::new(end));
    event(&Message::Commit(Commit { flags: 0, commit_lsn, end_lsn, commit_time: Timestamp(7) }))
}

fn insert(changes: usize) -> Event {
    let value = "x".repeat(changes);
    Event::Message(pgoutput::encode::insert(1, &[Column::Text(value.as_bytes())]).into())
}

fn truncate() -> Event {
    event(&Message::Truncate(Truncate { flags: 0, relation_ids: vec![1] }))
}

fn tick() -> Event {
    let prefix = crate::tick::PREFIX.into();
    event(&Message::Emitted(Emitted { flags: 1, lsn: Lsn::ZERO, prefix, content: b"" }))
}

fn keepalive(at: u64) -> Event {
    Event::Keepalive(Lsn::new(at))
}

fn push(assembler: &mut Assembler, events: &[Event]) -> Result<(), BatchError> {
    events.iter().try_for_each(|event| assembler.push(event))
}

fn places(batch: &Batch) -> Vec<(u64, u64, u16)> {
    let place =
        |change: &Change| (change.position.commit_lsn.get(), change.position.ordinal, change.position.part);
    batch.changes.iter().map(place).collect()
}

#[test]
fn ordinals_count_every_row_message_of_the_transaction() {
    let mut assembler = Assembler::new(Box::new(Repeat));
    let events = [
        begin(5),
        insert(0),
        insert(2),
        truncate(),
        insert(1),
        commit(5, 6),
        begin(8),
        insert(1),
        commit(8, 9),
    ];
    push(&mut assembler, &events).unwrap();
    let batch = assembler.take().unwrap();
    assert_eq!(places(&batch), [(5, 1, 0), (5, 1, 1), (5, 3, 0), (8, 0, 0)]);
    assert_eq!(batch.transactions.iter().map(|transaction| transaction.xid).collect::<Vec<_>>(), [5, 8]);
    assert_eq!(batch.passed, Some(Lsn::new(9)));
    assert!(assembler.take().is_none());
}

#[test]
fn a_transaction_of_a_million_ticks_is_one() {
    let mut assembler = Assembler::new(Box::new(Repeat));
    let mut events = vec![begin(5)];
    events.extend((0..1_000_000).map(|_| tick()));
    events.extend([insert(1), commit(5, 6), begin(8), tick(), commit(8, 9)]);
    push(&mut assembler, &events).unwrap();
    assert_eq!(places(&assembler.take().unwrap()), [(5, 0, 0), (5, 1, 0), (8, 0, 0)]);
}

#[test]
fn a_transaction_in_pieces_is_named_in_each_and_passed_at_its_end() {
    let mut assembler = Assembler::new(Box::new(Repeat));
    push(&mut assembler, &[begin(5), insert(1)]).unwrap();
    let first = assembler.take().unwrap();
    assert_eq!((places(&first), first.passed), (vec![(5, 0, 0)], None));
    // The server may have read beyond the transaction that it is sending.
    push(&mut assembler, &[keepalive(100), insert(1)]).unwrap();
    let second = assembler.take().unwrap();
    assert_eq!((places(&second), second.passed), (vec![(5, 1, 0)], None));
    assert_eq!(first.transactions, second.transactions);
    push(&mut assembler, &[commit(5, 6)]).unwrap();
    let third = assembler.take().unwrap();
    assert_eq!((third.transactions.len(), third.passed), (0, Some(Lsn::new(6))));
    push(&mut assembler, &[keepalive(100)]).unwrap();
    assert_eq!(assembler.take().unwrap().passed, Some(Lsn::new(100)));
    // Nothing new is known.
    push(&mut assembler, &[keepalive(100), keepalive(90)]).unwrap();
    assert!(assembler.take().is_none());
}

#[test]
fn a_batch_is_full_by_bytes_by_changes_and_by_messages() {
    let mut assembler = Assembler::new(Box::new(Repeat));
    push(&mut assembler, &[begin(5), insert(262)]).unwrap();
    assert!(!assembler.is_full());
    push(&mut assembler, &[insert(1)]).unwrap();
    assert!(assembler.is_full());
    assert!(assembler.take().is_some() && !assembler.is_full());
    for _ in 0..FULL_MESSAGES {
        assert!(!assembler.is_full());
        push(&mut assembler, &[insert(0)]).unwrap();
    }
    assert!(assembler.is_full());
    assert!(assembler.take().is_none() && !assembler.is_full());
}

#[test]
fn a_cut_off_transaction_comes_again_from_its_start() {
    let mut assembler = Assembler::new(Box::new(Repeat));
    push(&mut assembler, &[keepalive(4), begin(5), insert(1)]).unwrap();
    assembler.restart();
    assert!(assembler.take().is_none());
    push(&mut assembler, &[begin(5), insert(1), commit(5, 6)]).unwrap();
    assert_eq!(places(&assembler.take().unwrap()), [(5, 0, 0)]);
}

#[test]
fn what_is_out_of_order_is_an_error() {
    let wrong =
        |events: &[Event]| push(&mut Assembler::new(Box::new(Repeat)), events).unwrap_err().to_string();
    assert!(wrong(&[begin(1), begin(2)]).contains("begins within another"));
    assert!(wrong(&[commit(1, 2)]).contains("did not begin"));
    assert!(wrong(&[begin(1), commit(2, 3)]).contains("did not begin"));
    assert!(wrong(&[insert(1)]).contains("outside of any transaction"));
    assert!(wrong(&[truncate()]).contains("outside of any transaction"));
    assert!(wrong(&[Event::Message(Bytes::from_static(b"?"))]).contains("cannot be read"));
    let relation = Relation {
        id: 1,
        namespace: String::new(),
        name: "bad".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: Vec::new(),
    };
    assert_eq!(wrong(&[event(&Message::Relation(relation))]), "no");
}
