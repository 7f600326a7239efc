//! The publication: which tables' changes the server sends.

use pg::replication::quoted;
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
    /// Changes would be lost.
    #[error("publication {name} {what}: changes would be lost: run as the tables' owner: {sql}")]
    Lacks {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
        /// What mends it.
        sql: String,
    },
    /// Somebody else writes the tables, past their triggers.
    #[error("{}", subscribed(.0))]
    Subscribed(String),
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
    match published(client, name, tables).await?.and_then(|published| published.lacks(name)) {
        Some(Lack { what, sql }) => Err(PublicationError::Lacks { name: name.to_owned(), what, sql }),
        None => Ok(()),
    }
}

/// Makes sure that nobody writes to the tables by logical replication: that fires row triggers only.
pub(crate) async fn refuse_subscribed(client: &Client, tables: &[TableName]) -> Result<(), PublicationError> {
    match subscriptions(client, tables).await?.into_iter().next() {
        Some(name) => Err(PublicationError::Subscribed(name)),
        None => Ok(()),
    }
}

/// The subscriptions that write to the tables.
pub(crate) async fn subscriptions(
    client: &Client,
    tables: &[TableName],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let rows = client
        .query(
            "select distinct s.subname::text from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid \
               join pg_class c on c.oid = r.srrelid join pg_namespace n on n.oid = c.relnamespace \
               join unnest($1::text[], $2::text[]) t(schema, name) on t.schema = n.nspname and t.name = c.relname \
              order by 1",
            &[&schemas, &names],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// What is wrong with a subscription that writes to the tables.
pub(crate) fn subscribed(name: &str) -> String {
    format!(
        "subscription {} writes to the tables, past the triggers that keep tombstones: take them out of what it \
         subscribes to, and run {}",
        quoted(name),
        refresh_sql(name)
    )
}

/// What makes a subscription notice that it has fewer tables.
pub(crate) fn refresh_sql(name: &str) -> String {
    format!("alter subscription {} refresh publication;", quoted(name))
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

/// What a publication lets through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Published {
    pub(crate) inserts: bool,
    pub(crate) updates: bool,
    /// In its own words: `insert, update`.
    pub(crate) publishes: Vec<&'static str>,
    /// Rows of partitions go by the name of the partitioned table.
    pub(crate) by_root: bool,
    pub(crate) tables: Vec<PublishedTable>,
}

/// What it lets through of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PublishedTable {
    pub(crate) name: TableName,
    pub(crate) published: bool,
    /// The publication names it, or all tables, whatever comes of it.
    pub(crate) member: bool,
    pub(crate) partitioned: bool,
    /// It has a row filter or a list of columns.
    pub(crate) narrowed: bool,
}

/// What is wrong with a publication: how the sentence goes on that begins with its name, and what mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lack {
    pub(crate) what: String,
    pub(crate) sql: String,
}

/// What the publication lets through; `None`: there is none.
pub(crate) async fn published(
    client: &Client,
    name: &str,
    tables: &[TableName],
) -> Result<Option<Published>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select oid, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables \
               from pg_publication where pubname = $1::text",
            &[&name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let publication: u32 = row.try_get(0)?;
    let all_tables: bool = row.try_get(6)?;
    let mut found = Vec::new();
    for table in tables {
        let relation = oid(client, table).await?.unwrap_or_default();
        // By way of JSON, as 14 has neither filters nor lists.
        let entry = client
            .query_one(
                "select count(*) > 0, \
                        coalesce(bool_or(to_jsonb(r) ->> 'prqual' is not null or to_jsonb(r) ->> 'prattrs' is not null), false), \
                        exists (select from pg_partitioned_table where partrelid = $2) \
                   from pg_publication_rel r where prpubid = $1 and prrelid = $2",
                &[&publication, &relation],
            )
            .await?;
        found.push(PublishedTable {
            name: table.clone(),
            published: has(client, name, table).await?,
            member: all_tables || entry.try_get(0)?,
            partitioned: entry.try_get(2)?,
            narrowed: entry.try_get(1)?,
        });
    }
    let mut publishes = Vec::new();
    for (column, operation) in [(1, "insert"), (2, "update"), (3, "delete"), (4, "truncate")] {
        if row.try_get(column)? {
            publishes.push(operation);
        }
    }
    Ok(Some(Published {
        inserts: row.try_get(1)?,
        updates: row.try_get(2)?,
        publishes,
        by_root: row.try_get(5)?,
        tables: found,
    }))
}

impl Published {
    /// What does not get through that has to.
    pub(crate) fn lacks(&self, name: &str) -> Option<Lack> {
        let mut wrong = Vec::new();
        let mut sql = Vec::new();
        let list = |tables: &[&PublishedTable]| {
            tables.iter().map(|table| table.name.to_string()).collect::<Vec<_>>().join(", ")
        };
        let by_partition = |table: &&PublishedTable| table.partitioned && !self.by_root;
        let partitioned: Vec<_> = self.tables.iter().filter(by_partition).collect();
        if !partitioned.is_empty() {
            wrong.push(format!("passes on {} by the names of its partitions", list(&partitioned)));
            sql.push(format!("alter publication {} set (publish_via_partition_root = true);", quoted(name)));
        }
        let missing = |table: &&PublishedTable| !(table.published || by_partition(table) && table.member);
        let missing: Vec<_> = self.tables.iter().filter(missing).collect();
        if !missing.is_empty() {
            wrong.push(format!("leaves out {}", list(&missing)));
            sql.extend(missing.iter().map(|table| add_sql(name, &table.name)));
        }
        let narrowed: Vec<_> = self.tables.iter().filter(|table| table.narrowed).collect();
        if !narrowed.is_empty() {
            wrong.push(format!("passes on only a part of {}", list(&narrowed)));
            for table in narrowed {
                sql.push(format!("alter publication {} drop table {};", quoted(name), table.name));
                sql.push(add_sql(name, &table.name));
            }
        }
        // Deletions come as inserts into the tombstones.
        if !self.inserts || !self.updates {
            wrong.push("leaves out inserts or updates".to_owned());
            let mut all = vec!["insert", "update"];
            all.extend(self.publishes.iter().filter(|operation| !["insert", "update"].contains(operation)));
            sql.push(format!("alter publication {} set (publish = '{}');", quoted(name), all.join(", ")));
        }
        let lack = || Lack { what: wrong.join(", and "), sql: sql.join(" ") };
        (!wrong.is_empty()).then(lack)
    }
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
