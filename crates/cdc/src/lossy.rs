//! Names that the server gives as the bytes that they are.
//!
//! Roles, databases and prepared transactions are the cluster's, and are written in the encoding of whichever
//! database they were made in. So their bytes need not be text in ours.

use std::error::Error;
use tokio_postgres::types::{FromSql, Type};

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
