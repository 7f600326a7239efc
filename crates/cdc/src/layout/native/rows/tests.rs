//! Rows as the log could have them, the impossible ones too.

use super::*;
use crate::layout::BadRows;
use pg::pgoutput::{Message, RelationColumn, ReplicaIdentity, encode};
use proptest::prelude::*;

const RESOURCE: u32 = 7;

fn relation(names: &[&str]) -> Relation {
    let column = |name: &&str| RelationColumn {
        key: false,
        name: (*name).to_owned(),
        type_oid: 25,
        type_modifier: -1,
    };
    Relation {
        id: RESOURCE,
        namespace: "fhir".into(),
        name: "resource".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: names.iter().map(column).collect(),
    }
}

/// What the layout makes of an update with these columns.
fn update(
    layout: &mut NativeRows,
    old: Option<&[Column<'_>]>,
    new: &[Column<'_>],
) -> Result<Vec<Change>, LayoutError> {
    let mut bytes = vec![b'U'];
    bytes.extend_from_slice(&RESOURCE.to_be_bytes());
    if let Some(old) = old {
        bytes.push(b'O');
        bytes.extend_from_slice(&encode::tuple(old));
    }
    bytes.push(b'N');
    bytes.extend_from_slice(&encode::tuple(new));
    let Message::Row(row) = Message::decode(&bytes).unwrap() else { panic!("not a row") };
    let mut out = Vec::new();
    layout.row(&row, Position::ZERO, &mut out).map(|()| out)
}

fn good() -> [Column<'static>; 5] {
    [
        Column::Text(b"Basic"),
        Column::Text(b"x"),
        Column::Text(b"12"),
        Column::Text(b"2026-11-22 21:16:00.5+00"),
        Column::Text(br#"{"resourceType":"Basic"}"#),
    ]
}

#[test]
fn columns_are_found_by_name() {
    let mut layout = NativeRows::new(RowContext::default());
    layout.relation(&relation(&COLUMNS)).unwrap();
    let straight = update(&mut layout, None, &good()).unwrap();
    layout
        .relation(&relation(&["extra", "content", "last_updated", "version_id", "id", "resource_type"]))
        .unwrap();
    let mut columns = good().to_vec();
    columns.push(Column::Null);
    columns.reverse();
    assert_eq!(update(&mut layout, None, &columns).unwrap(), straight);
    assert_eq!(straight.len(), 1);
}

#[test]
fn a_relation_that_lost_a_column_is_an_error_and_its_rows_are_none() {
    let mut layout = NativeRows::new(RowContext::default());
    layout.relation(&relation(&COLUMNS)).unwrap();
    for missing in COLUMNS {
        let rest: Vec<&str> = COLUMNS.into_iter().filter(|name| *name != missing).collect();
        let error = layout.relation(&relation(&rest)).unwrap_err().to_string();
        assert!(error.contains("fhir.resource") && error.contains(missing), "{error}");
        assert!(update(&mut layout, None, &good()).is_err());
    }
}

#[test]
fn a_large_value_left_alone_is_taken_from_the_old_row_if_that_is_whole() {
    let bad_rows = Arc::new(BadRows::default());
    let mut layout = NativeRows::new(RowContext { bad_rows: Arc::clone(&bad_rows), ..RowContext::default() });
    layout.relation(&relation(&COLUMNS)).unwrap();
    let mut new = good();
    new[4] = Column::UnchangedToast;
    assert_eq!(update(&mut layout, Some(&good()), &new).unwrap().len(), 1);
    assert_eq!(update(&mut layout, None, &new).unwrap().len(), 0);
    assert_eq!(bad_rows.count(), 1);
}

fn column() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..12),
        Just(b"Basic".to_vec()),
        Just(b"12".to_vec()),
        Just(b"2026-11-22 21:16:00.5+00".to_vec()),
        Just(br#"{"resourceType":"Basic"}"#.to_vec()),
    ])
}

proptest! {
    #[test]
    fn every_row_is_streamed_or_counted(columns in proptest::collection::vec(column(), 0..8)) {
        let bad_rows = Arc::new(BadRows::default());
        let mut layout = NativeRows::new(RowContext { bad_rows: Arc::clone(&bad_rows), ..RowContext::default() });
        layout.relation(&relation(&COLUMNS)).unwrap();
        let tuple: Vec<Column<'_>> =
            columns.iter().map(|value| value.as_deref().map_or(Column::Null, Column::Text)).collect();
        let changes = update(&mut layout, None, &tuple).unwrap();
        prop_assert_eq!(changes.len() as u64 + bad_rows.count(), 1);
    }
}
