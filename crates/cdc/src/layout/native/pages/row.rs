//! A row of a page, and what is streamed of it.

use super::query::BEYOND_TEXT;
use crate::layout::Reason;
use crate::lossy::RawText;
use crate::timestamptz::Timestamptz;
use feed::{Kind, SourceError};
use fhir::{BaseUrls, Columns, Instant, LargeResource, Patients, ResourceType};
use pg::Encoding;
use std::borrow::Cow;
use std::error::Error;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

/// It will be as unreadable the next time.
pub(super) fn unreadable(column: &str) -> SourceError {
    SourceError::Refused(format!("column {column} of a page cannot be read: has it another type?"))
}

/// A row.
pub(super) struct Found<'a> {
    encoding: &'a Encoding,
    /// Not ASCII only where the table's constraint was dropped.
    id: &'a [u8],
    pub(super) version_id: Option<i64>,
    pub(super) stamp: Instant,
    pub(super) content: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    pub(super) fn read(row: &'a Row, encoding: &'a Encoding) -> Result<Self, SourceError> {
        let Timestamptz(stamp) = row.try_get(2).map_err(|_| unreadable("last_updated"))?;
        let content: Option<Json<'_>> = row.try_get(3).map_err(|_| unreadable("content"))?;
        Ok(Self {
            encoding,
            id: row.try_get(0).map(|RawText(id)| id).map_err(|_| unreadable("id"))?,
            version_id: row.try_get(1).ok().flatten(),
            stamp,
            content: content.map(|Json(text)| text),
        })
    }

    /// Where the next page goes on: see [`query::Parameters::of`](super::query::Parameters::of).
    pub(super) fn place(&self) -> (Instant, Cow<'a, str>) {
        // Nothing before the calendar can be streamed, nor be a place to go on from: on to the calendar's beginning.
        if self.stamp < Instant::YEAR_ONE {
            return (Instant::YEAR_ONE, Cow::Borrowed(""));
        }
        let ascii = self.id.iter().take_while(|byte| byte.is_ascii()).count();
        let start = String::from_utf8_lossy(self.id.get(..ascii).unwrap_or_default());
        (self.stamp, if ascii == self.id.len() { start } else { format!("{start}{BEYOND_TEXT}").into() })
    }

    fn columns(&self, resource_type: ResourceType) -> Result<Columns<'a>, Reason> {
        let last_updated = self.stamp;
        // As in the log, which has such a stamp as text: "-infinity", or a year "BC".
        if last_updated < Instant::YEAR_ONE {
            return Err(Reason::Unreadable("last_updated"));
        }
        let id = std::str::from_utf8(self.id).map_err(|_| Reason::no_key(self.encoding, "id"))?;
        let version_id = self.version_id.ok_or(Reason::Null("version_id"))?;
        Ok(Columns { resource_type, id, version_id, last_updated })
    }

    /// Its content.
    pub(super) fn text(&self) -> Result<Cow<'a, str>, Reason> {
        let content = self.content.ok_or(Reason::Null("content"))?;
        self.encoding.decode(content).ok_or_else(|| Reason::no_text(self.encoding, "content"))
    }

    /// To whom it belongs: to nobody, if its content cannot be read.
    pub(super) fn patients(&self, resource_type: ResourceType, bases: &BaseUrls) -> Patients {
        match (std::str::from_utf8(self.id), self.text()) {
            (Ok(id), Ok(text)) => {
                fhir::patients_of_resource(text.as_bytes(), resource_type, id, bases).unwrap_or_default()
            }
            _ => Patients::none(),
        }
    }

    /// What is streamed of a large row with this [`text`](Self::text).
    pub(super) fn large<'t>(
        &self,
        resource_type: ResourceType,
        text: &'t str,
    ) -> Result<LargeResource<'t>, Reason> {
        Ok(LargeResource::of(text.as_bytes(), &self.columns(resource_type)?)?)
    }

    /// Appends what is streamed of it.
    pub(super) fn write(&self, of: ResourceType, kind: Kind, out: &mut Vec<u8>) -> Result<(), Reason> {
        let columns = self.columns(of)?;
        match kind {
            Kind::Upsert => fhir::write_resource(self.text()?.as_bytes(), &columns, out)?,
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
