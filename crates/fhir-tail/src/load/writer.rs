//! Batches into `fhir.resource`, each in one transaction.
//!
//! A batch is one upsert from arrays, and one delete: nothing is staged, no temporary table is made.

use super::batch::{Operation, Piece};
use super::report::Report;
use super::resource::Bad;
use anyhow::Context as _;
use std::collections::HashMap;
use std::slice;
use tokio::sync::mpsc::Receiver;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement, Transaction};

const PUT: &str = "\
insert into fhir.resource (resource_type, id, content)
select new.resource_type, new.id, new.content::json
  from unnest($1::text[], $2::text[], $3::text[]) as new (resource_type, id, content)
on conflict (resource_type, id) do update set content = excluded.content";

const DELETE: &str = "\
delete from fhir.resource r
 using unnest($1::text[], $2::text[]) as gone (resource_type, id)
 where r.resource_type = gone.resource_type and r.id = gone.id";

/// How the writing ended.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum End {
    /// All that came was written.
    Complete,
    /// The database refused something and nobody asked to go on.
    Stopped,
}

/// Writes what comes, until nothing comes any more. A transaction whose last piece never comes is not kept.
pub(super) async fn write_all(
    client: Client,
    pieces: Receiver<Piece>,
    keep_going: bool,
    report: &Report,
) -> anyhow::Result<End> {
    let prepared = async { Ok((client.prepare(PUT).await?, client.prepare(DELETE).await?)) };
    let (put, delete) = prepared.await.map_err(|error: Error| match error.code() {
        Some(&SqlState::UNDEFINED_TABLE) => {
            anyhow::anyhow!("the database has no table fhir.resource: make it with 'fhir-tail migrate'")
        }
        _ => anyhow::Error::new(error).context("cannot write to fhir.resource"),
    })?;
    let mut writer = Writer { client, pieces, statements: Statements { put, delete }, report };
    writer.run(keep_going).await.context("writing failed: what was in that transaction is not kept")
}

/// How many rows a transaction wrote and deleted.
#[derive(Clone, Copy, Default)]
struct Tally {
    written: u64,
    deleted: u64,
}

/// What became of a transaction.
enum Outcome {
    Committed(Tally),
    /// Its last piece never came.
    Incomplete,
    /// The database refused what is in this piece.
    Refused(Piece, Bad),
}

struct Writer<'a> {
    client: Client,
    pieces: Receiver<Piece>,
    statements: Statements,
    report: &'a Report,
}

impl Writer<'_> {
    async fn run(&mut self, keep_going: bool) -> Result<End, Error> {
        while let Some(first) = self.pieces.recv().await {
            let whole = first.last;
            match self.transaction(first).await? {
                Outcome::Committed(tally) => self.report.committed(tally.written, tally.deleted),
                Outcome::Incomplete => return Ok(End::Complete),
                Outcome::Refused(piece, bad) => {
                    if whole {
                        self.one_by_one(&piece.operations, &bad, keep_going).await?;
                    } else {
                        self.leave_out(piece, &bad, keep_going).await;
                    }
                    if !keep_going {
                        return Ok(End::Stopped);
                    }
                }
            }
        }
        Ok(End::Complete)
    }

    /// The piece and those that follow it up to the last one, all or none.
    async fn transaction(&mut self, mut piece: Piece) -> Result<Outcome, Error> {
        let transaction = self.client.transaction().await?;
        let mut tally = Tally::default();
        loop {
            match refusal(self.statements.write(&transaction, &piece.operations).await)? {
                Ok(more) => {
                    tally.written += more.written;
                    tally.deleted += more.deleted;
                }
                Err(bad) => {
                    transaction.rollback().await?;
                    return Ok(Outcome::Refused(piece, bad));
                }
            }
            if piece.last {
                break;
            }
            match self.pieces.recv().await {
                Some(next) => piece = next,
                None => return Ok(Outcome::Incomplete),
            }
        }
        // What is checked at the end of a transaction is refused here.
        Ok(match refusal(transaction.commit().await)? {
            Ok(()) => Outcome::Committed(tally),
            Err(bad) => Outcome::Refused(piece, bad),
        })
    }

    /// A Bundle of several pieces was refused: what is left of it is passed over.
    async fn leave_out(&mut self, mut piece: Piece, bad: &Bad, keep_going: bool) {
        if let Some(operation) = piece.operations.first() {
            let mut origin = operation.origin.clone();
            origin.entry = None;
            self.report.tell(&origin, bad);
        }
        while keep_going && !piece.last {
            match self.pieces.recv().await {
                Some(next) => piece = next,
                None => return,
            }
        }
    }

    /// A batch was refused: finds out where, and writes the rest of it if `keep_going`, unit by unit.
    async fn one_by_one(
        &mut self,
        operations: &[Operation],
        bad: &Bad,
        keep_going: bool,
    ) -> Result<(), Error> {
        if keep_going {
            for unit in operations.chunk_by(|one, next| one.unit == next.unit) {
                self.unit(unit).await?;
            }
            return Ok(());
        }
        let transaction = self.client.transaction().await?;
        for operation in operations {
            let written = self.statements.write(&transaction, slice::from_ref(operation)).await;
            if let Err(bad) = refusal(written)? {
                self.report.tell(&operation.origin, &bad);
                return transaction.rollback().await;
            }
        }
        // Refused all together and one by one not: nobody can say which it is.
        if let Some(first) = operations.first() {
            self.report.tell(&first.origin, bad);
        }
        transaction.rollback().await
    }

    async fn unit(&mut self, operations: &[Operation]) -> Result<(), Error> {
        let transaction = self.client.transaction().await?;
        let mut tally = Tally::default();
        for operation in operations {
            match refusal(self.statements.write(&transaction, slice::from_ref(operation)).await)? {
                Ok(more) => {
                    tally.written += more.written;
                    tally.deleted += more.deleted;
                }
                Err(bad) => {
                    self.report.tell(&operation.origin, &bad);
                    return transaction.rollback().await;
                }
            }
        }
        match (refusal(transaction.commit().await)?, operations.first()) {
            (Ok(()), _) => self.report.committed(tally.written, tally.deleted),
            (Err(bad), Some(first)) => self.report.tell(&first.origin, &bad),
            (Err(_), None) => {}
        }
        Ok(())
    }
}

/// The statements, as the server knows them.
struct Statements {
    put: Statement,
    delete: Statement,
}

impl Statements {
    /// Writes operations: of those with the same key the last one, as one statement touches a row once.
    async fn write(&self, transaction: &Transaction<'_>, operations: &[Operation]) -> Result<Tally, Error> {
        let mut last = HashMap::with_capacity(operations.len());
        for (at, operation) in operations.iter().enumerate() {
            last.insert((operation.resource_type, operation.id.as_str()), at);
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
        let mut tally = Tally::default();
        if !ids.is_empty() {
            tally.written = transaction.execute(&self.put, &[&types, &ids, &contents]).await?;
        }
        if !gone_ids.is_empty() {
            tally.deleted = transaction.execute(&self.delete, &[&gone_types, &gone_ids]).await?;
        }
        Ok(tally)
    }
}

/// Tells what the database refuses because of what it was given from everything else that can fail.
fn refusal<T>(result: Result<T, Error>) -> Result<Result<T, Bad>, Error> {
    let error = match result {
        Ok(value) => return Ok(Ok(value)),
        Err(error) => error,
    };
    let code = error.code().map_or("", SqlState::code);
    let told = match (code.get(..2), error.as_db_error()) {
        // A constraint's message names the constraint; its detail has the row and is not shown.
        (Some("23"), Some(error)) => format!("{} (SQLSTATE {code})", error.message()),
        // Bad data, too much of it, or a trigger's refusal: these messages may repeat values.
        (Some("22" | "54" | "P0"), _) => format!("SQLSTATE {code}"),
        _ => return Err(error),
    };
    Ok(Err(Bad::Refused(told)))
}
