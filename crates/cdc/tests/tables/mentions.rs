//! The index of the patients that contents mention: what the function finds, who may run it, and how it is built on a table
//! that is in use.

use crate::cluster::{Cluster, TestDatabase, number, refusal, text};
use cdc::layout::native::{self, IndexProgress, build_patient_index};
use fhir::{BaseUrls, ResourceType};
use std::path::Path;
use tokio_postgres::Client;

/// What a content mentions, as the server says.
async fn mentions(client: &Client, content: &str) -> Vec<String> {
    client.query_one("select fhir.mentions($1)", &[&content]).await.unwrap().get(0)
}

/// Contents in all the ways in which a patient can be mentioned, with the patients that `fhir` finds in them.
fn contents() -> Vec<(String, Vec<String>)> {
    let bases = BaseUrls::new(["https://ehr.example/fhir", "http://odd.example/Patient"]);
    let observation: ResourceType = "Observation".parse().unwrap();
    let of = |subject: &str| {
        format!(r#"{{"resourceType":"Observation","id":"o","subject":{{"reference":{subject}}}}}"#)
    };
    let mut contents: Vec<String> = [
        r#""Patient/1""#,
        r#""Patient\/1""#,
        r#""Patient\/1\/_history\/2""#,
        r#""Patient/1/_history/2""#,
        r#""\u0050atient/1""#,
        r#""P\u0061tient\/a-b.C""#,
        r#""Patient/\u0031""#,
        r#""Patient\u002f1""#,
        r#""https://ehr.example/fhir/Patient/1""#,
        r#""https:\/\/ehr.example\/fhir\/Patient\/1\/_history\/3""#,
        r#""http://odd.example/Patient/Patient/1""#,
        r##""#p1""##,
        r#""Patient/""#,
        r#""Patient""#,
        r#""PatientPatient/1""#,
        r#""Patient/é""#,
        r#""Patient\\/1""#,
        r#""urn:uuid:0b1f6c1e-0000-4000-8000-000000000000""#,
        r#""Practitioner/1""#,
    ]
    .iter()
    .map(|subject| of(subject))
    .collect();
    contents.push(of(&format!("\"Patient/{}\"", "x".repeat(64))));
    contents.push(of(&format!("\"Patient/{}\"", "x".repeat(65))));
    contents.push(format!(
        r#"{{ "resourceType":"Observation", "subject" :
            {{ "reference" : "Patient/one", "display":"Ünal\n \"Patient/two\" Patient/three" }},
            "performer":[{{"reference":"Patient/four"}},{{"reference":"Patient/one"}}], "x":"{}" }}"#,
        "é".repeat(5000)
    ));
    let many: Vec<_> = (0..1000).map(|n| format!(r#"{{"reference":"Patient/p{n}"}}"#)).collect();
    contents.push(format!(r#"{{"resourceType":"Observation","performer":[{}]}}"#, many.join(",")));
    contents
        .into_iter()
        .map(|content| {
            let patients = fhir::patients_of_resource(content.as_bytes(), observation, "o", &bases).unwrap();
            let patients = patients.iter().map(str::to_owned).collect();
            (content, patients)
        })
        .collect()
}

#[tokio::test]
async fn a_content_mentions_all_patients_of_its_compartments() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let (mut with, mut hidden) = (0, 0);
    for (content, patients) in contents() {
        let found = mentions(&client, &content).await;
        let anybody = found.iter().any(|id| id == "*");
        for patient in &patients {
            assert!(anybody || found.contains(patient), "{patient} in {content}");
        }
        with += usize::from(!patients.is_empty());
        hidden += usize::from(anybody);
    }
    assert!(with >= 14, "{with}");
    assert_eq!(hidden, 4, "only what has an escape of a letter");
    // Whatever the length of what follows.
    assert_eq!(mentions(&client, &format!("Patient/{}", "x".repeat(100_000))).await, ["x".repeat(65)]);
    assert_eq!(mentions(&client, "{}").await, Vec::<String>::new());
}

/// An index whose function depends on its caller finds what another caller wrote, or does not.
#[tokio::test]
async fn a_writers_settings_change_nothing() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let setting = "set standard_conforming_strings = off; set escape_string_warning = off;
                   set backslash_quote = off; set array_nulls = off; set transform_null_equals = on";
    let contents = contents();
    let mut plain = Vec::new();
    for (content, _) in &contents {
        plain.push(mentions(&client, content).await);
    }
    let other = database.client().await;
    other.batch_execute(setting).await.unwrap();
    for ((content, _), plain) in contents.iter().zip(plain) {
        assert_eq!(mentions(&other, content).await, plain, "{content}");
    }
}

/// The index evaluates the function with the rights of whoever writes.
#[tokio::test]
async fn a_writer_needs_no_right_of_its_own_for_the_index() {
    let database = Cluster::shared().empty().await;
    let admin = database.client().await;
    let (owner, writer) = (format!("owner_{}", database.name), format!("writer_{}", database.name));
    admin
        .batch_execute(&format!(
            "create role {owner} login; create role {writer} login;
             alter database {} owner to {owner};
             alter default privileges for role {owner} revoke execute on functions from public",
            database.name
        ))
        .await
        .unwrap();
    let mut owner = database.database(&owner).connect("test").await.unwrap();
    native::migrate(&mut owner).await.unwrap();
    owner
        .batch_execute(&format!(
            "grant usage on schema fhir to {writer};
             grant select, insert, update, delete on fhir.resource to {writer}"
        ))
        .await
        .unwrap();
    let writer = database.database(&writer).connect("test").await.unwrap();
    let write = "insert into fhir.resource (resource_type, id, content)
                 values ('Observation', 'o', '{\"subject\":{\"reference\":\"Patient/1\"}}');
                 update fhir.resource set content = '{}'; delete from fhir.resource";
    writer.batch_execute(write).await.unwrap();
    owner.batch_execute("revoke execute on function fhir.mentions(text) from public").await.unwrap();
    assert_eq!(refusal(&writer, write).await.code().code(), "42501");
    let repaired = native::repair(&owner).await.unwrap();
    let grant = "grant execute on function fhir.mentions(text) to public;";
    assert!(repaired.done.iter().any(|sql| sql == grant), "{repaired:?}");
    writer.batch_execute(write).await.unwrap();
}

/// The files of the release before, and rows.
pub(crate) async fn old(database: &TestDatabase, rows: &str) -> Client {
    let mut client = database.client().await;
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/native");
    client
        .batch_execute(
            "create schema fhir; create table fhir.migration (version integer primary key, name text not null,
                 applied_at timestamptz not null default now())",
        )
        .await
        .unwrap();
    let mut names: Vec<_> = std::fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.pop();
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let version: i32 = name[..4].parse().unwrap();
        let sql = std::fs::read_to_string(&path).unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&sql).await.unwrap();
        transaction.execute("insert into fhir.migration values ($1, $2)", &[&version, &name]).await.unwrap();
        transaction.commit().await.unwrap();
    }
    client.batch_execute(rows).await.unwrap();
    client
}

const ROWS: &str = r#"insert into fhir.resource (resource_type, id, content)
    select 'Observation', 'o' || i, format('{"resourceType":"Observation","subject":{"reference":"Patient/p%s"}}', i % 50)::json
      from generate_series(1, 3000) i;
    insert into fhir.resource (resource_type, id, content)
    values ('Group', 'g', '{"member":[{"entity":{"reference":"Patient/p1"}}]}')"#;

const VALID: &str =
    "select count(*) from pg_index where indexrelid = to_regclass('fhir.resource_mentions') and indisvalid";

/// How many rows of the patient the index finds, and how many there are.
async fn found(client: &Client) -> (i64, i64) {
    client.batch_execute("set enable_seqscan = off; set enable_indexscan = off").await.unwrap();
    let indexed = "select count(*) from fhir.resource
                    where resource_type <> 'Group' and fhir.mentions(content::text) && '{p1,*}'";
    let plan: Vec<String> = client
        .query(&format!("explain {indexed}"), &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(plan.iter().any(|line| line.contains("resource_mentions")), "{plan:?}");
    let there = "select count(*) from fhir.resource
                  where resource_type <> 'Group' and content::text like '%\"Patient/p1\"%'";
    (number(client, indexed).await, number(client, there).await)
}

#[tokio::test]
async fn an_empty_table_has_it_from_the_start_and_groups_are_left_out() {
    let database = Cluster::database().await;
    let client = database.client().await;
    assert_eq!(number(&client, VALID).await, 1);
    client.batch_execute(ROWS).await.unwrap();
    assert_eq!(found(&client).await, (60, 60));
    let entries = "select count(*) from fhir.resource where resource_type = 'Group'";
    assert_eq!(number(&client, entries).await, 1);
    let nothing = build_patient_index(&database.database("postgres"), |_| {}).await.unwrap();
    assert_eq!(nothing, Vec::<String>::new());
}

#[tokio::test]
async fn a_filled_table_is_indexed_while_writers_write() {
    let database = Cluster::shared().empty().await;
    let mut client = old(&database, ROWS).await;
    native::migrate(&mut client).await.unwrap();
    assert_eq!(number(&client, VALID).await, 0, "not in the migration's transaction");
    // A transaction that is older than the build holds it up. Another writes meanwhile, and one more `migrate` waits.
    let holder = database.client().await;
    holder.batch_execute("begin; update fhir.resource set content = content where id = 'o1'").await.unwrap();
    let place = database.database("postgres");
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let builds: Vec<_> = (0..2)
        .map(|_| {
            let (place, told) = (place.clone(), told.clone());
            tokio::spawn(async move {
                build_patient_index(&place, |progress| drop(told.send(progress.clone()))).await
            })
        })
        .collect();
    let writer = database.client().await;
    let (mut held, mut elsewhere, mut writes) = (false, false, 0);
    while !(held && elsewhere) {
        writes += 1;
        let write = format!(
            r#"insert into fhir.resource (resource_type, id, content)
               values ('Observation', 'new{writes}', '{{"subject":{{"reference":"Patient/p1"}}}}')"#
        );
        writer.batch_execute(&write).await.unwrap();
        match hear.recv().await.unwrap() {
            IndexProgress::Elsewhere => elsewhere = true,
            IndexProgress::Building { waits_for, .. } => held |= waits_for.is_some(),
        }
    }
    holder.batch_execute("commit").await.unwrap();
    let mut done = Vec::new();
    for build in builds {
        done.extend(build.await.unwrap().unwrap());
    }
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(number(&client, VALID).await, 1);
    assert_eq!(found(&client).await, (60 + writes, 60 + writes));
}

#[tokio::test]
async fn what_a_broken_build_left_is_built_again() {
    let database = Cluster::shared().empty().await;
    let mut client = old(&database, ROWS).await;
    native::migrate(&mut client).await.unwrap();
    let holder = database.client().await;
    holder.batch_execute("begin; update fhir.resource set content = content where id = 'o1'").await.unwrap();
    let build =
        "set statement_timeout = '500ms'; create index concurrently resource_mentions on fhir.resource
                 using gin (fhir.mentions(content::text)) where resource_type <> 'Group'";
    let breaker = database.client().await;
    for sql in build.split(';') {
        let _cut_off = breaker.batch_execute(sql).await;
    }
    holder.batch_execute("commit").await.unwrap();
    let invalid = VALID.replace("and indisvalid", "and not indisvalid");
    assert_eq!(number(&client, &invalid).await, 1, "the attempt left something");
    let done = build_patient_index(&database.database("postgres"), |_| {}).await.unwrap();
    assert_eq!(done.len(), 2, "{done:?}");
    assert!(
        done[0].starts_with("drop index concurrently") && done[1].starts_with("create index concurrently")
    );
    assert_eq!(found(&client).await, (60, 60));
}

#[tokio::test]
async fn partitions_are_indexed_one_by_one() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(&format!(
            "drop index fhir.resource_mentions;
             create table fhir.part (like fhir.resource including all) partition by list (resource_type);
             create table fhir.observations partition of fhir.part for values in ('Observation');
             create table fhir.rest partition of fhir.part default partition by hash (id);
             create table fhir.rest0 partition of fhir.rest for values with (modulus 2, remainder 0);
             create table fhir.rest1 partition of fhir.rest for values with (modulus 2, remainder 1);
             alter table fhir.resource rename to unparted; alter table fhir.part rename to resource;
             {}",
            ROWS.replace(
                "(resource_type, id, content)",
                "(resource_type, id, content, version_id, last_updated)"
            )
            .replace("from generate_series", ", 1, now() from generate_series")
            .replace("}}]}')", "}}]}', 1, now())")
        ))
        .await
        .unwrap();
    let done = build_patient_index(&database.database("postgres"), |_| {}).await.unwrap();
    assert_eq!(done.iter().filter(|sql| sql.contains("concurrently")).count(), 3, "{done:#?}");
    assert_eq!(number(&client, VALID).await, 1);
    // One that is made later has it from the start, and not the setting for before images.
    client
        .batch_execute(
            "alter table fhir.rest detach partition fhir.rest1; drop table fhir.rest1;
             create table fhir.rest1 partition of fhir.rest for values with (modulus 2, remainder 1)",
        )
        .await
        .unwrap();
    assert_eq!(
        build_patient_index(&database.database("postgres"), |_| {}).await.unwrap(),
        Vec::<String>::new()
    );
    let repaired = native::repair(&client).await.unwrap();
    let sql = "alter table fhir.rest1 replica identity full;";
    assert!(repaired.done.iter().any(|done| done == sql), "{repaired:?}");
    let partial = "select count(*) from pg_class where relnamespace = 'fhir'::regnamespace and relkind in ('r', 'p')
                    and relname in ('resource', 'observations', 'rest', 'rest0', 'rest1') and relreplident <> 'f'";
    assert_eq!(number(&client, partial).await, 0);
}

/// A function that was replaced has filled the index with something else.
#[tokio::test]
async fn an_index_of_another_function_is_built_again() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let other = "create or replace function fhir.mentions(content text) returns text[]
                 language plpgsql immutable as $$ begin return array['nobody']; end $$";
    client.batch_execute(&format!("{other}; {ROWS}")).await.unwrap();
    assert_eq!(found(&client).await.0, 0);
    native::repair(&client).await.unwrap();
    assert_eq!(text(&client, "select to_regclass('fhir.resource_mentions')::text").await, "null");
    build_patient_index(&database.database("postgres"), |_| {}).await.unwrap();
    assert_eq!(found(&client).await, (60, 60));
    assert!(native::repair(&client).await.unwrap().done.is_empty());
}
