//! Batches into `fhir.resource`, each in one transaction, several at a time.
//!
//! While one batch waits for its commit the next ones are written, each over a connection of its own, unless they
//! share a key: Postgres works on them with a core each. They are committed in the order of the input, so
//! that what is kept is always a beginning of it.

use super::batch::{Operation, Piece};
use super::connection::{CommitOrder, Connection, RowCounts, Written, begin, refusal};
use super::report::Report;
use super::resource::Bad;
use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::slice;
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio_postgres::{Client, Error};

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
    clients: Vec<Client>,
    pieces: Receiver<Piece>,
    keep_going: bool,
    report: &Report,
) -> anyhow::Result<End> {
    let mut idle = Vec::with_capacity(clients.len());
    let known = Arc::default();
    for client in clients {
        idle.push(Connection::prepare(client, &known).await?);
    }
    let mut writer = Writer {
        idle,
        running: FuturesOrdered::new(),
        keys: VecDeque::new(),
        hashes: RandomState::new(),
        last_begun: None,
        queue: VecDeque::new(),
        pieces,
        ended: false,
        keep_going,
        report,
    };
    writer.run().await.context("writing failed: what was in that transaction is not kept")
}

type Running = BoxFuture<'static, Result<(Connection, Piece, Written), Error>>;

struct Writer<'a> {
    idle: Vec<Connection>,
    /// The batches that are being written, in the order of the input.
    running: FuturesOrdered<Running>,
    /// The hashes of the keys of each of them. Two keys of one hash only make one wait for the other.
    keys: VecDeque<HashSet<u64>>,
    hashes: RandomState,
    /// Hears when the batch that was begun last is committed.
    last_begun: Option<oneshot::Receiver<()>>,
    /// Received, and to be begun.
    queue: VecDeque<Piece>,
    pieces: Receiver<Piece>,
    /// No more pieces come.
    ended: bool,
    keep_going: bool,
    report: &'a Report,
}

/// Whether to go on.
enum Next {
    Go,
    Stop(End),
}

impl Writer<'_> {
    async fn run(&mut self) -> Result<End, Error> {
        loop {
            if let Next::Stop(end) = self.begin_what_can().await? {
                return Ok(end);
            }
            let room = !self.ended && self.queue.is_empty() && !self.idle.is_empty();
            if !room && self.running.is_empty() {
                return Ok(End::Complete);
            }
            tokio::select! {
                biased;
                Some(done) = self.running.next() => {
                    if let Next::Stop(end) = self.conclude(done?).await? {
                        return Ok(end);
                    }
                }
                piece = self.pieces.recv(), if room => match piece {
                    Some(piece) => self.queue.push_back(piece),
                    None => self.ended = true,
                },
            }
        }
    }

    /// Begins what is received, unless it has to wait for what is running.
    async fn begin_what_can(&mut self) -> Result<Next, Error> {
        while let Some(piece) = self.queue.pop_front() {
            if !piece.last {
                if self.running.is_empty() {
                    match self.transaction(piece).await? {
                        Next::Go => continue,
                        stop => return Ok(stop),
                    }
                }
                self.queue.push_front(piece);
                break;
            }
            let keys: HashSet<u64> =
                piece.operations.iter().map(|operation| self.hashes.hash_one(operation.key())).collect();
            let shares = self.keys.iter().any(|taken| !taken.is_disjoint(&keys));
            let connection = if shares { None } else { self.idle.pop() };
            let Some(connection) = connection else {
                self.queue.push_front(piece);
                break;
            };
            let (committed, heard) = oneshot::channel();
            let before = self.last_begun.replace(heard).filter(|_| !self.running.is_empty());
            self.keys.push_back(keys);
            self.running.push_back(Box::pin(connection.write(piece, CommitOrder { before, committed })));
        }
        Ok(Next::Go)
    }

    /// The oldest of those that were running has come to its end.
    async fn conclude(
        &mut self,
        (connection, piece, written): (Connection, Piece, Written),
    ) -> Result<Next, Error> {
        self.idle.push(connection);
        self.keys.pop_front();
        match written {
            Written::Committed(counts) => {
                self.committed(counts);
                Ok(Next::Go)
            }
            Written::RolledBack => {
                self.roll_back(Some(piece)).await?;
                Ok(Next::Go)
            }
            Written::Refused(bad) => {
                self.roll_back(None).await?;
                self.one_by_one(&piece.operations, &bad).await?;
                Ok(self.after_bad())
            }
        }
    }

    /// Nothing that follows a batch that was not committed is: it is all begun again, behind `first`.
    async fn roll_back(&mut self, first: Option<Piece>) -> Result<(), Error> {
        let mut again: Vec<Piece> = first.into_iter().collect();
        while let Some(done) = self.running.next().await {
            let (connection, piece, _) = done?;
            self.idle.push(connection);
            again.push(piece);
        }
        self.keys.clear();
        again.into_iter().rev().for_each(|piece| self.queue.push_front(piece));
        Ok(())
    }

    fn committed(&self, counts: RowCounts) {
        self.report.committed(counts.written, counts.deleted);
    }

    const fn after_bad(&self) -> Next {
        if self.keep_going { Next::Go } else { Next::Stop(End::Stopped) }
    }

    async fn receive(&mut self) -> Option<Piece> {
        match self.queue.pop_front() {
            Some(piece) => Some(piece),
            None => self.pieces.recv().await,
        }
    }

    /// The piece and those that follow it up to the last one, all or none. Nothing else is running.
    async fn transaction(&mut self, mut piece: Piece) -> Result<Next, Error> {
        // All are idle.
        let Some(mut connection) = self.idle.pop() else { return Ok(Next::Stop(End::Stopped)) };
        let transaction = begin(&mut connection.client).await?;
        let mut counts = RowCounts::default();
        let refused = loop {
            match refusal(connection.statements.write(&transaction, &piece.operations).await)? {
                Ok(more) => counts.add(more),
                Err(bad) => {
                    transaction.rollback().await?;
                    break Some(bad);
                }
            }
            if piece.last {
                // What is checked at the end of a transaction is refused here.
                break refusal(transaction.commit().await)?.err();
            }
            match self.receive().await {
                Some(next) => piece = next,
                None => return Ok(Next::Stop(End::Complete)),
            }
        };
        self.idle.push(connection);
        match refused {
            None => {
                self.committed(counts);
                Ok(Next::Go)
            }
            Some(bad) => {
                self.leave_out(piece, &bad).await;
                Ok(self.after_bad())
            }
        }
    }

    /// A Bundle of several pieces was refused: what is left of it is passed over.
    async fn leave_out(&mut self, mut piece: Piece, bad: &Bad) {
        if let Some(operation) = piece.operations.first() {
            let mut origin = operation.origin.clone();
            origin.entry = None;
            self.report.tell(&origin, bad);
        }
        while self.keep_going && !piece.last {
            match self.receive().await {
                Some(next) => piece = next,
                None => return,
            }
        }
    }

    /// A batch was refused: finds out where, and writes the rest of it if `keep_going`, unit by unit.
    async fn one_by_one(&mut self, operations: &[Operation], bad: &Bad) -> Result<(), Error> {
        let (report, keep_going) = (self.report, self.keep_going);
        // None is running, so all are idle.
        let Some(connection) = self.idle.last_mut() else { return Ok(()) };
        if keep_going {
            for unit in operations.chunk_by(|one, next| one.unit == next.unit) {
                write_unit(connection, unit, report).await?;
            }
            return Ok(());
        }
        let transaction = begin(&mut connection.client).await?;
        for operation in operations {
            let written = connection.statements.write(&transaction, slice::from_ref(operation)).await;
            if let Err(bad) = refusal(written)? {
                report.tell(&operation.origin, &bad);
                return transaction.rollback().await;
            }
        }
        // Refused all together and one by one not: nobody can say which it is.
        if let Some(first) = operations.first() {
            report.tell(&first.origin, bad);
        }
        transaction.rollback().await
    }
}

/// Writes what stays together, in a transaction of its own; what is refused is told.
async fn write_unit(
    connection: &mut Connection,
    operations: &[Operation],
    report: &Report,
) -> Result<(), Error> {
    let transaction = begin(&mut connection.client).await?;
    let mut counts = RowCounts::default();
    for operation in operations {
        match refusal(connection.statements.write(&transaction, slice::from_ref(operation)).await)? {
            Ok(more) => counts.add(more),
            Err(bad) => {
                report.tell(&operation.origin, &bad);
                return transaction.rollback().await;
            }
        }
    }
    match (refusal(transaction.commit().await)?, operations.first()) {
        (Ok(()), _) => report.committed(counts.written, counts.deleted),
        (Err(bad), Some(first)) => report.tell(&first.origin, &bad),
        (Err(_), None) => {}
    }
    Ok(())
}
