//! Several writers on a few keys: versions and stamps rise in the order of the commits.

use crate::cluster::{Cluster, TestDatabase, number, text};
use crate::log;
use std::collections::HashMap;
use tokio_postgres::{Client, SimpleQueryMessage};

const WRITERS: u64 = 6;
const TRANSACTIONS: usize = 150;
const KEYS: usize = 3;

const BULK: &str = "set local fhir.bulk_load = on;";

/// As in a transaction that has locked as many keys as it may, or of a writer that sets what is not his to set.
const NO_KEY_LOCKED: &str = "set local fhir.keys_locked = '................';
                             do $$ begin perform pg_current_xact_id(); end $$;";

fn statement(random: &mut fastrand::Rng) -> String {
    let key = random.usize(..KEYS);
    let insert = format!(
        "insert into fhir.resource (resource_type, id, content) values ('Basic', 'k{key}', '{{\"n\":{}}}')",
        random.u32(..)
    );
    match random.u8(..10) {
        8 => format!("savepoint s; {insert}; rollback to s"),
        9 => format!(
            "insert into fhir.resource (resource_type, id, content)
             select 'Basic', 'k' || i, '{{}}' from generate_series({key}, {key} + 1) i
             on conflict (resource_type, id) do update set content = excluded.content"
        ),
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
        if random.u8(..4) == 0 {
            sql.push_str(NO_KEY_LOCKED);
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

    // Each that is told is newer than the one before, also within a transaction.
    let mut newest: HashMap<String, log::Write> = HashMap::new();
    for write in log::writes(&log::read(&client, &database.name).await) {
        if let Some(before) = newest.get(&write.id) {
            assert!(write.version > before.version, "{write:?} after {before:?} (seed {seed})");
            assert!(write.stamp > before.stamp, "{write:?} after {before:?} (seed {seed})");
        }
        newest.insert(write.id.clone(), write);
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

const INSERT: &str =
    "insert into fhir.resource (resource_type, id, content) values ('Basic', 'x', '{}') returning version_id";

/// Begins a statement on a connection of its own, and comes back once it waits for another transaction. The result is
/// what the statement returns.
async fn waits(
    database: &TestDatabase,
    isolation: &str,
    setting: &str,
    statement: &str,
) -> tokio::task::JoinHandle<Result<Option<String>, tokio_postgres::Error>> {
    let (client, watcher) = (database.client().await, database.client().await);
    let pid = number(&client, "select pg_backend_pid()::bigint").await;
    let sql = format!("begin isolation level {isolation}; {setting} {statement}; commit");
    let waits = tokio::spawn(async move {
        let answers = client.simple_query(&sql).await?;
        Ok(answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    });
    let blocked = format!("select cardinality(pg_blocking_pids({pid}))::bigint");
    while number(&watcher, &blocked).await == 0 {
        assert!(!waits.is_finished(), "it did not wait: {:?}", waits.await);
    }
    waits
}

async fn insert_that_waits(
    database: &TestDatabase,
    isolation: &str,
    setting: &str,
) -> tokio::task::JoinHandle<Result<Option<String>, tokio_postgres::Error>> {
    waits(database, isolation, setting, INSERT).await
}

/// The versions of a resource in the order of the log.
async fn told(client: &Client, slot: &str) -> Vec<i64> {
    log::writes(&log::read(client, slot).await).iter().map(|write| write.version).collect()
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

/// The row is not there yet: whoever inserts the same key waits before it is stamped, and no version goes backwards.
#[tokio::test]
async fn an_insert_waits_for_one_that_is_not_committed_before_it_is_stamped() {
    let merge =
        "merge into fhir.resource r using (values ('x')) s (id) on r.resource_type = 'Basic' and r.id = s.id
                 when not matched then insert (resource_type, id, content) values ('Basic', 'x', '{}')";
    let many = "insert into fhir.resource (resource_type, id, content)
         select 'Basic', case i when 7 then 'x' else 'y' || i end, '{}' from generate_series(1, 10) i";
    let statements = [
        INSERT,
        "select fhir.put('Basic', 'x', '{}')",
        "insert into fhir.resource (resource_type, id, content) values ('Basic', 'x', '{}')
         on conflict do nothing returning version_id",
        "savepoint s; insert into fhir.resource (resource_type, id, content) values ('Basic', 'x', '{}'); release s",
        merge,
        many,
    ];
    let database = Cluster::database().await;
    let first = database.client().await;
    let merges = number(&first, "select current_setting('server_version_num')::bigint").await >= 150_000;
    for isolation in ["read committed", "repeatable read", "serializable"] {
        for statement in statements.iter().filter(|statement| merges || !statement.starts_with("merge")) {
            for insert in ["select fhir.put('Basic', 'x', '{}')", "savepoint s; {insert}; release s"] {
                let insert = insert.replace("{insert}", INSERT);
                first.batch_execute("delete from fhir.resource; delete from fhir.tombstone").await.unwrap();
                log::begin(&first, &database.name).await;
                first.batch_execute(&format!("begin; {insert}")).await.unwrap();
                let waiting = waits(&database, isolation, "", statement).await;
                first.batch_execute("delete from fhir.resource where id = 'x'; commit").await.unwrap();
                let returned = waiting.await.unwrap().unwrap();
                let told = log::writes(&log::read(&first, &database.name).await);
                let told: Vec<_> = told.iter().filter(|write| write.id == "x").collect();
                // Inserted, deleted, inserted: each once.
                assert_eq!(told.len(), 3, "{isolation}, {statement}: {told:?}");
                assert!(told.is_sorted_by(|a, b| a.version < b.version && a.stamp < b.stamp), "{told:?}");
                if let Some(returned) = returned {
                    assert_eq!(returned, told[2].version.to_string(), "{isolation}, {statement}");
                }
            }
        }
    }
}

/// One that does not wait before its stamp may find that the key was deleted behind it.
#[tokio::test]
async fn an_insert_whose_key_is_deleted_behind_its_stamp_is_refused() {
    let full = NO_KEY_LOCKED;
    for (isolation, theirs, ours) in [
        ("read committed", full, ""),
        ("read committed", "", full),
        ("read committed", BULK, ""),
        ("read committed", "", BULK),
        ("repeatable read", full, ""),
        ("serializable", "", full),
    ] {
        let database = Cluster::database().await;
        let first = database.client().await;
        log::begin(&first, &database.name).await;
        first.batch_execute(&format!("begin; {theirs} {INSERT}")).await.unwrap();
        let waiting = insert_that_waits(&database, isolation, ours).await;
        first.batch_execute("delete from fhir.resource; commit").await.unwrap();
        let refused = waiting.await.unwrap().unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "40001", "{isolation}, {theirs}, {ours}: {refused:?}");
        // Run again, it succeeds.
        first.batch_execute(&format!("begin isolation level {isolation}; {INSERT}; commit")).await.unwrap();
        let told = told(&first, &database.name).await;
        assert_eq!(told.len(), 3, "{isolation}, {theirs}, {ours}");
        assert!(told.is_sorted(), "{isolation}, {theirs}, {ours}: {told:?}");
    }
}

/// An old snapshot sees neither the row that others made and deleted since, nor its tombstone.
#[tokio::test]
async fn a_deletion_that_an_old_snapshot_does_not_see_is_never_overtaken() {
    let database = Cluster::database().await;
    let (first, second) = (database.client().await, database.client().await);
    log::begin(&first, &database.name).await;
    second
        .batch_execute("begin isolation level repeatable read; select count(*) from fhir.resource")
        .await
        .unwrap();
    for sql in ["", "begin;"] {
        first.batch_execute(&format!("{sql} select fhir.put('Basic', 'x', '{{}}')")).await.unwrap();
    }
    let sql = format!("{INSERT}; commit");
    let pid = number(&second, "select pg_backend_pid()::bigint").await;
    let waiting = tokio::spawn(async move { second.batch_execute(&sql).await });
    let watcher = database.client().await;
    while number(&watcher, &format!("select cardinality(pg_blocking_pids({pid}))::bigint")).await == 0 {}
    first.batch_execute("delete from fhir.resource; commit").await.unwrap();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "40001", "{refused:?}");
    let told = told(&first, &database.name).await;
    // Inserted, updated, deleted.
    assert!(told.len() == 3 && told.is_sorted(), "{told:?}");
}

/// To wait for the key with the row locked, or for the row with the key locked, would be a deadlock.
#[tokio::test]
async fn who_replaces_a_resource_in_two_statements_and_who_puts_it_do_not_block_each_other() {
    for (one, two) in [
        ("delete from fhir.resource", INSERT),
        ("update fhir.resource set content = '{}'", "select fhir.put('Basic', 'x', '{}')"),
        ("delete from fhir.resource", "select fhir.put('Basic', 'x', '{}')"),
    ] {
        let database = Cluster::database().await;
        let first = database.client().await;
        first.batch_execute("select fhir.put('Basic', 'x', '{}')").await.unwrap();
        first.batch_execute(&format!("begin; {one}")).await.unwrap();
        let put = "select fhir.put('Basic', 'x', '{}')";
        let waiting = waits(&database, "read committed", "", put).await;
        first.batch_execute(&format!("{two}; commit")).await.unwrap();
        waiting.await.unwrap().unwrap();
        assert_eq!(number(&first, "select count(*) from fhir.resource").await, 1, "{one}; {two}");
        assert_eq!(number(&first, "select count(*) from fhir.tombstone").await, 0, "{one}; {two}");
    }
}

/// They are in memory that the server shares.
#[tokio::test]
async fn a_transaction_locks_a_few_keys_however_many_it_inserts() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let locked = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    let many = "insert into fhir.resource (resource_type, id, content)
                select 'Basic', 'm' || i, '{}' from generate_series(1, 500) i";
    client.batch_execute(&format!("begin; {many}")).await.unwrap();
    assert_eq!(number(&client, locked).await, 16);
    client.batch_execute("rollback; begin").await.unwrap();
    for i in 0..40 {
        client.batch_execute(&format!("select fhir.put('Basic', 's{i}', '{{}}')")).await.unwrap();
    }
    assert_eq!(number(&client, locked).await, 16);
    // What is taken back is unlocked, and may be locked again.
    client.batch_execute("rollback; begin; savepoint s").await.unwrap();
    client.batch_execute(&format!("{many}; rollback to s")).await.unwrap();
    assert_eq!(number(&client, locked).await, 0);
    client.batch_execute(many).await.unwrap();
    assert!((15..=16).contains(&number(&client, locked).await));
    client.batch_execute("commit").await.unwrap();
    assert_eq!(number(&client, locked).await, 0);
}

/// The clock steps back after a deletion: the insert is told once, later than the deletion.
#[tokio::test]
async fn an_insert_is_stamped_after_the_deletion_by_a_clock_that_has_stepped_back() {
    for setting in ["", BULK] {
        let database = Cluster::database().await;
        let client = database.client().await;
        log::begin(&client, &database.name).await;
        let clock = |seconds: u32| {
            format!(
                "select setval('fhir.closed_time', (extract(epoch from clock_timestamp()) * 1000000)::bigint
                                                  + {seconds} * 1000000)"
            )
        };
        // Stamps follow the closed time, so the clock seems to stand ahead, and to step back.
        let rows = "insert into fhir.resource (resource_type, id, content)
                    values ('Basic', 'x', '{}'), ('Basic', 'y', '{}')";
        client
            .batch_execute(&format!("{}; {rows}; delete from fhir.resource; {}", clock(50), clock(0)))
            .await
            .unwrap();
        let again = format!("begin; {setting} {rows}; commit");
        let refused = client.batch_execute(&again).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "40001", "{refused:?}");
        client.batch_execute("rollback").await.unwrap();
        client.batch_execute(rows).await.unwrap();
        assert_eq!(number(&client, "select count(*) from fhir.tombstone").await, 0, "{setting}");
        // What has nothing to do with it is stamped by the clock.
        client.batch_execute("select fhir.put('Basic', 'z', '{}')").await.unwrap();
        let ahead =
            "select string_agg(id, '' order by id) from fhir.resource where last_updated > clock_timestamp()";
        assert_eq!(text(&client, ahead).await, "xy", "{setting}");

        let writes = log::writes(&log::read(&client, &database.name).await);
        for id in ["x", "y"] {
            let told: Vec<_> = writes
                .iter()
                .filter(|write| write.id == id)
                .map(|write| (write.version, &write.stamp))
                .collect();
            assert_eq!(told.len(), 3, "{setting}: {told:?}");
            assert!(told.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{setting}: {told:?}");
        }
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
