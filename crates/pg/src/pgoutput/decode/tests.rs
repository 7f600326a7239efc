use super::super::encode::{encode, has_replaced, tuple};
use super::super::{Column, Columns};
use super::*;
use crate::Lsn;
use crate::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

/// A column that owns its bytes.
#[derive(Clone, Debug)]
enum Value {
    Null,
    UnchangedToast,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just(Value::Null),
        Just(Value::UnchangedToast),
        vec(any::<u8>(), 0..20).prop_map(Value::Text),
        vec(any::<u8>(), 0..20).prop_map(Value::Binary),
    ];
    vec(value, 0..6).prop_map(|values| {
        let columns: Vec<_> = values
            .iter()
            .map(|value| match value {
                Value::Null => Column::Null,
                Value::UnchangedToast => Column::UnchangedToast,
                Value::Text(bytes) => Column::Text(bytes),
                Value::Binary(bytes) => Column::Binary(bytes),
            })
            .collect();
        tuple(&columns)
    })
}

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

/// Stamps that the conversion between the epochs of 1970 and 2000 does not saturate.
fn stamp() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn place() -> impl Strategy<Value = Lsn> {
    any::<u64>().prop_map(Lsn::new)
}

fn shape() -> impl Strategy<Value = Relation> {
    let identity = prop_oneof![
        Just(ReplicaIdentity::Default),
        Just(ReplicaIdentity::Nothing),
        Just(ReplicaIdentity::Full),
        Just(ReplicaIdentity::Index)
    ];
    let column = (any::<bool>(), text(), any::<u32>(), any::<i32>()).prop_map(
        |(key, name, type_oid, type_modifier)| RelationColumn { key, name, type_oid, type_modifier },
    );
    (any::<u32>(), text(), text(), identity, vec(column, 0..8)).prop_map(
        |(id, namespace, name, replica_identity, columns)| Relation {
            id,
            namespace,
            name,
            replica_identity,
            columns,
        },
    )
}

fn parse(bytes: &[u8]) -> Tuple<'_> {
    Tuple::read(&mut Reader::new(bytes)).unwrap()
}

/// What was encoded is decoded, and the same bytes come out again.
fn survives(message: &Message<'_>) -> Result<(), TestCaseError> {
    let bytes = encode(message);
    let decoded = Message::decode(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(message));
    prop_assert_eq!(&encode(&decoded.unwrap()), &bytes);
    // Cut anywhere, or with more behind it, it is no message.
    for end in 0..bytes.len() {
        prop_assert!(Message::decode(&bytes[..end]).is_err());
    }
    prop_assert!(Message::decode(&[&bytes, &[0][..]].concat()).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn transactions_survive(
        commit_lsn in place(), end_lsn in place(), at in stamp(), xid in any::<u32>(), flags in any::<u8>(), name in text()
    ) {
        survives(&Message::Begin(Begin { commit_lsn, commit_time: at, xid }))?;
        survives(&Message::Commit(Commit { flags, commit_lsn, end_lsn, commit_time: at }))?;
        survives(&Message::Origin(Origin { lsn: end_lsn, name: name.into() }))?;
    }

    #[test]
    fn shapes_survive(relation in shape(), id in any::<u32>(), namespace in text(), name in text()) {
        survives(&Message::Relation(relation))?;
        survives(&Message::Type(Type { id, namespace: namespace.into(), name: name.into() }))?;
    }

    #[test]
    fn rows_survive(relation_id in any::<u32>(), old in values(), new in values()) {
        let (old, new) = (parse(&old), parse(&new));
        let row = |op, old, old_is_whole, new| Message::Row(Row { relation_id, op, old, old_is_whole, new });
        survives(&row(Op::Insert, None, false, Some(new)))?;
        survives(&row(Op::Update, None, false, Some(new)))?;
        for whole in [false, true] {
            survives(&row(Op::Delete, Some(old), whole, None))?;
            survives(&row(Op::Update, Some(old), whole, Some(new)))?;
        }
    }

    #[test]
    fn the_rest_survives(
        relation_ids in vec(any::<u32>(), 0..5), flags in any::<u8>(), lsn in place(), prefix in text(), content in vec(any::<u8>(), 0..40)
    ) {
        survives(&Message::Truncate(Truncate { flags, relation_ids }))?;
        survives(&Message::Emitted(Emitted { flags, lsn, prefix: prefix.into(), content: &content }))?;
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(kind in "[BCORYIUDTMx]", mut bytes in vec(any::<u8>(), 0..80)) {
        bytes.insert(0, kind.as_bytes()[0]);
        match Message::decode(&bytes) {
            // Stamps of the year 290,000 are cut to what an `Timestamp` holds.
            Ok(Message::Begin(_) | Message::Commit(_)) | Err(_) => {}
            Ok(message) => prop_assert!(encode(&message) == bytes || has_replaced(&message)),
        }
    }

    #[test]
    fn a_changed_byte_is_decoded_or_refused(
        new in values(), old in values(), relation in shape(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let (new, old) = (parse(&new), parse(&old));
        let row = Row { relation_id: 7, op: Op::Update, old: Some(old), old_is_whole: false, new: Some(new) };
        for message in [Message::Row(row), Message::Relation(relation)] {
            let mut bytes = encode(&message);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(encode(&message) == bytes || has_replaced(&message));
            }
        }
    }
}

#[test]
fn a_name_in_another_encoding_keeps_nothing_from_being_read() {
    let Ok(Message::Origin(origin)) = Message::decode(b"O\0\0\0\0\0\0\0\0M\xfcnchen\0") else { panic!() };
    assert_eq!(origin.name, "M\u{fffd}nchen");
}

#[test]
fn errors_name_the_message_and_the_place() {
    let error = |bytes: &[u8]| Message::decode(bytes).unwrap_err().to_string();
    assert_eq!(error(b""), "unknown message of pgoutput: the message is too short at offset 0");
    assert_eq!(error(b"Z"), "unknown message of pgoutput: the kind of message is not known at offset 0");
    assert_eq!(error(b"I\0\0\0\x01K"), "Insert message of pgoutput: a new row is expected at offset 5");
    assert_eq!(
        error(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff"),
        "Insert message of pgoutput: a length is negative at offset 9"
    );
    assert_eq!(
        error(b"T\x7f\xff\xff\xff\0"),
        "Truncate message of pgoutput: the number of tables is not that of the oids that follow at offset 6"
    );
}

#[test]
fn columns_are_found_by_index() {
    let bytes = tuple(&[Column::Text(b"a"), Column::Null, Column::UnchangedToast, Column::Binary(b"")]);
    let tuple = parse(&bytes);
    assert_eq!(tuple.len(), 4);
    assert!(!tuple.is_empty());
    assert_eq!(tuple.get(0), Some(Column::Text(b"a")));
    assert_eq!(tuple.get(3), Some(Column::Binary(b"")));
    assert_eq!(tuple.get(4), None);
    assert_eq!(Columns::len(&tuple.columns()), 4);
    assert_eq!(format!("{tuple:?}"), "Tuple(4 columns)");
}
