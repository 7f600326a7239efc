//! The native layout: `fhir.resource` and `fhir.tombstone`, as `migrations/` makes them.
//!
//! An insert or an update of `fhir.resource` is the resource, one of `fhir.tombstone` is its deletion; a
//! delete on either means nothing (the tombstone was written before, or is taken away again).

use super::arena::Arena;
use super::{BadRows, Layout, LayoutError, Reason};
use crate::pgoutput::{Column, Op, Relation, Row, Tuple};
use crate::timestamptz;
use feed::{Change, Kind, Position};
use fhir::{Instant, ResourceType};
use std::collections::HashMap;
use std::sync::Arc;

const COLUMNS: [&str; 5] = ["resource_type", "id", "version_id", "last_updated", "content"];
/// Beyond this the room for one change is given back after it.
const KEPT_ROOM: usize = 1 << 20;

/// The native layout's rows to changes.
pub struct Native {
    tables: HashMap<u32, Option<Table>>,
    /// Where a change is written before its length is known.
    room: Vec<u8>,
    arena: Arena,
    bad_rows: Arc<BadRows>,
}

/// A table of the layout, and where its columns are.
#[derive(Clone, Copy)]
struct Table {
    kind: Kind,
    /// The indexes of [`COLUMNS`].
    columns: [usize; COLUMNS.len()],
}

impl Table {
    /// The columns of the layout, in one pass over the row.
    fn read<'a>(&self, row: Tuple<'a>) -> [Option<Column<'a>>; COLUMNS.len()] {
        let mut read = [None; COLUMNS.len()];
        for (index, column) in row.columns().enumerate() {
            if let Some(which) = self.columns.iter().position(|place| *place == index) {
                read[which] = Some(column);
            }
        }
        read
    }
}

impl Native {
    /// `bad_rows` decide about the rows that cannot be streamed.
    pub fn new(bad_rows: Arc<BadRows>) -> Self {
        Self { tables: HashMap::new(), room: Vec::new(), arena: Arena::default(), bad_rows }
    }
}

impl Layout for Native {
    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        let kind = match (relation.namespace.as_str(), relation.name.as_str()) {
            ("fhir", "resource") => Kind::Upsert,
            ("fhir", "tombstone") => Kind::Deletion,
            (namespace, name) => {
                if self.tables.insert(relation.id, None).is_none() {
                    tracing::warn!(
                        "table {namespace}.{name} is in the publication but not of the native layout: ignored"
                    );
                }
                return Ok(());
            }
        };
        // Forgotten first: if it has lost a column its rows must not be read by the old places.
        self.tables.remove(&relation.id);
        let mut columns = [0; COLUMNS.len()];
        for (place, wanted) in columns.iter_mut().zip(COLUMNS) {
            *place = relation.columns.iter().position(|column| column.name == wanted).ok_or_else(|| {
                LayoutError::Table(format!(
                    "table fhir.{} has no column {wanted} in the log: if it was renamed, rename it back; if \
                     the publication has a list of columns, add it there",
                    relation.name
                ))
            })?;
        }
        self.tables.insert(relation.id, Some(Table { kind, columns }));
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let Some(table) = self.tables.get(&row.relation_id) else {
            return Err(LayoutError::Table(format!(
                "rows of the table with oid {} came before its columns were announced, or after they \
                 could not be understood: start the replication connection again",
                row.relation_id
            )));
        };
        let (Some(table), Some(new), Op::Insert | Op::Update) = (table, row.new, row.op) else {
            return Ok(());
        };
        let whole_old = row.old.filter(|_| row.old_is_whole);
        match change(table, new, whole_old, &mut self.room) {
            Ok((resource_type, stamp)) => out.push(Change {
                position,
                stamp,
                resource_type,
                kind: table.kind,
                data: self.arena.keep(&self.room),
            }),
            Err(reason) => self.bad_rows.meet(table.kind, version(table, new), &reason)?,
        }
        self.room.clear();
        if self.room.capacity() > KEPT_ROOM {
            self.room = Vec::new();
        }
        Ok(())
    }
}

/// The table of a kind of change.
pub(crate) const fn table_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Upsert => "fhir.resource",
        Kind::Deletion => "fhir.tombstone",
    }
}

/// Writes a row's change into `room`.
fn change(
    table: &Table,
    new: Tuple<'_>,
    old: Option<Tuple<'_>>,
    room: &mut Vec<u8>,
) -> Result<(ResourceType, Instant), Reason> {
    let columns = table.read(new);
    let text = |which: usize| {
        let (index, name) = (table.columns[which], COLUMNS[which]);
        let column = match (columns[which], old) {
            (Some(Column::UnchangedToast), Some(old)) => old.get(index),
            (column, _) => column,
        };
        match column {
            Some(Column::Text(value)) => Ok(value),
            Some(Column::Null) => Err(Reason::Null(name)),
            Some(Column::UnchangedToast) => Err(Reason::Unchanged(name)),
            Some(Column::Binary(_)) => Err(Reason::Binary(name)),
            None => Err(Reason::Missing(name)),
        }
    };
    let read = |which: usize| std::str::from_utf8(text(which)?).map_err(|_| Reason::NotUtf8(COLUMNS[which]));
    let resource_type = read(0)?.parse().map_err(|_| Reason::UnknownType)?;
    let last_updated = timestamptz::parse(text(3)?).ok_or(Reason::Unreadable(COLUMNS[3]))?;
    let columns = fhir::Columns {
        resource_type,
        id: read(1)?,
        version_id: read(2)?.parse().map_err(|_| Reason::Unreadable(COLUMNS[2]))?,
        last_updated,
    };
    match table.kind {
        Kind::Upsert => fhir::write_resource(read(4)?.as_bytes(), &columns, room)?,
        Kind::Deletion => fhir::write_deletion(&columns, room)?,
    }
    Ok((resource_type, last_updated))
}

/// The row's version number, if it can be read.
fn version(table: &Table, row: Tuple<'_>) -> Option<i64> {
    match row.get(table.columns[2])? {
        Column::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
