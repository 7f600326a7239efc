//! `migrate`: what it makes, twice, at once, and without rights.

use crate::cluster::{Cluster, number, text};
use cdc::layout::native::{self, MigrateError};

#[tokio::test]
async fn runs_once_however_often_and_from_however_many_places() {
    let database = Cluster::shared().empty().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(database.client().await);
    }
    let runs = clients.iter_mut().map(native::migrate);
    let applied: Vec<_> = futures_util::future::try_join_all(runs).await.unwrap().concat();
    let mut versions: Vec<_> = applied.iter().map(|applied| applied.version).collect();
    versions.sort_unstable();
    assert!(versions.is_sorted_by(|a, b| a < b), "each once: {versions:?}");
    assert_eq!((versions.first(), versions.last()), (Some(&1), Some(&native::newest_version())));
    assert_eq!(native::migrate(&mut clients[0]).await.unwrap(), []);
    assert_eq!(native::migrated_version(&clients[0]).await.unwrap(), Some(native::newest_version()));
    let published = "select string_agg(tablename, ',' order by tablename) from pg_publication_tables
                     where pubname = 'fhir_tail'";
    assert_eq!(text(&clients[0], published).await, "resource,tombstone");
}

#[tokio::test]
async fn the_services_role_can_read_and_nothing_else() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let attributes = "select concat_ws(' ', rolreplication, rolsuper, rolcanlogin, rolcreaterole)
                      from pg_roles where rolname = 'fhir_tail'";
    assert_eq!(text(&client, attributes).await, "t f f f");
    let sql = "select string_agg(t || ':' || p, ',' order by t, p)
                 from unnest(array['resource', 'tombstone', 'purged', 'restamped', 'migration']) t,
                      unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p
                where has_table_privilege('fhir_tail', 'fhir.' || t, p)";
    let granted = "migration:select,purged:select,resource:select,restamped:select,tombstone:select";
    assert_eq!(text(&client, sql).await, granted);
}

/// As a build with fewer files left it.
#[tokio::test]
async fn files_that_are_missing_are_applied_and_rows_stay() {
    let database = Cluster::shared().empty().await;
    let mut client = database.client().await;
    let first =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/native/0001_resource.sql");
    client
        .batch_execute(&format!("begin; {}; commit", std::fs::read_to_string(first).unwrap()))
        .await
        .unwrap();
    client
        .batch_execute(
            "create table fhir.migration (version integer primary key, name text not null,
                 applied_at timestamptz not null default now());
             insert into fhir.migration values (1, '0001_resource');
             insert into fhir.resource (resource_type, id, content)
                 select 'Basic', i::text, '{}' from generate_series(1, 5) i;
             delete from fhir.resource where id = '5'",
        )
        .await
        .unwrap();
    // A session that has the functions in its cache.
    let writer = database.client().await;
    writer.batch_execute("update fhir.resource set content = '{}'").await.unwrap();
    let all = "select md5(string_agg(t::text, ' ' order by id)) from fhir.resource t";
    let before = text(&client, all).await;

    let applied = native::migrate(&mut client).await.unwrap();
    assert!(applied.iter().all(|applied| applied.version > 1) && !applied.is_empty(), "{applied:?}");
    assert_eq!(text(&client, all).await, before, "nothing is rewritten");
    writer
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content) values ('Basic', '5', '{}');
             update fhir.resource set content = '{}'; delete from fhir.resource where id <= '2'",
        )
        .await
        .unwrap();
    assert_eq!(text(&client, "select string_agg(id, ',' order by id) from fhir.tombstone").await, "1,2");
    assert_eq!(number(&client, "select count(*) from fhir.resource").await, 3);
}

#[tokio::test]
async fn an_owner_that_is_no_superuser_gets_the_layout_and_is_told_of_the_rest() {
    let database = Cluster::shared().empty().await;
    let admin = database.client().await;
    let owner = format!("owner_{}", database.name);
    admin
        .batch_execute(&format!(
            "create role {owner} login; alter database {} owner to {owner}",
            database.name
        ))
        .await
        .unwrap();
    let mut client = database.database(&owner).connect("test").await.unwrap();
    assert_eq!(native::migrate(&mut client).await.unwrap().last().unwrap().version, native::newest_version());
    assert_eq!(number(&client, "select fhir.put('Basic', 'x', '{}')").await, 1);
}

#[tokio::test]
async fn who_may_not_create_is_told_what_to_grant() {
    let database = Cluster::shared().empty().await;
    let admin = database.client().await;
    let role = format!("guest_{}", database.name);
    admin.batch_execute(&format!("create role {role} login")).await.unwrap();
    let mut client = database.database(&role).connect("test").await.unwrap();
    let error = native::migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::NotPermitted { .. }), "{error:?}");
    assert!(error.to_string().contains("grant create on database"));
    assert_eq!(native::migrated_version(&admin).await.unwrap(), None, "rolled back");
}

#[tokio::test]
async fn what_is_not_ours_or_newer_than_us_is_left_alone() {
    let database = Cluster::shared().empty().await;
    let mut client = database.client().await;
    client.batch_execute("create schema fhir; create table fhir.resource (mine int)").await.unwrap();
    let error = native::migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::Occupied { file: "0001_resource", .. }), "{error:?}");

    let database = Cluster::database().await;
    let mut client = database.client().await;
    client.batch_execute("insert into fhir.migration values (99, 'later')").await.unwrap();
    let error = native::migrate(&mut client).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { found: 99, .. }), "{error:?}");
}

/// Plans are kept for the session: one made while a table is empty must not walk a whole type later.
#[tokio::test]
async fn lookups_by_key_use_the_key_even_on_an_empty_table() {
    let database = Cluster::database().await;
    let client = database.client().await;
    for sql in ["vacuum analyze fhir.resource", "vacuum analyze fhir.tombstone", "set enable_seqscan = off"] {
        client.batch_execute(sql).await.unwrap();
    }
    for table in ["resource", "tombstone"] {
        let sql = format!(
            "explain (format text) select last_updated from fhir.{table} where resource_type = 'Basic' and id = 'x'"
        );
        let plan: Vec<String> = client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert!(plan[0].contains(&format!("using {table}_pkey")), "{plan:?}");
    }
}
