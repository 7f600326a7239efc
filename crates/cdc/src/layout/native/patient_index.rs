//! The index of the patients that contents mention: whether it is there, and how it is built on a table with rows.
//!
//! The migration builds it on an empty table. On any other it takes up to an hour, so it is built concurrently, outside of
//! a transaction, and can be cut off at any time: what an attempt left is dropped by the next one.

use pg::database::Database;
use pg::{ConnectError, Session};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// What follows the table's name. Without the rows of Groups: they mention their members, and are in no patient's
/// compartment.
const ON: &str = "using gin (fhir.mentions(content::text)) where resource_type <> 'Group'";

/// An advisory lock: "fhirindx" in ASCII. Another one than that of `migrate`, and never waited for in a statement: the
/// build waits for every statement that began before it.
const LOCK: i64 = 0x6668_6972_696e_6478;

/// How often the progress is looked at, and how often another build.
const LOOK: Duration = Duration::from_secs(2);

/// `fhir.resource`, or one of its partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) oid: u32,
    /// As SQL writes it.
    pub(crate) table: String,
    /// The table that it is a partition of.
    pub(crate) parent: Option<u32>,
    /// It has partitions, and no rows of its own.
    pub(crate) partitioned: bool,
    /// An update has all of the old row in the log.
    pub(crate) full_identity: bool,
    pub(crate) index: Option<Index>,
}

/// The index of a [`Part`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Index {
    /// As SQL writes it.
    pub(crate) name: String,
    pub(crate) valid: bool,
    /// It is part of the index of the table's parent.
    pub(crate) attached: bool,
}

/// The table and its partitions, parents first; nothing if there is no table.
pub(crate) async fn parts(client: &Client) -> Result<Vec<Part>, Error> {
    let rows = client
        .query(
            // A table without partitions is no tree. Several indexes may do: a valid one counts.
            "select t.relid::oid, t.relid::regclass::text, t.parentrelid::oid, c.relkind = 'p', c.relreplident = 'f', \
                    i.indexrelid::regclass::text, coalesce(i.valid, false), \
                    exists (select from pg_inherits h where h.inhrelid = i.indexrelid) \
               from (select relid, parentrelid, level from pg_partition_tree(to_regclass('fhir.resource')) \
                     union \
                     select oid, null, 0 from pg_class where oid = to_regclass('fhir.resource') and relkind <> 'p') t \
               join pg_class c on c.oid = t.relid \
               left join lateral ( \
                    select x.indexrelid, x.indisvalid and x.indisready and x.indislive as valid \
                      from pg_index x join pg_class k on k.oid = x.indexrelid join pg_am a on a.oid = k.relam \
                     where x.indrelid = t.relid and a.amname = 'gin' \
                       and replace(pg_get_expr(x.indexprs, x.indrelid), '(content)::text', 'content') \
                           = 'fhir.mentions(content)' \
                       and coalesce(pg_get_expr(x.indpred, x.indrelid), '') \
                           in ('', '(resource_type <> ''Group''::text)') \
                     order by valid desc, x.indexrelid limit 1) i on true \
              order by t.level, 2",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let index = match row.try_get::<_, Option<String>>(5)? {
                Some(name) => Some(Index { name, valid: row.try_get(6)?, attached: row.try_get(7)? }),
                None => None,
            };
            Ok(Part {
                oid: row.try_get(0)?,
                table: row.try_get(1)?,
                parent: row.try_get(2)?,
                partitioned: row.try_get(3)?,
                full_identity: row.try_get(4)?,
                index,
            })
        })
        .collect()
}

/// Whether pages by patients can be read by it.
pub(crate) fn is_complete(parts: &[Part]) -> bool {
    parts.first().is_some_and(|whole| whole.index.as_ref().is_some_and(|index| index.valid))
}

/// One step of a build.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Takes long, and writers do not wait.
    Concurrently(String),
    /// Takes a moment, with a lock for which writers wait.
    AtOnce(String),
}

impl Step {
    fn sql(&self) -> &str {
        match self {
            Self::Concurrently(sql) | Self::AtOnce(sql) => sql,
        }
    }
}

/// What is to be done next; `None`: it is built. A partitioned table cannot be indexed concurrently, but each partition
/// can: the index of the whole is made without them, and is valid when those of all partitions are attached to it.
fn next(parts: &[Part]) -> Option<Step> {
    let missing = parts.iter().find_map(|part| match &part.index {
        Some(index) if index.valid || part.partitioned => None,
        Some(index) => Some(Step::Concurrently(format!("drop index concurrently {}", index.name))),
        None => {
            let name = match part.parent {
                None => "resource_mentions".to_owned(),
                Some(_) => format!("resource_mentions_{}", part.oid),
            };
            let table = &part.table;
            Some(if part.partitioned {
                Step::AtOnce(format!("create index {name} on only {table} {ON}"))
            } else {
                Step::Concurrently(format!("create index concurrently {name} on {table} {ON}"))
            })
        }
    });
    // The innermost first: one is valid when all of its own are attached.
    missing.or_else(|| {
        parts.iter().rev().find_map(|part| {
            let parent = parts.iter().find(|parent| Some(parent.oid) == part.parent)?.index.as_ref()?;
            let index = part.index.as_ref().filter(|index| index.valid && !index.attached)?;
            Some(Step::AtOnce(format!("alter index {} attach partition {}", parent.name, index.name)))
        })
    })
}

/// How far a build is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IndexProgress {
    /// Another session builds the index. This one waits for it.
    Elsewhere,
    /// A statement runs.
    Building {
        /// The statement.
        statement: String,
        /// The server's word for what it does; empty if it does not say.
        phase: String,
        /// How much of that phase is done.
        percent: Option<u8>,
        /// The process whose transaction it waits for.
        waits_for: Option<i32>,
    },
}

impl IndexProgress {
    /// Whether it does the same, further on perhaps.
    pub fn is_same_phase(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Elsewhere, Self::Elsewhere) => true,
            (
                Self::Building { statement, phase, waits_for, percent: _ },
                Self::Building {
                    statement: its_statement,
                    phase: its_phase,
                    waits_for: it_waits_for,
                    percent: _,
                },
            ) => (statement, phase, waits_for) == (its_statement, its_phase, it_waits_for),
            _ => false,
        }
    }
}

impl fmt::Display for IndexProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => write!(f, "waiting for another session that builds the index of patients"),
            Self::Building { statement, phase, percent, waits_for } => {
                write!(f, "{statement}")?;
                if !phase.is_empty() {
                    write!(f, ": {phase}")?;
                }
                if let Some(percent) = percent {
                    write!(f, ", {percent} %")?;
                }
                match waits_for {
                    Some(pid) => write!(f, " (the transaction of process {pid} has to end first)"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The index could not be built. What was done before stays, and the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role may not.
    #[error("only the owner of fhir.resource, or a superuser, can run '{statement}'")]
    NotPermitted {
        /// What it may not do.
        statement: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// The database refused.
    #[error("'{statement}' failed")]
    Failed {
        /// What failed.
        statement: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// It was done, and changed nothing.
    #[error("'{statement}' has not made the index valid: see the server's log")]
    NoProgress {
        /// What was done.
        statement: String,
    },
}

impl IndexError {
    fn of(statement: &str) -> impl FnOnce(Error) -> Self {
        let statement = statement.to_owned();
        |source| match source.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Self::NotPermitted { statement, source },
            _ => Self::Failed { statement, source },
        }
    }
}

/// Builds the index of patients where it is missing, and says what was done. On a table that is in use writers go on;
/// it waits for transactions that are older than itself. `told` hears of its progress every two seconds.
///
/// Nothing is done in a database whose layout has no such index.
pub async fn build_patient_index(
    database: &Database,
    mut told: impl FnMut(&IndexProgress),
) -> Result<Vec<String>, IndexError> {
    const ASKING: &str = "what is to be indexed";
    let client = database.connect(Session::Migrate).await?;
    let wanted = async || {
        let there =
            client.query_one("select to_regprocedure('fhir.mentions(text)') is not null", &[]).await?;
        if !there.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        parts(&client).await.map(|parts| next(&parts))
    };
    let mut done = Vec::new();
    let mut locked = false;
    while let Some(step) = wanted().await.map_err(IndexError::of(ASKING))? {
        if !locked {
            lock(&client, &mut told).await.map_err(IndexError::of(ASKING))?;
            locked = true;
            // Perhaps it was built meanwhile.
            continue;
        }
        if done.last().is_some_and(|last| last == step.sql()) {
            return Err(IndexError::NoProgress { statement: step.sql().to_owned() });
        }
        run(database, &client, &step, &mut told).await?;
        done.push(step.sql().to_owned());
    }
    Ok(done)
}

/// Takes the lock, which goes with the connection. Whoever waits for it is in no statement, for which that build would wait.
async fn lock(client: &Client, told: &mut impl FnMut(&IndexProgress)) -> Result<(), Error> {
    while !client.query_one("select pg_try_advisory_lock($1)", &[&LOCK]).await?.try_get::<_, bool>(0)? {
        told(&IndexProgress::Elsewhere);
        sleep(LOOK).await;
    }
    Ok(())
}

async fn run(
    database: &Database,
    client: &Client,
    step: &Step,
    told: &mut impl FnMut(&IndexProgress),
) -> Result<(), IndexError> {
    let statement = step.sql();
    let failed = || IndexError::of(statement);
    let patience = match step {
        Step::Concurrently(_) => "0",
        Step::AtOnce(_) => "10s",
    };
    client.batch_execute(&format!("set lock_timeout = '{patience}'")).await.map_err(failed())?;
    let pid: i32 = client
        .query_one("select pg_backend_pid()", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(failed())?;
    let watch = database.connect(Session::Migrate).await?;
    let mut running = std::pin::pin!(client.batch_execute(statement));
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = &mut running => return ended.map_err(failed()),
            _ = looks.tick() => {}
        }
        // A look that fails is no reason to give up what it looks at.
        match progress(&watch, pid, statement).await {
            Ok(progress) => told(&progress),
            Err(error) => tracing::debug!(%error, "the progress of an index cannot be seen"),
        }
    }
}

async fn progress(client: &Client, pid: i32, statement: &str) -> Result<IndexProgress, Error> {
    let row = client
        .query_opt(
            "select p.phase, \
                    case when p.blocks_total > 0 then p.blocks_done * 100 / p.blocks_total \
                         when p.tuples_total > 0 then p.tuples_done * 100 / p.tuples_total end, \
                    nullif(p.current_locker_pid, 0)::int4 \
               from pg_stat_progress_create_index p where p.pid = $1",
            &[&pid],
        )
        .await?;
    let statement = statement.to_owned();
    Ok(match row {
        None => IndexProgress::Building { statement, phase: String::new(), percent: None, waits_for: None },
        Some(row) => IndexProgress::Building {
            statement,
            phase: row.try_get::<_, Option<String>>(0)?.unwrap_or_default(),
            percent: row.try_get::<_, Option<i64>>(1)?.and_then(|percent| u8::try_from(percent).ok()),
            waits_for: row.try_get(2)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(oid: u32, parent: Option<u32>, partitioned: bool) -> Part {
        Part { oid, table: format!("fhir.t{oid}"), parent, partitioned, full_identity: true, index: None }
    }

    /// Does what a step says, as the server would.
    fn perform(parts: &mut [Part], step: &Step) {
        let words: Vec<&str> = step.sql().split_whitespace().collect();
        let of_table = |parts: &mut [Part], table: &str, name: &str| {
            let part = parts.iter_mut().find(|part| part.table == table).unwrap();
            part.index =
                Some(Index { name: format!("fhir.{name}"), valid: !part.partitioned, attached: false });
        };
        match words[..] {
            ["create", "index", "concurrently", name, "on", table, ..]
            | ["create", "index", name, "on", "only", table, ..] => of_table(parts, table, name),
            ["drop", "index", "concurrently", name] => {
                let named = |part: &&mut Part| part.index.as_ref().is_some_and(|index| index.name == name);
                parts.iter_mut().find(named).unwrap().index = None;
            }
            ["alter", "index", of, "attach", "partition", name] => {
                let named = |part: &&Part, name: &str| part.index.as_ref().is_some_and(|i| i.name == name);
                let (child, parent) = (
                    parts.iter().find(|part| named(part, name)).unwrap().oid,
                    parts.iter().find(|part| named(part, of)).unwrap().oid,
                );
                let child = parts.iter_mut().find(|part| part.oid == child).unwrap();
                assert_eq!(child.parent, Some(parent));
                child.index.as_mut().unwrap().attached = true;
                let all = parts
                    .iter()
                    .filter(|part| part.parent == Some(parent))
                    .all(|part| part.index.as_ref().is_some_and(|i| i.attached && i.valid));
                parts.iter_mut().find(|part| part.oid == parent).unwrap().index.as_mut().unwrap().valid = all;
            }
            _ => panic!("{step:?}"),
        }
    }

    fn build(mut parts: Vec<Part>) -> Vec<String> {
        let mut done = Vec::new();
        while let Some(step) = next(&parts) {
            perform(&mut parts, &step);
            done.push(step.sql().to_owned());
            assert!(done.len() < 50, "{done:?}");
        }
        assert!(is_complete(&parts));
        assert!(parts.iter().all(|part| part.index.as_ref().unwrap().valid));
        done
    }

    #[test]
    fn a_plain_table_takes_one_statement() {
        let done = build(vec![part(1, None, false)]);
        let sql = format!("create index concurrently resource_mentions on fhir.t1 {ON}");
        assert_eq!(done, [sql]);
    }

    #[test]
    fn what_a_broken_build_left_is_dropped_first() {
        let mut broken = part(1, None, false);
        broken.index = Some(Index { name: "fhir.resource_mentions".into(), valid: false, attached: false });
        assert!(!is_complete(std::slice::from_ref(&broken)));
        let done = build(vec![broken]);
        assert_eq!(done[0], "drop index concurrently fhir.resource_mentions");
        assert_eq!(done.len(), 2);
    }

    #[test]
    fn partitions_are_indexed_one_by_one_and_attached_from_within() {
        let parts = vec![
            part(1, None, true),
            part(2, Some(1), false),
            part(3, Some(1), true),
            part(4, Some(3), false),
        ];
        let done = build(parts.clone());
        let attached: Vec<_> = done.iter().filter(|sql| sql.starts_with("alter")).collect();
        assert_eq!(
            attached,
            [
                "alter index fhir.resource_mentions_3 attach partition fhir.resource_mentions_4",
                "alter index fhir.resource_mentions attach partition fhir.resource_mentions_3",
                "alter index fhir.resource_mentions attach partition fhir.resource_mentions_2",
            ]
        );
        // From wherever it was cut off.
        let mut cut = parts;
        for _ in 0..done.len() {
            let step = next(&cut).unwrap();
            perform(&mut cut, &step);
            build(cut.clone());
        }
    }

    #[test]
    fn progress_is_a_sentence() {
        let mut progress = IndexProgress::Building {
            statement: "create index".into(),
            phase: "building index".into(),
            percent: Some(12),
            waits_for: None,
        };
        assert_eq!(progress.to_string(), "create index: building index, 12 %");
        if let IndexProgress::Building { waits_for, .. } = &mut progress {
            *waits_for = Some(7);
        }
        assert!(progress.to_string().ends_with("(the transaction of process 7 has to end first)"));
        let mut later = progress.clone();
        if let IndexProgress::Building { percent, .. } = &mut later {
            *percent = Some(13);
        }
        assert!(progress.is_same_phase(&later) && !progress.is_same_phase(&IndexProgress::Elsewhere));
        if let IndexProgress::Building { waits_for, .. } = &mut later {
            *waits_for = None;
        }
        assert!(!progress.is_same_phase(&later), "what it waited for has ended");
    }
}
