//! The publication: which tables' changes the server sends.

use crate::replication::quoted;
use std::fmt;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A table, by schema and name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableName {
    /// The table of this name.
    pub fn new(schema: &str, name: &str) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned() }
    }
}

/// As SQL writes it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// The publication cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublicationError {
    /// The question could not be asked.
    #[error("the publication cannot be looked up")]
    Database(#[from] tokio_postgres::Error),
    /// A table does not exist.
    #[error("there is no table {0} in this database: run 'fhir-tail migrate'")]
    NoTable(TableName),
    /// It does not exist, and we may not make it.
    #[error("there is no publication {name}, and this role may not make it: run as the tables' owner: {sql}")]
    Missing {
        /// Its name.
        name: String,
        /// What makes it.
        sql: String,
    },
    /// It leaves out a table.
    #[error("publication {name} does not have the table {table}: run as the tables' owner: {sql}")]
    LeavesOut {
        /// Its name.
        name: String,
        /// The table.
        table: TableName,
        /// What adds it.
        sql: String,
    },
}

/// Makes sure that the publication is there and has the tables; makes it if it is missing and we may.
pub(crate) async fn ensure(
    client: &Client,
    name: &str,
    tables: &[TableName],
) -> Result<(), PublicationError> {
    for table in tables {
        if oid(client, table).await?.is_none() {
            return Err(PublicationError::NoTable(table.clone()));
        }
    }
    if !exists(client, name).await? {
        let sql = create_sql(name, tables);
        match client.batch_execute(&sql).await {
            Ok(()) => tracing::info!(publication = name, "made the publication"),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Err(PublicationError::Missing { name: name.to_owned(), sql });
            }
            // Somebody else has just made it; whether it has the tables is looked at below.
            Err(error)
                if matches!(
                    error.code(),
                    Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)
                ) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for table in tables {
        if !has(client, name, table).await? {
            let sql = add_sql(name, table);
            return Err(PublicationError::LeavesOut { name: name.to_owned(), table: table.clone(), sql });
        }
    }
    Ok(())
}

/// Whether there is a publication of this name.
pub(crate) async fn exists(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    let row = client.query_opt("select 1 from pg_publication where pubname = $1::text", &[&name]).await?;
    Ok(row.is_some())
}

/// Whether it has the table, by name, by schema or because it has all.
pub(crate) async fn has(
    client: &Client,
    name: &str,
    table: &TableName,
) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select 1 from pg_publication_tables \
             where pubname = $1::text and schemaname = $2::text and tablename = $3::text",
            &[&name, &table.schema, &table.name],
        )
        .await?;
    Ok(row.is_some())
}

/// What makes the publication.
pub(crate) fn create_sql(name: &str, tables: &[TableName]) -> String {
    let list = tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("create publication {} for table {list};", quoted(name))
}

/// What adds a table to it.
pub(crate) fn add_sql(name: &str, table: &TableName) -> String {
    format!("alter publication {} add table {table};", quoted(name))
}

/// The oids whose change means that what is decoded is another stream: those of the publication, of its
/// entries for the tables, and of the tables.
pub(crate) async fn identity(
    client: &Client,
    name: &str,
    tables: &[TableName],
) -> Result<String, tokio_postgres::Error> {
    let row = client.query_opt("select oid from pg_publication where pubname = $1::text", &[&name]).await?;
    let publication: u32 = row.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let mut identity = format!("publication {publication}");
    for table in tables {
        let relation = oid(client, table).await?.unwrap_or_default();
        // None where the publication has all tables, or all of a schema.
        let entry = client
            .query_opt(
                "select oid from pg_publication_rel where prpubid = $1 and prrelid = $2",
                &[&publication, &relation],
            )
            .await?;
        let entry: u32 = entry.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
        identity.push_str(&format!(", table {relation} entry {entry}"));
    }
    Ok(identity)
}

/// The oid of a table; `None` if there is none of this name.
pub(crate) async fn oid(client: &Client, table: &TableName) -> Result<Option<u32>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where n.nspname = $1::text and c.relname = $2::text",
            &[&table.schema, &table.name],
        )
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}
