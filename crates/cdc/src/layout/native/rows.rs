//! The native layout: `fhir.resource` and `fhir.tombstone`, as `migrations/native/` makes them.
//!
//! An insert or an update of `fhir.resource` is the resource, one of `fhir.tombstone` is its deletion. A delete is not a
//! change: the tombstone tells of it, and a transaction that left none is refused.
//!
//! To whom a resource belonged before its change (`docs/membership.md`, rule 2) is in the old row of an update, and in the
//! content of a tombstone. A statement that deletes a row and inserts it again leaves no tombstone: there it is in the old
//! row of the delete.

use super::untold::{Untold, Was};
use crate::layout::arena::Arena;
use crate::layout::{LayoutError, Reason, RowContext, RowDecoder, RowTable};
use crate::timestamptz;
use bytes::Bytes;
use feed::{Before, Change, Kind, Position};
use fhir::{BaseUrls, Instant, Patients, ResourceType};
use pg::Encoding;
use pg::pgoutput::{Column, Op, Relation, Row, Tuple};
use std::collections::HashMap;
use std::sync::Arc;

/// What is read of both tables.
pub(crate) const COLUMNS: [&str; 5] = ["resource_type", "id", "version_id", "last_updated", "content"];
/// Beyond this the room for one change is given back after it.
const KEPT_ROOM: usize = 1 << 20;

/// The native layout's rows to changes.
pub struct NativeRows {
    tables: HashMap<u32, Known>,
    /// Where a change is written before its length is known.
    room: Vec<u8>,
    arena: Arena,
    untold: Untold,
    encoding: Arc<Encoding>,
    context: RowContext,
}

/// A table that was announced.
enum Known {
    Ours(Table),
    /// Not of the layout.
    Foreign {
        name: String,
        told: bool,
    },
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

impl NativeRows {
    /// A decoder that has seen nothing.
    pub fn new(context: RowContext) -> Self {
        Self {
            tables: HashMap::new(),
            room: Vec::new(),
            arena: Arena::default(),
            untold: Untold::default(),
            encoding: Arc::default(),
            context,
        }
    }

    /// What a row was that is replaced or deleted.
    fn replaced(&self, table: Table, row: &Row<'_>) -> Was {
        let Some(old) = row.old.filter(|_| row.old_is_whole) else {
            self.context.before_images.missed();
            return Was::UNKNOWN;
        };
        Was { before: self.owners(table, old), group: self.group(table, old) }
    }

    /// What it was before that row was written. `told`: what [`Untold`] says.
    fn was(&self, table: Table, row: &Row<'_>, new: Tuple<'_>, told: Was) -> Was {
        match (table.kind, row.op) {
            (Kind::Upsert, Op::Update) => self.replaced(table, row),
            // A tombstone has what was deleted, but not its version.
            (Kind::Deletion, _) if !matches!(told.before, Before::Patients(_)) => {
                Was { before: self.owners(table, new), group: None }
            }
            _ => told,
        }
    }

    fn owners(&self, table: Table, row: Tuple<'_>) -> Before {
        owners(&self.encoding, table, row, &self.context.base_urls).map_or(Before::Unknown, Before::Patients)
    }

    /// A row as it was streamed, if it is a Group.
    fn group(&self, table: Table, row: Tuple<'_>) -> Option<Bytes> {
        if key(&table, row)?.0 != ResourceType::GROUP.as_str().as_bytes() {
            return None;
        }
        let mut streamed = Vec::new();
        change(&self.encoding, &table, row, None, &self.context.base_urls, &mut streamed).ok()?;
        Some(streamed.into())
    }
}

impl RowDecoder for NativeRows {
    fn encoding(&mut self, encoding: Arc<Encoding>) {
        self.encoding = encoding;
    }

    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        let kind = match (relation.namespace.as_str(), relation.name.as_str()) {
            ("fhir", "resource") => Kind::Upsert,
            ("fhir", "tombstone") => Kind::Deletion,
            (namespace, name) => {
                // Partitions are announced too, although their rows go by the name of the whole.
                let name = format!("{namespace}.{name}");
                self.tables.entry(relation.id).or_insert(Known::Foreign { name, told: false });
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
        self.tables.insert(relation.id, Known::Ours(Table { kind, columns }));
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let Some(table) = self.tables.get_mut(&row.relation_id) else {
            return Err(LayoutError::Table(format!(
                "rows of the table with oid {} came before its columns were announced, or after they \
                 could not be understood: start the replication connection again",
                row.relation_id
            )));
        };
        let table = match table {
            Known::Ours(table) => *table,
            Known::Foreign { name, told } => {
                if !std::mem::replace(told, true) {
                    tracing::warn!(
                        "table {name} is in the publication but not of the native layout: ignored"
                    );
                }
                return Ok(());
            }
        };
        let (Some(new), Op::Insert | Op::Update) = (row.new, row.op) else {
            if let (Kind::Upsert, Some(key)) = (table.kind, row.old.and_then(|old| key(&table, old))) {
                let was = self.replaced(table, row);
                self.untold.deleted(key, was);
            }
            return Ok(());
        };
        let told = key(&table, new).map_or(Was::UNKNOWN, |key| self.untold.told(key));
        let whole_old = row.old.filter(|_| row.old_is_whole);
        let written = change(&self.encoding, &table, new, whole_old, &self.context.base_urls, &mut self.room);
        let was = if written.is_ok() { self.was(table, row, new, told) } else { Was::UNKNOWN };
        let Was { before, group: group_before } = was;
        match written {
            Ok(Written { resource_type, stamp, patients }) => out.push(Change {
                position,
                stamp,
                resource_type,
                kind: table.kind,
                patients,
                before,
                group_before,
                tick: None,
                data: if self.room.len() > KEPT_ROOM {
                    std::mem::take(&mut self.room).into()
                } else {
                    self.arena.keep(&self.room)
                },
            }),
            Err(reason) => self.context.bad_rows.meet(
                super::rows::table(table.kind),
                table.kind,
                version(&table, new),
                &reason,
            )?,
        }
        self.room.clear();
        if self.room.capacity() > KEPT_ROOM {
            self.room = Vec::new();
        }
        Ok(())
    }

    fn truncated(&mut self, relation_ids: &[u32]) -> Result<(), LayoutError> {
        let ours = |id: &u32| matches!(self.tables.get(id), Some(Known::Ours(_)));
        if relation_ids.iter().any(ours) {
            return Err(LayoutError::Untold(
                "a published table was truncated: its rows are gone, and no change says so",
            ));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LayoutError> {
        if self.untold.all_told() {
            return Ok(());
        }
        Err(LayoutError::Untold("rows were deleted without tombstones, so that no subscriber heard of it"))
    }

    fn restart(&mut self) {
        self.untold.clear();
    }
}

/// Type and id of a row.
fn key<'a>(table: &Table, row: Tuple<'a>) -> Option<(&'a [u8], &'a [u8])> {
    match (row.get(table.columns[0])?, row.get(table.columns[1])?) {
        (Column::Text(resource_type), Column::Text(id)) => Some((resource_type, id)),
        _ => None,
    }
}

/// The table of a kind of change, as an operator finds a row in it.
pub(super) const fn table(kind: Kind) -> RowTable {
    RowTable { name: table_name(kind), version: "version_id" }
}

/// The table of a kind of change.
pub(crate) const fn table_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Upsert => "fhir.resource",
        Kind::Deletion => "fhir.tombstone",
    }
}

/// To whom the resource of a whole row belongs; `None` if it cannot be read.
fn owners(encoding: &Encoding, table: Table, row: Tuple<'_>, bases: &BaseUrls) -> Option<Patients> {
    let columns = table.read(row);
    let text = |which: usize| match columns[which] {
        Some(Column::Text(value)) => encoding.decode(value),
        _ => None,
    };
    fhir::patients_of_resource(text(4)?.as_bytes(), text(0)?.parse().ok()?, &text(1)?, bases).ok()
}

/// A change, as it was written.
struct Written {
    resource_type: ResourceType,
    stamp: Instant,
    patients: Patients,
}

/// Writes a row's change into `room`.
fn change(
    encoding: &Encoding,
    table: &Table,
    new: Tuple<'_>,
    old: Option<Tuple<'_>>,
    bases: &BaseUrls,
    room: &mut Vec<u8>,
) -> Result<Written, Reason> {
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
    // Those that are ASCII in every encoding, if they are what they should be.
    let plain = |which: usize| {
        std::str::from_utf8(text(which)?).map_err(|_| Reason::no_key(encoding, COLUMNS[which]))
    };
    let resource_type = plain(0)?.parse().map_err(|_| Reason::UnknownType)?;
    let last_updated = timestamptz::parse(text(3)?).ok_or(Reason::Unreadable(COLUMNS[3]))?;
    let columns = fhir::Columns {
        resource_type,
        id: plain(1)?,
        version_id: plain(2)?.parse().map_err(|_| Reason::Unreadable(COLUMNS[2]))?,
        last_updated,
    };
    let patients = match table.kind {
        Kind::Upsert => {
            let content = encoding.decode(text(4)?).ok_or_else(|| Reason::no_text(encoding, COLUMNS[4]))?;
            fhir::write_resource_with_patients(content.as_bytes(), &columns, bases, room)?
        }
        Kind::Deletion => {
            fhir::write_deletion(&columns, room)?;
            Patients::none()
        }
    };
    Ok(Written { resource_type, stamp: last_updated, patients })
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
