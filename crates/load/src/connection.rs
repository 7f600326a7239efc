//! One connection of the load, and a batch on its way over it.
//!
//! A batch is one insert from arrays, and one delete: nothing is staged, no temporary table is made. The insert
//! updates what exists already, once something did: until then a plain one is a sixth faster.

use super::batch::{Operation, Piece};
use super::resource::Bad;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel, Statement, Transaction};

const INSERT: &str = "\
insert into fhir.resource (resource_type, id, content)
select new.resource_type, new.id, new.content::json
  from unnest($1::text[], $2::text[], $3::text[]) as new (resource_type, id, content)";

const OR_UPDATE: &str = " on conflict (resource_type, id) do update set content = excluded.content";

const DELETE: &str = "\
delete from fhir.resource r
 using unnest($1::text[], $2::text[]) as gone (resource_type, id)
 where r.resource_type = gone.resource_type and r.id = gone.id";

/// Rows are not locked before they are inserted: a resource that another session deletes at the same time is
/// refused, and its batch is written again without this.
const BULK: &str = "set local fhir.bulk_load = on";

/// The longest wait of a written batch for the one before it. That one may wait for a session that waits for rows
/// of this one, a deadlock which Postgres cannot see: then this one is rolled back and written again.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);

/// The constraint by which an insert says that a resource exists already.
const KEY: &str = "resource_pkey";

/// How often a batch is tried that conflicts with other sessions.
const ATTEMPTS: u32 = 10;

/// How many rows a transaction wrote and deleted.
#[derive(Clone, Copy, Default)]
pub(super) struct RowCounts {
    pub(super) written: u64,
    pub(super) deleted: u64,
}

impl RowCounts {
    pub(super) fn add(&mut self, more: Self) {
        self.written += more.written;
        self.deleted += more.deleted;
    }
}

/// What became of a batch.
pub(super) enum Written {
    Committed(RowCounts),
    /// The database refused something in it.
    Refused(Bad),
    /// The one before it was not committed, or not in time.
    RolledBack,
}

/// There is nothing to write to.
#[derive(Debug, thiserror::Error)]
#[error("the database has no table fhir.resource: make it with 'fhir-tail migrate'")]
pub struct NoTable;

/// A batch's place in the order of the commits.
pub(super) struct CommitOrder {
    /// Said when the batch before this one is committed, and dropped when it will not be; `None`: there is none.
    pub(super) before: Option<oneshot::Receiver<()>>,
    /// Said when this one is committed.
    pub(super) committed: oneshot::Sender<()>,
}

/// A connection, and the statements as the server knows them there.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// Whether a resource that was loaded, over whichever connection, existed already.
    known: Arc<AtomicBool>,
}

/// How a batch is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    /// As if nothing existed.
    Insert,
    /// What exists is updated.
    Upsert,
    /// The same, and rows are locked before they are stamped.
    Careful,
}

impl Connection {
    /// `known` is the same for all connections of a load.
    pub(super) async fn prepare(client: Client, known: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let prepared = async {
            Ok(Statements {
                insert: client.prepare(INSERT).await?,
                upsert: client.prepare(&format!("{INSERT}{OR_UPDATE}")).await?,
                delete: client.prepare(DELETE).await?,
            })
        };
        let statements = prepared.await.map_err(|error: Error| match error.code() {
            Some(&SqlState::UNDEFINED_TABLE) => NoTable.into(),
            _ => anyhow::Error::new(error).context("cannot write to fhir.resource"),
        })?;
        Ok(Self { client, statements, known: Arc::clone(known) })
    }

    /// Writes a batch, and commits it when it is its turn. Gives itself and the batch back.
    pub(super) async fn write(
        mut self,
        piece: Piece,
        order: CommitOrder,
    ) -> Result<(Self, Piece, Written), Error> {
        let CommitOrder { mut before, committed } = order;
        let mut mode = if self.known.load(Relaxed) { WriteMode::Upsert } else { WriteMode::Insert };
        let mut attempts = 0;
        let written = loop {
            match self.attempt(&piece.operations, mode, &mut before).await {
                Err(error) if mode == WriteMode::Insert && exists(&error) => {
                    self.known.store(true, Relaxed);
                    mode = WriteMode::Upsert;
                }
                Err(error) if is_conflict(&error) && attempts < ATTEMPTS => {
                    attempts += 1;
                    mode = WriteMode::Careful;
                }
                attempt => break attempt?,
            }
        };
        if matches!(written, Written::Committed(_)) {
            // Nobody listens when it is the last.
            let _ = committed.send(());
        }
        Ok((self, piece, written))
    }

    /// What ends in an error is rolled back, as the transaction is dropped.
    async fn attempt(
        &mut self,
        operations: &[Operation],
        mode: WriteMode,
        before: &mut Option<oneshot::Receiver<()>>,
    ) -> Result<Written, Error> {
        let transaction = begin(&mut self.client).await?;
        if mode != WriteMode::Careful {
            transaction.batch_execute(BULK).await?;
        }
        let put = if mode == WriteMode::Insert { &self.statements.insert } else { &self.statements.upsert };
        let written = self.statements.write_by(put, &transaction, operations).await;
        let counts = match written {
            Err(error) if mode == WriteMode::Insert && exists(&error) => return Err(error),
            written => refusal(written)?,
        };
        let counts = match counts {
            Ok(counts) => counts,
            Err(bad) => {
                transaction.rollback().await?;
                return Ok(Written::Refused(bad));
            }
        };
        if let Some(waits) = before {
            if !matches!(tokio::time::timeout(COMMIT_WITHIN, waits).await, Ok(Ok(()))) {
                transaction.rollback().await?;
                return Ok(Written::RolledBack);
            }
            *before = None;
        }
        // What is checked at the end of a transaction is refused here.
        Ok(match refusal(transaction.commit().await)? {
            Ok(()) => Written::Committed(counts),
            Err(bad) => Written::Refused(bad),
        })
    }
}

/// Begins a transaction of the level at which others' commits are seen at once, whatever the default is.
pub(super) async fn begin(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await
}

/// The statements, as the server knows them.
pub(super) struct Statements {
    insert: Statement,
    upsert: Statement,
    delete: Statement,
}

impl Statements {
    /// Writes operations, updating what exists: of those with the same key the last one, as one statement touches a
    /// row once.
    pub(super) async fn write(
        &self,
        transaction: &Transaction<'_>,
        operations: &[Operation],
    ) -> Result<RowCounts, Error> {
        self.write_by(&self.upsert, transaction, operations).await
    }

    async fn write_by(
        &self,
        put: &Statement,
        transaction: &Transaction<'_>,
        operations: &[Operation],
    ) -> Result<RowCounts, Error> {
        let mut last = HashMap::with_capacity(operations.len());
        for (at, operation) in operations.iter().enumerate() {
            last.insert(operation.key(), at);
        }
        let (mut types, mut ids, mut contents) = (Vec::new(), Vec::new(), Vec::new());
        let (mut gone_types, mut gone_ids) = (Vec::new(), Vec::new());
        for (at, operation) in operations.iter().enumerate() {
            let (resource_type, id) = (operation.resource_type, operation.id.as_str());
            if last.get(&(resource_type, id)) != Some(&at) {
                continue;
            }
            match &operation.content {
                Some(content) => {
                    types.push(resource_type.as_str());
                    ids.push(id);
                    contents.push(content.as_str());
                }
                None => {
                    gone_types.push(resource_type.as_str());
                    gone_ids.push(id);
                }
            }
        }
        let mut counts = RowCounts::default();
        if !ids.is_empty() {
            counts.written = transaction.execute(put, &[&types, &ids, &contents]).await?;
        }
        if !gone_ids.is_empty() {
            counts.deleted = transaction.execute(&self.delete, &[&gone_types, &gone_ids]).await?;
        }
        Ok(counts)
    }
}

/// Whether another session caused the failure: a retry may succeed.
fn is_conflict(error: &Error) -> bool {
    [Some(&SqlState::T_R_SERIALIZATION_FAILURE), Some(&SqlState::T_R_DEADLOCK_DETECTED)]
        .contains(&error.code())
}

/// Whether it failed because a resource exists already.
fn exists(error: &Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|error| *error.code() == SqlState::UNIQUE_VIOLATION && error.constraint() == Some(KEY))
}

/// Tells what the database refuses because of what it was given from everything else that can fail.
pub(super) fn refusal<T>(result: Result<T, Error>) -> Result<Result<T, Bad>, Error> {
    let error = match result {
        Ok(value) => return Ok(Ok(value)),
        Err(error) => error,
    };
    let code = error.code().map_or("", SqlState::code);
    let told = match (code.get(..2), error.as_db_error()) {
        // A constraint's message names the constraint; its detail has the row and is not shown.
        (Some("23"), Some(error)) => format!("{} (SQLSTATE {code})", error.message()),
        (_, Some(error)) if code == "22P05" => format!(
            "the database's encoding has no character {}: load it into a database of encoding UTF8 (SQLSTATE {code})",
            code_point(error.message()).unwrap_or_else(|| "of those in it".into())
        ),
        // Bad data, too much of it, or a trigger's refusal: these messages may repeat values.
        (Some("22" | "54" | "P0"), _) => format!("SQLSTATE {code}"),
        _ => return Err(error),
    };
    Ok(Err(Bad::Refused(told)))
}

/// The character that a message names by its bytes in UTF-8, in whatever language: `0xe7 0x94 0xb0` is U+7530.
fn code_point(message: &str) -> Option<String> {
    let bytes: Option<Vec<u8>> = message
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("0x"))
        .map(|digits| u8::from_str_radix(digits, 16).ok())
        .collect();
    let character = std::str::from_utf8(&bytes?).ok()?.chars().next()?;
    Some(format!("U+{:04X}", u32::from(character)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_named_by_its_number() {
        let german =
            "Zeichen mit Byte-Folge 0xe7 0x94 0xb0 in Kodierung »UTF8« hat keine Entsprechung in »LATIN1«";
        assert_eq!(code_point(german).unwrap(), "U+7530");
        assert_eq!(code_point("byte sequence 0xc2 0x81 in"), Some("U+0081".into()));
        for other in ["", "invalid", "0xzz", "0xff"] {
            assert_eq!(code_point(other), None, "{other}");
        }
    }
}
