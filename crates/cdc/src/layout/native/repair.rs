//! What `migrate` makes right at every run: role, grants, publication, triggers and functions. The ledger of the files
//! that were applied says nothing of them: a dump brings the ledger into a cluster that has no such role, and a restore
//! can leave triggers disabled.

use crate::layout::native::facts;
use crate::layout::native::migrate::LOCK;
use crate::layout::native::migrate::SERVICE_ROLE;
use crate::{TableName, publication};
use pg::replication::quoted;
use tokio_postgres::Client;
use tokio_postgres::error::{Error, SqlState};

/// The publication that the migrations make.
const PUBLICATION: &str = "fhir_tail";

/// What was made right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// The statements that were run.
    pub done: Vec<String>,
    /// Those that this role may not run: for a superuser.
    pub left: Vec<String>,
}

/// A statement failed, and not for lack of rights.
#[derive(Debug, thiserror::Error)]
#[error("'{statement}' failed")]
pub struct RepairError {
    statement: String,
    #[source]
    source: Error,
}

impl RepairError {
    fn of(statement: &str) -> impl FnOnce(Error) -> Self {
        let statement = statement.to_owned();
        |source| Self { statement, source }
    }
}

/// Makes right what this role may, on a database that is migrated. Two that run at once wait for each other.
pub async fn repair(client: &Client) -> Result<Repaired, RepairError> {
    let lock = RepairError::of("select pg_advisory_lock");
    client.execute("select pg_advisory_lock($1)", &[&LOCK]).await.map_err(lock)?;
    let repaired = locked(client).await;
    // If this fails the connection is gone, and the lock with it.
    let unlocked = client.execute("select pg_advisory_unlock($1)", &[&LOCK]).await;
    let repaired = repaired?;
    unlocked.map_err(RepairError::of("select pg_advisory_unlock"))?;
    Ok(repaired)
}

async fn locked(client: &Client) -> Result<Repaired, RepairError> {
    let asking = || RepairError::of("what is wrong");
    client.batch_execute("set lock_timeout = '10s'").await.map_err(asking())?;
    let mut tried: Vec<String> = Vec::new();
    // One can show the next: a function that is made again is one that the role may not call yet.
    let left = loop {
        let wanted = wanted(client).await.map_err(asking())?;
        let untried: Vec<_> =
            wanted.iter().filter(|&statement| !tried.contains(statement)).cloned().collect();
        if untried.is_empty() {
            break wanted;
        }
        for statement in &untried {
            match client.batch_execute(statement).await {
                Ok(()) => tracing::info!(statement, "repaired"),
                // What is refused is left; what another database's migrate did to the same role meanwhile is done.
                Err(error) if is_refused(&error) => {
                    tracing::debug!(statement, "may not be repaired by this role");
                }
                Err(error) => return Err(RepairError::of(statement)(error)),
            }
        }
        tried.extend(untried);
    };
    // A grant without the right to grant is no error: what counts is what is so.
    let done = tried.into_iter().filter(|statement| !left.contains(statement)).collect();
    Ok(Repaired { done, left })
}

fn is_refused(error: &Error) -> bool {
    let refusals = [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNIQUE_VIOLATION,
        // "tuple concurrently updated"
        SqlState::INTERNAL_ERROR,
        // A grant to a role that could not be created.
        SqlState::UNDEFINED_OBJECT,
    ];
    error.code().is_some_and(|code| refusals.contains(code))
}

/// The statements that make everything right, in order.
async fn wanted(client: &Client) -> Result<Vec<String>, Error> {
    let mut wanted: Vec<String> = role(client).await?.into_iter().collect();
    wanted.extend(grants(client).await?);
    let tables = ["resource", "tombstone"].map(|name| TableName::new("fhir", name));
    match publication::published(client, PUBLICATION, &tables).await? {
        None => wanted.push(publication::create_sql(PUBLICATION, &tables)),
        Some(published) => wanted.extend(published.lacks(PUBLICATION).map(|lack| lack.sql)),
    }
    wanted.extend(facts::trigger_repairs(client).await?);
    wanted.extend(facts::patient_repairs(client).await?);
    Ok(wanted)
}

async fn role(client: &Client) -> Result<Option<String>, Error> {
    let role = client
        .query_opt(
            // Managed services have a group for it, as the attribute takes a superuser.
            "select r.rolreplication or r.rolsuper or exists ( \
                    select from pg_roles g where g.rolname = 'rds_replication' and pg_has_role(r.oid, g.oid, 'member')) \
               from pg_roles r where r.rolname = $1::text",
            &[&SERVICE_ROLE],
        )
        .await?;
    Ok(match role {
        None => Some(format!("create role {} nologin replication;", quoted(SERVICE_ROLE))),
        Some(role) if role.try_get(0)? => None,
        Some(_) => Some(format!("alter role {} replication;", quoted(SERVICE_ROLE))),
    })
}

async fn grants(client: &Client) -> Result<Vec<String>, Error> {
    let row = client
        .query_one(
            "select coalesce(has_schema_privilege(r.oid, n.oid, 'usage'), false), \
                    coalesce(pg_has_role(r.oid, 'pg_read_all_stats', 'usage'), false), \
                    (select coalesce(array_agg(c.relname::text order by c.relname), '{}') from pg_class c \
                      where c.relnamespace = n.oid and c.relname::text = any($2) \
                        and not coalesce(has_table_privilege(r.oid, c.oid, 'select'), false)), \
                    exists (select from pg_proc p where p.pronamespace = n.oid and p.proname = 'close_time' \
                               and not coalesce(has_function_privilege(r.oid, p.oid, 'execute'), false)) \
               from pg_namespace n left join pg_roles r on r.rolname = $1::text where n.nspname = 'fhir'",
            &[&SERVICE_ROLE, &facts::READ.as_slice()],
        )
        .await?;
    let role = quoted(SERVICE_ROLE);
    let mut wanted = Vec::new();
    if !row.try_get::<_, bool>(0)? {
        wanted.push(format!("grant usage on schema fhir to {role};"));
    }
    let unread: Vec<String> = row.try_get(2)?;
    if !unread.is_empty() {
        let tables: Vec<_> = unread.iter().map(|name| format!("fhir.{}", quoted(name))).collect();
        wanted.push(format!("grant select on {} to {role};", tables.join(", ")));
    }
    if row.try_get(3)? {
        wanted.push(format!("grant execute on function fhir.close_time(timestamptz) to {role};"));
    }
    if !row.try_get::<_, bool>(1)? {
        wanted.push(format!("grant pg_read_all_stats to {role};"));
    }
    Ok(wanted)
}
