//! The log's rows through the layout: what the server's plugin writes becomes changes.

use crate::cluster::{Cluster, TestDatabase};
use crate::log;
use cdc::layout::native::NativeRows;
use cdc::layout::{BadRows, LayoutError, RowContext, RowDecoder};
use feed::{Before, Change, Kind, Position};
use fhir::{BaseUrls, Patients};
use pg::pgoutput::Message;
use std::sync::Arc;

/// The changes of what the test has written since [`log::begin`], and how many rows were skipped.
async fn changes(database: &TestDatabase) -> Result<(Vec<Change>, u64), LayoutError> {
    let client = database.client().await;
    let skipped = Arc::new(BadRows::default());
    let mut layout = NativeRows::new(RowContext {
        bad_rows: Arc::clone(&skipped),
        base_urls: BaseUrls::new(["https://ehr.example/fhir"]),
        ..RowContext::default()
    });
    let mut changes = Vec::new();
    for message in log::read(&client, &database.name).await {
        match Message::decode(&message).unwrap() {
            Message::Relation(relation) => layout.relation(&relation)?,
            Message::Row(row) => layout.row(&row, Position::ZERO, &mut changes)?,
            Message::Commit(_) => layout.commit()?,
            _ => {}
        }
    }
    Ok((changes, skipped.count()))
}

fn told(changes: &[Change]) -> Vec<(Kind, &str)> {
    changes.iter().map(|change| (change.kind, change.resource_type.as_str())).collect()
}

#[tokio::test]
async fn writes_deletions_and_large_contents_that_were_left_alone() {
    let database = Cluster::database().await;
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    client
        .batch_execute(
            "select fhir.put('Patient', 'p', '{\"resourceType\":\"Patient\",\"weight\":1.50}');
             select fhir.put('Basic', 'big', json_build_object('resourceType', 'Basic', 'x',
                (select string_agg(md5(i::text), '') from generate_series(1, 4000) i)));
             update fhir.resource set version_id = 0 where id = 'big';
             delete from fhir.resource where id = 'p';
             select fhir.put('Patient', 'p', '{\"resourceType\":\"Patient\"}');",
        )
        .await
        .unwrap();
    let version: i64 =
        client.query_one("select version_id from fhir.resource where id = 'p'", &[]).await.unwrap().get(0);
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!(skipped, 0);
    let expected = [
        (Kind::Upsert, "Patient"),
        (Kind::Upsert, "Basic"),
        (Kind::Upsert, "Basic"),
        (Kind::Deletion, "Patient"),
        (Kind::Upsert, "Patient"),
    ];
    assert_eq!(told(&changes), expected);
    let data = |index: usize| std::str::from_utf8(&changes[index].data).unwrap();
    assert!(data(0).contains("\"weight\":1.50"));
    assert!(data(2).len() > 128_000, "the whole content again");
    assert!(data(3).contains("\"Patient/p\"") && data(3).contains("\"DELETE\""), "{}", data(3));
    assert!(data(4).contains(&format!("\"versionId\":\"{version}\"")), "{}", data(4));
    assert!(changes.windows(2).all(|pair| pair[0].stamp < pair[1].stamp));
}

#[tokio::test]
async fn rows_that_cannot_be_streamed_are_counted_and_the_rest_goes_on() {
    let database = Cluster::database().await;
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    client
        .batch_execute(
            "select fhir.put('Nonsense', 'a', '{\"resourceType\":\"Nonsense\"}');
             select fhir.put('Patient', 'b', '{\"resourceType\":\"Basic\"}');
             select fhir.put('Patient', 'c', '{\"resourceType\":\"Patient\"}');",
        )
        .await
        .unwrap();
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!((told(&changes), skipped), (vec![(Kind::Upsert, "Patient")], 2));
}

#[tokio::test]
async fn a_stamp_beyond_the_calendar_is_a_bad_row() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client.batch_execute("alter table fhir.resource disable trigger all").await.unwrap();
    log::begin(&client, &database.name).await;
    client
        .batch_execute(
            "insert into fhir.resource
             select 'Basic', 'a' || n, n, stamp::timestamptz, '{\"resourceType\":\"Basic\"}'
               from unnest(array['-infinity', '0044-03-15 BC', '0001-01-01 00:00+00', '2026-01-01', 'infinity'])
                    with ordinality s(stamp, n)",
        )
        .await
        .unwrap();
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!((changes.len(), skipped), (2, 3));
}

#[tokio::test]
async fn a_shape_that_changes_is_followed() {
    let database = Cluster::database().await;
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    for sql in [
        "select fhir.put('Basic', 'a', '{\"resourceType\":\"Basic\"}')",
        "alter table fhir.resource add column tenant text default 'x'",
        "select fhir.put('Basic', 'b', '{\"resourceType\":\"Basic\"}')",
        "alter table fhir.resource drop column tenant",
        "select fhir.put('Basic', 'c', '{\"resourceType\":\"Basic\"}')",
        "delete from fhir.resource where id = 'c'",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!((changes.len(), skipped), (4, 0));
}

#[tokio::test]
async fn a_column_that_was_renamed_is_named_with_its_remedy() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "alter table fhir.resource disable trigger all;
             alter table fhir.resource rename column last_updated to changed",
        )
        .await
        .unwrap();
    log::begin(&client, &database.name).await;
    let insert = "insert into fhir.resource values ('Basic', 'a', 1, now(), '{}')";
    client.batch_execute(insert).await.unwrap();
    let error = changes(&database).await.unwrap_err().to_string();
    for part in ["fhir.resource", "last_updated", "rename it back"] {
        assert!(error.contains(part), "{error}");
    }
}

fn of(ids: &[&str]) -> Before {
    Before::Patients(Patients::from_ids(ids.iter().copied()))
}

/// To whom each change says that the resource belongs and belonged.
fn owners(changes: &[Change]) -> Vec<(Kind, Patients, Before)> {
    changes.iter().map(|change| (change.kind, change.patients.clone(), change.before.clone())).collect()
}

fn ids(ids: &[&str]) -> Patients {
    Patients::from_ids(ids.iter().copied())
}

/// An observation of a patient, so large that it is stored out of line if `large`.
fn observation(patient: &str, large: bool) -> String {
    let text =
        if large { "(select string_agg(md5(i::text), '') from generate_series(1, 3000) i)" } else { "'x'" };
    format!(
        "json_build_object('resourceType', 'Observation', 'subject', json_build_object('reference', '{patient}'), 'x', {text})"
    )
}

#[tokio::test]
async fn a_change_says_to_whom_the_resource_belonged() {
    let database = Cluster::database().await;
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    for large in [false, true] {
        let of = |patient: &str| observation(patient, large);
        client
            .batch_execute(&format!(
                "select fhir.put('Observation', 'o', {});
                 update fhir.resource set content = {} where id = 'o';
                 update fhir.resource set version_id = 0 where id = 'o';
                 delete from fhir.resource where id = 'o';
                 select fhir.put('Observation', 'o', {});
                 begin; delete from fhir.resource where id = 'o'; select fhir.put('Observation', 'o', {}); commit;
                 with gone as (delete from fhir.resource where id = 'o' returning *)
                 insert into fhir.resource (resource_type, id, content) select resource_type, id, {} from gone;
                 delete from fhir.resource where id = 'o'",
                of("Patient/a"),
                of("https://ehr.example/fhir/Patient/b"),
                of("Patient/c"),
                of("Patient/d"),
                of("Practitioner/e"),
            ))
            .await
            .unwrap();
    }
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!(skipped, 0);
    let expected = [
        (Kind::Upsert, ids(&["a"]), Before::Nothing),
        (Kind::Upsert, ids(&["b"]), of(&["a"])),
        (Kind::Upsert, ids(&["b"]), of(&["b"])),
        (Kind::Deletion, ids(&[]), of(&["b"])),
        (Kind::Upsert, ids(&["c"]), Before::Nothing),
        (Kind::Deletion, ids(&[]), of(&["c"])),
        (Kind::Upsert, ids(&["d"]), Before::Nothing),
        // Deleted and inserted in one statement: no tombstone tells of it.
        (Kind::Upsert, ids(&[]), of(&["d"])),
        (Kind::Deletion, ids(&[]), of(&[])),
    ];
    assert_eq!(owners(&changes), [expected.clone(), expected].concat());
}

/// A partition that was made later, or a setting that was taken back.
#[tokio::test]
async fn without_the_whole_old_row_it_is_unknown_and_no_version_is_missed() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client.batch_execute("alter table fhir.resource replica identity default").await.unwrap();
    log::begin(&client, &database.name).await;
    client
        .batch_execute(&format!(
            "select fhir.put('Observation', 'o', {});
             update fhir.resource set version_id = 0 where id = 'o';
             delete from fhir.resource where id = 'o'",
            observation("Patient/a", true)
        ))
        .await
        .unwrap();
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!(skipped, 0, "a large content that was left alone is in the log");
    let expected = [
        (Kind::Upsert, ids(&["a"]), Before::Nothing),
        (Kind::Upsert, ids(&["a"]), Before::Unknown),
        // The tombstone has the content.
        (Kind::Deletion, ids(&[]), of(&["a"])),
    ];
    assert_eq!(owners(&changes), expected);
}

#[tokio::test]
async fn what_was_and_cannot_be_read_is_unknown() {
    let database = Cluster::database().await;
    let client = database.client().await;
    log::begin(&client, &database.name).await;
    client
        .batch_execute(
            r#"select fhir.put('Observation', 'o', '{"resourceType":"Basic","subject":{"reference":"Patient/a"}}');
               select fhir.put('Observation', 'o', '{"resourceType":"Observation"}');
               select fhir.put('Observation', 'p', '{"resourceType":"Basic"}');
               delete from fhir.resource where id = 'p'"#,
        )
        .await
        .unwrap();
    let (changes, skipped) = changes(&database).await.unwrap();
    assert_eq!(skipped, 2);
    let expected = [(Kind::Upsert, ids(&[]), Before::Unknown), (Kind::Deletion, ids(&[]), Before::Unknown)];
    assert_eq!(owners(&changes), expected);
}
