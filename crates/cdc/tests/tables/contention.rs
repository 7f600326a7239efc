//! Several writers on a few keys: versions and stamps rise in the order of the commits.

use crate::cluster::{Cluster, TestDatabase, number};
use crate::log;
use std::collections::HashMap;
use tokio_postgres::Client;

const WRITERS: u64 = 6;
const TRANSACTIONS: usize = 150;
const KEYS: usize = 3;

const BULK: &str = "set local fhir.bulk_load = on;";

fn statement(random: &mut fastrand::Rng) -> String {
    let key = random.usize(..KEYS);
    let insert = format!(
        "insert into fhir.resource (resource_type, id, content) values ('Basic', 'k{key}', '{{\"n\":{}}}')",
        random.u32(..)
    );
    match random.u8(..8) {
        0 | 1 => insert,
        2 => format!("{insert} on conflict do nothing"),
        3 => format!("{insert} on conflict (resource_type, id) do update set content = excluded.content"),
        4 => format!("select fhir.put('Basic', 'k{key}', '{{}}')"),
        5 => format!(
            "update fhir.resource set content = '{{}}' where resource_type = 'Basic' and id = 'k{key}'"
        ),
        _ => format!("delete from fhir.resource where resource_type = 'Basic' and id = 'k{key}'"),
    }
}

/// Runs transactions of one to three statements. What the server refuses (a duplicate key, a deadlock, a
/// serialization failure) is rolled back, as an application would; the number of those that committed.
async fn write(client: Client, isolations: &[&str], seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut committed = 0;
    for _ in 0..TRANSACTIONS {
        let isolation = isolations[random.usize(..isolations.len())];
        let mut sql = format!("begin isolation level {isolation};");
        if isolation == "read committed" && random.u8(..3) == 0 {
            sql.push_str(BULK);
        }
        for _ in 0..random.usize(1..=3) {
            sql.push_str(&statement(&mut random));
            sql.push(';');
        }
        sql.push_str(if random.u8(..8) == 0 { "rollback" } else { "commit" });
        match client.batch_execute(&sql).await {
            Ok(()) => committed += 1,
            Err(error) => {
                let code = error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned();
                assert!(["23505", "40001", "40P01"].contains(&code.as_str()), "{error:?}");
                client.batch_execute("rollback").await.unwrap();
            }
        }
    }
    committed
}

/// Lets the writers loose, and looks at the log.
async fn run(database: &TestDatabase, isolations: &'static [&'static str], seed: u64) {
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = database.client().await;
        client.batch_execute("set deadlock_timeout = '20ms'").await.unwrap();
        writers.spawn(write(client, isolations, seed * 100 + writer));
    }
    let committed: usize = writers.join_all().await.iter().sum();
    assert!(committed > 100, "only {committed} transactions were not refused (seed {seed})");

    // The last that each transaction says of a key is what counts of it.
    let mut outcomes: Vec<log::Write> = Vec::new();
    for write in log::writes(&log::read(&client, &database.name).await) {
        outcomes.retain(|outcome| outcome.transaction != write.transaction || outcome.id != write.id);
        outcomes.push(write);
    }
    let mut newest: HashMap<String, log::Write> = HashMap::new();
    for outcome in outcomes {
        if let Some(before) = newest.get(&outcome.id) {
            assert!(outcome.version > before.version, "{outcome:?} after {before:?} (seed {seed})");
            assert!(outcome.stamp > before.stamp, "{outcome:?} after {before:?} (seed {seed})");
        }
        newest.insert(outcome.id.clone(), outcome);
    }
    // What the log ends with is what the tables hold.
    for outcome in newest.values() {
        let sql = format!(
            "select count(*) from fhir.{} t where id = '{}' and version_id = {}",
            outcome.table, outcome.id, outcome.version
        );
        assert_eq!(number(&client, &sql).await, 1, "{outcome:?} (seed {seed})");
    }
    let younger = "select count(*) from fhir.tombstone t join fhir.resource r using (resource_type, id)
                   where t.version_id > r.version_id or t.last_updated >= r.last_updated";
    assert_eq!(number(&client, younger).await, 0, "a tombstone is younger than its row (seed {seed})");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_rise_and_no_tombstone_stays_beside_its_row() {
    let database = Cluster::database().await;
    for seed in 0..3 {
        run(&database, &["read committed"], seed).await;
        let client = database.client().await;
        let both = "select count(*) from fhir.tombstone t join fhir.resource r using (resource_type, id)";
        assert_eq!(number(&client, both).await, 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_rise_at_every_isolation_level() {
    let database = Cluster::database().await;
    for seed in 3..6 {
        run(&database, &["read committed", "repeatable read", "serializable"], seed).await;
    }
}

/// Begins an insert on a connection of its own, and comes back once it waits for another transaction.
async fn insert_that_waits(
    database: &TestDatabase,
    isolation: &str,
    setting: &str,
) -> tokio::task::JoinHandle<Result<(), tokio_postgres::Error>> {
    let (client, watcher) = (database.client().await, database.client().await);
    let pid = number(&client, "select pg_backend_pid()::bigint").await;
    let insert = "insert into fhir.resource (resource_type, id, content) values ('Basic', 'x', '{}')";
    let sql = format!("begin isolation level {isolation}; {setting} {insert}; commit");
    let waits = tokio::spawn(async move { client.batch_execute(&sql).await });
    let blocked = format!("select cardinality(pg_blocking_pids({pid}))::bigint");
    while number(&watcher, &blocked).await == 0 {}
    waits
}

/// The row is there: the insert waits for its lock, and is stamped after that.
#[tokio::test]
async fn an_insert_waits_before_it_is_stamped() {
    let database = Cluster::database().await;
    let first = database.client().await;
    first.batch_execute("select fhir.put('Basic', 'x', '{}')").await.unwrap();
    first.batch_execute("begin; update fhir.resource set content = '{}'").await.unwrap();
    let waits = insert_that_waits(&database, "read committed", "").await;
    first.batch_execute("delete from fhir.resource; commit").await.unwrap();
    waits.await.unwrap().unwrap();
    // Put, update, deletion, insert: had the insert been stamped before it waited, it would be the third, and again
    // the fifth.
    assert_eq!(number(&first, "select version_id from fhir.resource").await, 4);
    assert_eq!(number(&first, "select last_value from fhir.version").await, 4);
}

/// The row is not there yet: the insert waits in the unique index, behind its stamp, for a transaction that inserts
/// and deletes.
#[tokio::test]
async fn an_insert_that_was_stamped_before_it_waited_is_stamped_again() {
    for isolation in ["read committed", "repeatable read"] {
        let database = Cluster::database().await;
        let first = database.client().await;
        first.batch_execute("begin; select fhir.put('Basic', 'x', '{}')").await.unwrap();
        let waits = insert_that_waits(&database, isolation, "").await;
        first.batch_execute("delete from fhir.resource; commit").await.unwrap();
        waits.await.unwrap().unwrap();
        // Put, the insert that waits, deletion: the fourth is its own.
        assert_eq!(number(&first, "select version_id from fhir.resource").await, 4, "{isolation}");
        let younger = "select count(*) from fhir.tombstone t join fhir.resource r using (resource_type, id)
                       where t.version_id > r.version_id or t.last_updated >= r.last_updated";
        assert_eq!(number(&first, younger).await, 0, "{isolation}");
    }
}

/// A bulk load's insert is not stamped again: who loads runs it again.
#[tokio::test]
async fn an_insert_of_a_bulk_load_that_waited_behind_its_stamp_is_refused() {
    let database = Cluster::database().await;
    let first = database.client().await;
    first.batch_execute("select fhir.put('Basic', 'x', '{}')").await.unwrap();
    // A deletion that is taken back: the row is there.
    first.batch_execute("begin; delete from fhir.resource").await.unwrap();
    let waits = insert_that_waits(&database, "read committed", BULK).await;
    first.batch_execute("rollback").await.unwrap();
    let refused = waits.await.unwrap().unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23505", "{refused:?}");
    // One that is not.
    first.batch_execute("begin; update fhir.resource set content = '{}'").await.unwrap();
    let waits = insert_that_waits(&database, "read committed", BULK).await;
    first.batch_execute("delete from fhir.resource; commit").await.unwrap();
    let refused = waits.await.unwrap().unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "40001", "{refused:?}");
    assert_eq!(number(&first, "select count(*) from fhir.tombstone").await, 1, "the deletion stands");
    // Nobody in the way.
    let insert = "insert into fhir.resource (resource_type, id, content) values ('Basic', 'x', '{}')";
    first.batch_execute(&format!("begin; {BULK} {insert}; commit")).await.unwrap();
    assert_eq!(number(&first, "select count(*) from fhir.tombstone").await, 0);

    let unseen =
        format!("begin isolation level repeatable read; {BULK} select fhir.put('Basic', 'y', '{{}}')");
    let refused = first.batch_execute(&unseen).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25000", "{refused:?}");
}
