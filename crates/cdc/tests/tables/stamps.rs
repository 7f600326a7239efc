//! Writes behave as on any table, and every one is numbered and dated.

use crate::cluster::{Cluster, number, refusal, text};

const PUT_A: &str =
    r#"insert into fhir.resource (resource_type, id, content) values ('Patient', 'a', '{"v":1}')"#;

#[tokio::test]
async fn counts_and_returning_are_those_of_a_plain_table() {
    let database = Cluster::database().await;
    let client = database.client().await;
    assert_eq!(client.execute(PUT_A, &[]).await.unwrap(), 1);
    let rows = client
        .query("update fhir.resource set content = '{\"v\":2}' where id = 'a' returning version_id, content::text", &[])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<_, String>(1), r#"{"v":2}"#);
    let updated: i64 = rows[0].get(0);
    let rows =
        client.query("delete from fhir.resource where id = 'a' returning version_id", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, i64>(0), updated);
    assert_eq!(number(&client, "select count(*) from fhir.resource").await, 0);
    let tombstone = client
        .query_one(
            "select version_id, content::text from fhir.tombstone where resource_type = 'Patient'",
            &[],
        )
        .await
        .unwrap();
    assert!(tombstone.get::<_, i64>(0) > updated);
    assert_eq!(tombstone.get::<_, String>(1), r#"{"v":2}"#, "whose it was can still be told");

    // Inserted again: a plain insert, and the tombstone is gone.
    assert_eq!(client.execute(PUT_A, &[]).await.unwrap(), 1);
    assert_eq!(number(&client, "select count(*) from fhir.tombstone").await, 0);
    assert!(number(&client, "select version_id from fhir.resource").await > tombstone.get::<_, i64>(0));
    let again = client.execute(PUT_A, &[]).await.unwrap_err();
    assert_eq!(again.code().unwrap().code(), "23505");
    assert_eq!(client.execute(&format!("{PUT_A} on conflict do nothing"), &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn stamps_are_ours_whatever_the_statement_says() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let insert = "insert into fhir.resource values ('Patient', 'a', 77, '2001-01-01', '{}')";
    for setting in ["off", "on"] {
        for statement in [insert, "update fhir.resource set version_id = 1, last_updated = '2100-01-01'"] {
            client
                .batch_execute(&format!("begin; set local fhir.bulk_load = {setting}; {statement}; commit"))
                .await
                .unwrap();
            assert!((2..77).contains(&number(&client, "select version_id + 1 from fhir.resource").await));
            let sql = "select (last_updated between now() - interval '1 minute' and clock_timestamp())::text from fhir.resource";
            assert_eq!(text(&client, sql).await, "true", "{setting}: {statement}");
        }
        client.batch_execute("delete from fhir.resource").await.unwrap();
    }
}

#[tokio::test]
async fn put_creates_replaces_and_revives() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let mut last = 0;
    for content in [r#"{"a":1}"#, r#"{"a":"\u0000 \ud800"}"#, r#"{"a":1.50}"#] {
        let version = number(&client, &format!("select fhir.put('Basic', 'x', '{content}')")).await;
        assert!(version > last);
        last = version;
        assert_eq!(text(&client, "select content::text from fhir.resource").await, content);
    }
    client.execute("delete from fhir.resource", &[]).await.unwrap();
    assert!(number(&client, "select fhir.put('Basic', 'x', '{}')").await > last + 1);
    assert_eq!(number(&client, "select count(*) from fhir.tombstone").await, 0);
}

#[tokio::test]
async fn copy_merge_and_a_delete_with_insert_in_one_statement() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let copy = client.copy_in("copy fhir.resource (resource_type, id, content) from stdin").await.unwrap();
    let mut copy = std::pin::pin!(copy);
    let lines: String = (0..500).map(|i| format!("Observation\to{i}\t{{\"i\":{i}}}\n")).collect();
    futures_util::SinkExt::send(&mut copy, bytes::Bytes::from(lines)).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 500);
    assert_eq!(number(&client, "select count(distinct version_id) from fhir.resource").await, 500);

    client
        .batch_execute(
            "with gone as (delete from fhir.resource where id = 'o1' returning *)
             insert into fhir.resource (resource_type, id, content) select resource_type, id, '{}' from gone",
        )
        .await
        .unwrap();
    assert_eq!(number(&client, "select count(*) from fhir.tombstone").await, 0);
    assert_eq!(number(&client, "select count(*) from fhir.resource").await, 500);

    // With a limit the insert ends before the delete does, and so do their triggers.
    client
        .batch_execute(
            "with gone as (delete from fhir.resource where id in ('o4', 'o5') returning *)
             insert into fhir.resource (resource_type, id, content)
             select resource_type, id, '{}' from gone limit 1",
        )
        .await
        .unwrap();
    assert_eq!(number(&client, "select count(*) from fhir.tombstone").await, 1);
    let beside = "select count(*) from fhir.tombstone join fhir.resource using (resource_type, id)";
    assert_eq!(number(&client, beside).await, 0);
    client.batch_execute("select fhir.put(resource_type, id, '{}') from fhir.tombstone").await.unwrap();

    if number(&client, "select current_setting('server_version_num')::bigint").await >= 150_000 {
        let merged = client
            .execute(
                "merge into fhir.resource r
                 using (values ('o2', 'delete'), ('o3', 'update'), ('new', 'insert')) s (id, what)
                 on r.resource_type = 'Observation' and r.id = s.id
                 when matched and s.what = 'delete' then delete
                 when matched then update set content = '{\"merged\":true}'
                 when not matched then insert (resource_type, id, content) values ('Observation', s.id, '{}')",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(merged, 3);
        assert_eq!(text(&client, "select string_agg(id, ',') from fhir.tombstone").await, "o2");
        assert_eq!(number(&client, "select count(*) from fhir.resource").await, 500);
    }
}

#[tokio::test]
async fn bad_input_fails_at_the_write_with_a_name_that_says_why() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client.batch_execute(PUT_A).await.unwrap();
    for (values, constraint) in [
        ("'patient', 'b', '{}'", "resource_type_is_a_fhir_type_name"),
        ("'Patient', 'b/c', '{}'", "resource_id_is_a_fhir_id"),
        ("'', 'b', '{}'", "resource_type_is_a_fhir_type_name"),
        ("'Pat1ent', 'b', '{}'", "resource_type_is_a_fhir_type_name"),
        ("repeat('P', 65), 'b', '{}'", "resource_type_is_a_fhir_type_name"),
        ("'Patient', '', '{}'", "resource_id_is_a_fhir_id"),
        ("'Patient', E'b\n', '{}'", "resource_id_is_a_fhir_id"),
        ("'Patient', repeat('b', 65), '{}'", "resource_id_is_a_fhir_id"),
        ("'Patient', 'b', '[]'", "resource_content_is_an_object"),
    ] {
        let sql = format!("insert into fhir.resource (resource_type, id, content) values ({values})");
        assert_eq!(refusal(&client, &sql).await.constraint(), Some(constraint));
    }
    for change in ["id = 'b'", "resource_type = 'Basic'"] {
        let error = refusal(&client, &format!("update fhir.resource set {change}")).await;
        assert_eq!(error.code().code(), "23000");
        assert!(error.hint().unwrap().contains("insert it"));
    }
    for (table, hint) in
        [("resource", "delete from fhir.resource"), ("tombstone", "delete from fhir.tombstone")]
    {
        let error = refusal(&client, &format!("truncate fhir.{table}")).await;
        assert_eq!((error.code().code(), error.hint()), ("0A000", Some(hint)));
    }
    // Loaders that switch triggers off do not switch these off.
    let sql = "set session_replication_role = replica; insert into fhir.resource (resource_type, id, content)
               values ('Patient', 'c', '{}'); delete from fhir.resource where id = 'c'";
    client.batch_execute(sql).await.unwrap();
    assert_eq!(text(&client, "select string_agg(id, ',') from fhir.tombstone").await, "c");
}

#[tokio::test]
async fn a_writer_needs_no_right_but_on_the_table() {
    let database = Cluster::database().await;
    let owner = database.client().await;
    let role = format!("writer_{}", database.name);
    owner
        .batch_execute(&format!(
            "create role {role} login; grant usage on schema fhir to {role};
             grant select, insert, update, delete on fhir.resource to {role}"
        ))
        .await
        .unwrap();
    let writer = database.database(&role).connect("test").await.unwrap();
    writer.batch_execute(PUT_A).await.unwrap();
    writer.batch_execute("update fhir.resource set content = '{}'; delete from fhir.resource").await.unwrap();
    writer.batch_execute(PUT_A).await.unwrap();
    assert_eq!(refusal(&writer, "delete from fhir.tombstone").await.code().code(), "42501");
    assert_eq!(refusal(&writer, "select fhir.purge_tombstones(now())").await.code().code(), "42501");
}

#[tokio::test]
async fn purging_stops_at_the_safe_time_and_is_remembered() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client.batch_execute("insert into fhir.resource (resource_type, id, content) select 'Basic', 'x' || i, '{}' from generate_series(1, 4) i").await.unwrap();
    client.batch_execute("delete from fhir.resource where id < 'x3'").await.unwrap();
    let newest = text(&client, "select max(last_updated)::text from fhir.tombstone").await;
    // The safe time is 100 ms behind the clock.
    client.batch_execute("select pg_sleep(0.15)").await.unwrap();

    let mut holder = database.client().await;
    let open = holder.transaction().await.unwrap();
    open.batch_execute("select pg_current_xact_id()").await.unwrap();
    client.batch_execute("delete from fhir.resource where id = 'x3'").await.unwrap();
    client.batch_execute("select pg_sleep(0.15)").await.unwrap();
    let purge = "select fhir.purge_tombstones(now() + interval '1 day')";
    // What the open transaction cannot have seen yet stays.
    assert_eq!(number(&client, purge).await, 2);
    assert_eq!(text(&client, "select string_agg(id, ',') from fhir.tombstone").await, "x3");
    assert_eq!(text(&client, "select last_updated::text from fhir.purged").await, newest);
    assert_eq!(number(&client, "select fhir.purge_tombstones('2001-01-01')").await, 0);
    open.rollback().await.unwrap();
    assert_eq!(number(&client, purge).await, 1);
    assert_eq!(number(&client, "select count(*) from fhir.purged where last_updated > (select min(last_updated) from fhir.resource)").await, 1);
}

#[tokio::test]
async fn rows_ahead_of_the_clock_are_stamped_again() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute("select fhir.put('Basic', i::text, '{}') from generate_series(1, 3) i")
        .await
        .unwrap();
    client.batch_execute("delete from fhir.resource where id = '3'").await.unwrap();
    client
        .batch_execute(
            "alter table fhir.resource disable trigger stamp_update;
             update fhir.resource set last_updated = now() + interval '1 day' where id = '1';
             alter table fhir.resource enable always trigger stamp_update;
             update fhir.tombstone set last_updated = now() + interval '1 day';",
        )
        .await
        .unwrap();
    // Until then a stamp never goes back.
    client.batch_execute("update fhir.resource set content = '{}' where id = '1'").await.unwrap();
    let ahead = "select count(*) from (select last_updated from fhir.resource union all
                 select last_updated from fhir.tombstone) s where last_updated > clock_timestamp()";
    assert_eq!(number(&client, ahead).await, 2);
    let before = number(&client, "select max(version_id) from fhir.resource").await;
    assert_eq!(number(&client, "select fhir.restamp()").await, 2);
    assert_eq!(number(&client, ahead).await, 0);
    assert!(number(&client, "select version_id from fhir.resource where id = '1'").await > before);
    assert_eq!(
        text(&client, "select tgenabled::text from pg_trigger where tgname = 'stamp_update'").await,
        "A"
    );
}

/// By its number others see that something stamped before now may still be uncommitted.
#[tokio::test]
async fn who_stamps_has_a_transaction_number_by_then() {
    let database = Cluster::database().await;
    let client = database.client().await;
    // Triggers fire in the order of their names: this one sees what stamp_insert leaves.
    client
        .batch_execute(
            "create function seen() returns trigger language plpgsql as $$ begin
                 if pg_current_xact_id_if_assigned() is null then raise 'stamped without a number'; end if;
                 return new;
             end $$;
             create trigger z before insert on fhir.resource for each row execute function seen()",
        )
        .await
        .unwrap();
    // Drawing a version gives a number as well, but not every time.
    for setting in ["off", "on"] {
        client.batch_execute(&format!("set fhir.bulk_load = {setting}")).await.unwrap();
        for i in 0..40 {
            client.batch_execute(&format!("select fhir.put('Basic', '{setting}{i}', '{{}}')")).await.unwrap();
        }
    }
}
