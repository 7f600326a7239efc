//! Batches into `fhir.resource`, each in one transaction.
//!
//! A batch is one upsert from arrays, and one delete: nothing is staged, no temporary table is made. While one is
//! written the next one is too, over a second connection, unless they share a key: Postgres works on both with a core
//! each. It is committed after the first, so that what is kept is always a beginning of the input.

use super::batch::{Key, Operation, Piece};
use super::report::Report;
use super::resource::Bad;
use anyhow::Context as _;
use std::collections::{HashMap, HashSet};
use std::slice;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
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

/// A batch that is written waits so long for the one before it. That may wait for somebody who waits for rows
/// of this one, which Postgres cannot see: then this one is taken back and written again.
const PATIENCE: Duration = Duration::from_secs(1);

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
    [first, second]: [Client; 2],
    pieces: Receiver<Piece>,
    keep_going: bool,
    report: &Report,
) -> anyhow::Result<End> {
    let (first, second) = (Lane::prepare(first).await?, Lane::prepare(second).await?);
    let mut writer = Writer { first, second, pieces, next: None, report };
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

/// What became of the piece that was written beside another.
enum Beside {
    /// There was none.
    None,
    /// It has to be written by itself.
    Alone(Piece),
    Committed(Tally),
    /// The database refused it.
    Refused(Piece, Bad),
}

/// A connection, and the statements as the server knows them there.
struct Lane {
    client: Client,
    statements: Statements,
}

struct Writer<'a> {
    first: Lane,
    second: Lane,
    pieces: Receiver<Piece>,
    /// Received, and not yet begun.
    next: Option<Piece>,
    report: &'a Report,
}

impl Writer<'_> {
    async fn run(&mut self, keep_going: bool) -> Result<End, Error> {
        while let Some(piece) = self.receive().await {
            let whole = piece.last;
            let (outcome, beside) =
                if whole { self.two(piece).await? } else { (self.transaction(piece).await?, Beside::None) };
            match outcome {
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
            match beside {
                Beside::None => {}
                Beside::Alone(piece) => self.next = Some(piece),
                Beside::Committed(tally) => self.report.committed(tally.written, tally.deleted),
                Beside::Refused(piece, bad) => {
                    self.one_by_one(&piece.operations, &bad, keep_going).await?;
                    if !keep_going {
                        return Ok(End::Stopped);
                    }
                }
            }
        }
        Ok(End::Complete)
    }

    async fn receive(&mut self) -> Option<Piece> {
        match self.next.take() {
            Some(piece) => Some(piece),
            None => self.pieces.recv().await,
        }
    }

    /// A whole batch, and beside it the next one if that is whole too and has none of its keys.
    async fn two(&mut self, piece: Piece) -> Result<(Outcome, Beside), Error> {
        let keys: HashSet<Key<'_>> = piece.operations.iter().map(Operation::key).collect();
        let (committed, before) = oneshot::channel();
        let (first, second, pieces) = (&mut self.first, &mut self.second, &mut self.pieces);
        let one = async {
            let written = first.write(&piece.operations).await?;
            // Without an answer, which is a refusal, the other is taken back.
            if written.is_ok() {
                let _ = committed.send(());
            } else {
                drop(committed);
            }
            Ok::<_, Error>(written)
        };
        let (written, beside) = tokio::try_join!(one, second.beside(pieces, &keys, before))?;
        drop(keys);
        let outcome = match written {
            Ok(tally) => Outcome::Committed(tally),
            Err(bad) => Outcome::Refused(piece, bad),
        };
        Ok((outcome, beside))
    }

    /// The piece and those that follow it up to the last one, all or none.
    async fn transaction(&mut self, mut piece: Piece) -> Result<Outcome, Error> {
        let transaction = self.first.client.transaction().await?;
        let mut tally = Tally::default();
        loop {
            match refusal(self.first.statements.write(&transaction, &piece.operations).await)? {
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
        let transaction = self.first.client.transaction().await?;
        for operation in operations {
            let written = self.first.statements.write(&transaction, slice::from_ref(operation)).await;
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
        let transaction = self.first.client.transaction().await?;
        let mut tally = Tally::default();
        for operation in operations {
            match refusal(self.first.statements.write(&transaction, slice::from_ref(operation)).await)? {
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

impl Lane {
    async fn prepare(client: Client) -> anyhow::Result<Self> {
        let prepared = async { Ok((client.prepare(PUT).await?, client.prepare(DELETE).await?)) };
        let (put, delete) = prepared.await.map_err(|error: Error| match error.code() {
            Some(&SqlState::UNDEFINED_TABLE) => {
                anyhow::anyhow!("the database has no table fhir.resource: make it with 'fhir-tail migrate'")
            }
            _ => anyhow::Error::new(error).context("cannot write to fhir.resource"),
        })?;
        Ok(Self { client, statements: Statements { put, delete } })
    }

    /// Writes operations in one transaction; what was refused was rolled back.
    async fn write(&mut self, operations: &[Operation]) -> Result<Result<Tally, Bad>, Error> {
        let transaction = self.client.transaction().await?;
        match refusal(self.statements.write(&transaction, operations).await)? {
            // What is checked at the end of a transaction is refused there.
            Ok(tally) => Ok(refusal(transaction.commit().await)?.map(|()| tally)),
            Err(bad) => {
                transaction.rollback().await?;
                Ok(Err(bad))
            }
        }
    }

    /// The next piece, as soon as there is one and until `before` is committed; it is committed after that.
    async fn beside(
        &mut self,
        pieces: &mut Receiver<Piece>,
        taken: &HashSet<Key<'_>>,
        mut before: oneshot::Receiver<()>,
    ) -> Result<Beside, Error> {
        let piece = tokio::select! {
            biased;
            _ = &mut before => return Ok(Beside::None),
            piece = pieces.recv() => match piece {
                Some(piece) => piece,
                None => return Ok(Beside::None),
            },
        };
        if !piece.last || piece.operations.iter().any(|operation| taken.contains(&operation.key())) {
            return Ok(Beside::Alone(piece));
        }
        let transaction = self.client.transaction().await?;
        let written = refusal(self.statements.write(&transaction, &piece.operations).await)?;
        let tally = match written {
            Ok(tally) => tally,
            Err(bad) => {
                transaction.rollback().await?;
                return Ok(Beside::Refused(piece, bad));
            }
        };
        if !matches!(tokio::time::timeout(PATIENCE, before).await, Ok(Ok(()))) {
            transaction.rollback().await?;
            return Ok(Beside::Alone(piece));
        }
        Ok(match refusal(transaction.commit().await)? {
            Ok(()) => Beside::Committed(tally),
            Err(bad) => Beside::Refused(piece, bad),
        })
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
