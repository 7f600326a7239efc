//! Concurrent writers: single rows, transactions, deletes, re-creations, upserts that wait for each other, roll-backs,
//! commits that do not wait for the disk.

use crate::cluster::connect;
use crate::{SOON, until};
use anyhow::{Context, Result, bail};
use fastrand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, Transaction};

/// What the writers do.
#[derive(Clone, Debug)]
pub struct Load {
    /// How many at once.
    pub writers: u32,
    /// The longest pause of each between two transactions.
    pub pause: Duration,
    /// Whether connections may be lost (Postgres is restarted by the test).
    pub restarts: bool,
}

/// The types that are written.
pub const TYPES: [&str; 3] = ["Observation", "Patient", "Condition"];

/// Keys that all of them want at once.
const CONTENDED: u32 = 25;

/// Running writers.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Result<()>>>,
    commits: Arc<AtomicI64>,
}

/// Numbers every version that is written.
#[derive(Clone)]
struct Numbers(Arc<AtomicI64>);

impl Writers {
    /// Starts them.
    pub fn start(config: &Config, seed: u64, load: &Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let commits = Arc::new(AtomicI64::new(0));
        let numbers = Numbers(Arc::default());
        let tasks = (0..load.writers)
            .map(|index| {
                let writer = Writer {
                    name: index,
                    config: config.clone(),
                    random: Rng::with_seed(seed ^ u64::from(index) << 32),
                    load: load.clone(),
                    stop: Arc::clone(&stop),
                    commits: Arc::clone(&commits),
                    numbers: numbers.clone(),
                };
                tokio::spawn(writer.run())
            })
            .collect();
        Self { stop, tasks, commits }
    }

    /// Waits until so many transactions were committed, from the beginning.
    pub async fn reach(&self, commits: i64) -> Result<()> {
        until("commits", SOON, || async {
            // One that has failed is named by `stop`.
            let enough = self.commits.load(Ordering::Relaxed) >= commits || self.failed();
            Ok(enough.then_some(()))
        })
        .await
    }

    fn failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Lets them finish what they are at; how many transactions were committed.
    pub async fn stop(self) -> Result<i64> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?.context("a writer failed")?;
        }
        Ok(self.commits.load(Ordering::Relaxed))
    }
}

struct Writer {
    name: u32,
    config: Config,
    random: Rng,
    load: Load,
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicI64>,
    numbers: Numbers,
}

impl Writer {
    async fn run(mut self) -> Result<()> {
        let mut connection: Option<Client> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.random.u64(0..=self.load.pause.as_micros().try_into()?);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            let mut client = match connection.take() {
                Some(client) => client,
                None => match self.connect().await {
                    Ok(client) => client,
                    Err(_) if self.load.restarts => continue,
                    Err(error) => return Err(error),
                },
            };
            match self.transact(&mut client).await {
                Ok(()) => {
                    self.commits.fetch_add(1, Ordering::Relaxed);
                }
                // Two that wait for each other, two that insert the same key: a part of life.
                Err(error) if refused(&error) => {}
                Err(error) if self.load.restarts && lost(&error) => continue,
                Err(error) => bail!("writer {}: {error:?}", self.name),
            }
            connection = Some(client);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Client> {
        let client = connect(&self.config).await?;
        // Every third does not wait for the disk: what it commits is seen before it is safe.
        let synchronous = if self.name % 3 == 2 { "off" } else { "on" };
        client.batch_execute(&format!("set synchronous_commit = {synchronous}")).await?;
        Ok(client)
    }

    async fn transact(&mut self, client: &mut Client) -> Result<(), Error> {
        match self.random.u8(0..10) {
            // One statement, its own transaction.
            0..4 => {
                let change = self.change();
                client.batch_execute(&change).await
            }
            // Several, in any order, some of them for as long as it takes the others to run into it.
            4..8 => {
                let transaction = client.transaction().await?;
                for _ in 0..self.random.u32(1..8) {
                    transaction.batch_execute(&self.change()).await?;
                    if self.random.u8(0..4) == 0 {
                        tokio::time::sleep(Duration::from_millis(self.random.u64(0..15))).await;
                    }
                }
                self.end(transaction).await
            }
            // A part of it taken back.
            8 => {
                let mut transaction = client.transaction().await?;
                transaction.batch_execute(&self.change()).await?;
                let part = transaction.savepoint("part").await?;
                part.batch_execute(&self.change()).await?;
                part.rollback().await?;
                transaction.batch_execute(&self.change()).await?;
                self.end(transaction).await
            }
            // One that is open for longer than any margin for clocks, on a key that nobody waits for.
            9 if self.random.bool() => {
                let transaction = client.transaction().await?;
                let kind = self.kind();
                let n = self.numbers.next(1);
                let insert = format!(
                    "insert into fhir.resource (resource_type, id, content) \
                     values ('{kind}', 'l{n}', '{{\"resourceType\":\"{kind}\",\"n\":{n}}}')"
                );
                transaction.batch_execute(&insert).await?;
                tokio::time::sleep(Duration::from_millis(self.random.u64(150..900))).await;
                self.end(transaction).await
            }
            // Many rows in one statement.
            _ => {
                let kind = self.kind();
                let first = self.numbers.next(50);
                let rows = self.random.i64(2..50);
                let sql = format!(
                    "insert into fhir.resource (resource_type, id, content) \
                     select '{kind}', 'b{first}-' || i, format('{{\"resourceType\":\"{kind}\",\"n\":%s}}', {first} + i)::json \
                     from generate_series(1, {rows}) i"
                );
                client.batch_execute(&sql).await
            }
        }
    }

    async fn end(&mut self, transaction: Transaction<'_>) -> Result<(), Error> {
        if self.random.u8(0..10) == 0 { transaction.rollback().await } else { transaction.commit().await }
    }

    fn kind(&mut self) -> &'static str {
        TYPES[self.random.usize(0..TYPES.len())]
    }

    /// A statement that changes one resource, or none if it is not there.
    fn change(&mut self) -> String {
        let kind = self.kind();
        let key = format!("resource_type = '{kind}' and id = 'c{}'", self.random.u32(0..CONTENDED));
        let n = self.numbers.next(1);
        // Now and then one that is stored out of line.
        let filler = if self.random.u8(0..20) == 0 { 6_000 } else { self.random.usize(0..200) };
        let filler: String = (0..filler).map(|_| self.random.alphanumeric()).collect();
        let content =
            format!(r#"'{{"resourceType":"{kind}","n":{n},"note":[{{"text":"{filler}"}}],"value":1.50}}'"#);
        let contended = self.random.u32(0..CONTENDED);
        match self.random.u8(0..10) {
            0 | 1 => format!(
                "insert into fhir.resource (resource_type, id, content) values ('{kind}', 'u{}-{n}', {content})",
                self.name
            ),
            2..5 => format!("select fhir.put('{kind}', 'c{contended}', {content})"),
            5 | 6 => format!("update fhir.resource set content = {content} where {key}"),
            // An update that leaves the content alone is a version all the same.
            7 => format!("update fhir.resource set content = content where {key}"),
            8 => format!("delete from fhir.resource where {key}"),
            _ => format!(
                "delete from fhir.resource where {key}; select fhir.put('{kind}', 'c{contended}', {content})"
            ),
        }
    }
}

impl Numbers {
    fn next(&self, count: i64) -> i64 {
        self.0.fetch_add(count, Ordering::Relaxed) + 1
    }
}

fn refused(error: &Error) -> bool {
    let refusals =
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION, SqlState::T_R_SERIALIZATION_FAILURE];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// The connection is gone, or Postgres has said that it goes.
fn lost(error: &Error) -> bool {
    let Some(code) = error.code() else { return true };
    [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW].contains(code)
}
