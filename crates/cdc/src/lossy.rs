//! Texts that the server gives as the bytes that they are.
//!
//! In a database of encoding SQL_ASCII nothing says what the bytes of a text mean, and the server checks nothing.
//! Roles, databases and prepared transactions are the cluster's, and are written in the encoding of whichever
//! database they were made in. So their bytes need not be text in ours.

use bytes::BytesMut;
use std::error::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// Whether the server could not convert a text to UTF-8: the name of a role that was made in a database of
/// another encoding, for instance. Who asks for names alone has to do without them.
pub(crate) fn is_unconvertible(error: &tokio_postgres::Error) -> bool {
    let refusals = [SqlState::CHARACTER_NOT_IN_REPERTOIRE, SqlState::UNTRANSLATABLE_CHARACTER];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// Asks a question in which names of roles stand, as `{name}`; if one of them cannot be converted, with `'?'` instead of them.
pub(crate) async fn query_with_names(
    client: &tokio_postgres::Client,
    question: &str,
    name: &str,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    match client.query(&question.replace("{name}", name), &[]).await {
        Err(error) if is_unconvertible(&error) => {
            client.query(&question.replace("{name}", "'?'::text"), &[]).await
        }
        answer => answer,
    }
}

/// A text that need not be UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawText<'a>(pub(crate) &'a [u8]);

impl<'a> FromSql<'a> for RawText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(data_type: &Type) -> bool {
        *data_type == Type::TEXT
    }
}

impl ToSql for RawText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(data_type: &Type) -> bool {
        *data_type == Type::TEXT
    }

    to_sql_checked!();
}

/// A name for people, with `\u{fffd}` for what is no text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lossy(pub(crate) String);

impl<'a> FromSql<'a> for Lossy {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(String::from_utf8_lossy(raw).into_owned()))
    }

    fn accepts(data_type: &Type) -> bool {
        matches!(*data_type, Type::TEXT | Type::NAME | Type::VARCHAR)
    }
}
