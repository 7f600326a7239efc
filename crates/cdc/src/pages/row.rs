//! A row of a page, and what is streamed of it.

use crate::layout::Reason;
use crate::timestamptz::Timestamptz;
use feed::{Kind, PageRequest, SourceError};
use fhir::Instant;
use std::error::Error;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

/// It will be as unreadable the next time.
fn unreadable(column: &str) -> SourceError {
    SourceError::Refused(format!(
        "column {column} of a page cannot be read: has it another type, or is the database's encoding SQL_ASCII?"
    ))
}

/// A row.
pub(super) struct Found<'a> {
    pub(super) id: &'a str,
    pub(super) version_id: Option<i64>,
    pub(super) stamp: Instant,
    pub(super) content: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    pub(super) fn read(row: &'a Row) -> Result<Self, SourceError> {
        let Timestamptz(stamp) = row.try_get(2).map_err(|_| unreadable("last_updated"))?;
        let content: Option<Json<'_>> = row.try_get(3).map_err(|_| unreadable("content"))?;
        Ok(Self {
            id: row.try_get(0).map_err(|_| unreadable("id"))?,
            version_id: row.try_get(1).ok().flatten(),
            stamp,
            content: content.map(|Json(text)| text),
        })
    }

    pub(super) fn write(&self, request: &PageRequest, out: &mut Vec<u8>) -> Result<(), Reason> {
        let (id, last_updated) = (self.id, self.stamp);
        // As in the log, which has such a stamp as text: "-infinity", or a year "BC".
        if last_updated < Instant::YEAR_ONE {
            return Err(Reason::Unreadable("last_updated"));
        }
        let version_id = self.version_id.ok_or(Reason::Null("version_id"))?;
        let columns = fhir::Columns { resource_type: request.resource_type, id, version_id, last_updated };
        match request.kind {
            Kind::Upsert => {
                let content = self.content.ok_or(Reason::Null("content"))?;
                let text = std::str::from_utf8(content).map_err(|_| Reason::Unreadable("content"))?;
                fhir::write_resource(text.as_bytes(), &columns, out)?;
            }
            Kind::Deletion => fhir::write_deletion(&columns, out)?,
        }
        Ok(())
    }
}

/// JSON as text. As a type of its own Postgres sends it as it is; to cast it to text would copy it twice.
struct Json<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Json<'a> {
    fn from_sql(data_type: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        match (data_type, raw) {
            (&Type::JSONB, [1, text @ ..]) => Ok(Self(text)),
            (&Type::JSONB, _) => Err("a version of jsonb that is not known".into()),
            _ => Ok(Self(raw)),
        }
    }

    fn accepts(data_type: &Type) -> bool {
        matches!(*data_type, Type::JSON | Type::JSONB | Type::TEXT)
    }
}
