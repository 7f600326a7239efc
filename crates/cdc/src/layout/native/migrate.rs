//! The native layout, brought into a database: the files of `migrations/native/`, in order, each once.
//!
//! Plain SQL files and a table of their numbers, not a migration crate: there are few files, none goes
//! back, and what matters here (one transaction and one lock for each file, notices shown to the
//! operator, no driver of its own beside tokio-postgres) is forty lines.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

/// The files, in order. The number is the file name's.
pub(crate) const FILES: [(i32, &str, &str); 4] = [
    (1, "0001_resource", include_str!("../../../../../migrations/native/0001_resource.sql")),
    (2, "0002_functions", include_str!("../../../../../migrations/native/0002_functions.sql")),
    (3, "0003_access", include_str!("../../../../../migrations/native/0003_access.sql")),
    (4, "0004_patients", include_str!("../../../../../migrations/native/0004_patients.sql")),
];

/// The version with all on which the facts in `crate::facts` depend: from it on all streams but those of patients and
/// Groups are served.
pub(crate) const SERVED_FROM: i32 = 3;

/// The role that the migrations make: what the service logs in as, with no more rights than it needs.
pub const SERVICE_ROLE: &str = "fhir_tail";

/// Any number that nobody else takes an advisory lock on: "fhirtail" in ASCII.
pub(crate) const LOCK: i64 = 0x6668_6972_7461_696c;

/// A file that was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its number.
    pub version: i32,
    /// Its name, without the ending.
    pub name: &'static str,
}

/// The layout could not be brought up to date. What was applied before stays applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database refused a statement.
    #[error("migration {file} failed and was rolled back")]
    Failed {
        /// The file's name.
        file: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The role may not do what the file does.
    #[error(
        "migration {file} was rolled back: this role may not do that here; run migrate as the database's \
         owner (grant create on database … to …)"
    )]
    NotPermitted {
        /// The file's name.
        file: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Something of that name was there before.
    #[error(
        "migration {file} was rolled back: schema fhir holds a table, sequence or function of that name \
         which migrate did not make; rename it, or use another database"
    )]
    Occupied {
        /// The file's name.
        file: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A later version of this program was here.
    #[error(
        "the layout is at version {found}, this fhir-tail knows versions up to {known}: \
         use the newer fhir-tail"
    )]
    Newer {
        /// What the database is at.
        found: i32,
        /// What this program has.
        known: i32,
    },
}

impl MigrateError {
    fn new(file: &'static str, source: tokio_postgres::Error) -> Self {
        match source.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::NotPermitted { file, source },
            Some(code)
                if [SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_FUNCTION, SqlState::DUPLICATE_OBJECT]
                    .contains(code) =>
            {
                Self::Occupied { file, source }
            }
            _ => Self::Failed { file, source },
        }
    }
}

/// Applies what is missing, in order, and says what that was: nothing on a database that is up to date.
/// Two that run at once wait for each other. The files take no lock that a table in use would feel
/// for long; one that cannot get its locks within ten seconds gives up rather than queue everyone behind it.
pub async fn migrate(client: &mut Client) -> Result<Vec<Applied>, MigrateError> {
    let mut applied = Vec::new();
    for (version, name, sql) in FILES {
        if apply(client, version, name, sql).await? {
            applied.push(Applied { version, name });
        }
    }
    Ok(applied)
}

/// The version that the database is at; `None` without the layout.
pub async fn migrated_version(client: &impl GenericClient) -> Result<Option<i32>, tokio_postgres::Error> {
    if client.query_one("select to_regclass('fhir.migration') is null", &[]).await?.try_get(0)? {
        return Ok(None);
    }
    client.query_one("select max(version) from fhir.migration", &[]).await?.try_get(0)
}

/// The newest version that [`migrate`] brings.
pub const fn newest_version() -> i32 {
    FILES[FILES.len() - 1].0
}

async fn apply(
    client: &mut Client,
    version: i32,
    name: &'static str,
    sql: &str,
) -> Result<bool, MigrateError> {
    let failed = |source| MigrateError::new(name, source);
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(failed)?;
    // After the advisory lock: waiting for another migration is no reason to give up.
    transaction.batch_execute("set local lock_timeout = '10s'").await.map_err(failed)?;
    let found = migrated_version(&transaction).await.map_err(failed)?;
    match found {
        Some(found) if found > newest_version() => {
            return Err(MigrateError::Newer { found, known: newest_version() });
        }
        Some(found) if found >= version => return Ok(false),
        Some(_) => {}
        None => transaction.batch_execute(VERSIONS).await.map_err(failed)?,
    }
    transaction.batch_execute(sql).await.map_err(failed)?;
    transaction
        .execute("insert into fhir.migration (version, name) values ($1, $2)", &[&version, &name])
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(true)
}

/// Which files were applied.
const VERSIONS: &str = "
    create schema if not exists fhir;
    create table if not exists fhir.migration (
        version    integer primary key,
        name       text not null,
        applied_at timestamptz not null default now()
    );";
