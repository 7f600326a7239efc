//! Pages of some patients: what belongs to them, found by the index, and nothing else.

use crate::cluster::{Cluster, TestDatabase, number};
use crate::watermark::{Running, start};
use cdc::layout::native;
use feed::{Kind, Lsn, Page, PageRequest, PageRows, Scope, Source, SourceError};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::Client;

const LATE: Instant = Instant::from_unix_micros(4_000_000_000_000_000);

#[derive(Default)]
struct Ids(Vec<(Instant, String)>);

impl PageRows for Ids {
    fn row(&mut self, stamp: Instant, id: &str, write: &mut dyn FnMut(&mut Vec<u8>) -> bool) {
        if write(&mut Vec::new()) {
            self.0.push((stamp, id.to_owned()));
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn of_type(name: &str) -> ResourceType {
    name.parse().unwrap()
}

/// What belongs to one of these; `by_mention`: found by the index, else among all.
fn scope(ids: &[&str], by_mention: bool) -> Scope {
    let patients = Arc::new(Patients::from_ids(ids.iter().copied()));
    let wanted = Arc::clone(&patients);
    Scope { mentions: by_mention.then_some(patients), wants: Arc::new(move |_, of| of.intersects(&wanted)) }
}

fn request(kind: Kind, resource_type: &str, scope: Scope) -> PageRequest {
    PageRequest {
        resource_type: of_type(resource_type),
        kind,
        scope: Some(scope),
        since: None,
        until: LATE,
        after: None,
        expected: None,
        bytes: PageRequest::LARGEST,
    }
}

/// The ids of all pages from a request on, large rows among them, and how many pages there were.
async fn read(running: &Running, mut request: PageRequest) -> Result<(Vec<String>, usize), SourceError> {
    let (mut ids, mut count) = (Vec::new(), 0);
    loop {
        let mut rows = Ids::default();
        let Page { large, next, expected } = running.tables.page(request.clone(), &mut rows).await?;
        count += 1;
        ids.extend(rows.0.into_iter().map(|(_, id)| id));
        if let Some(large) = large {
            let scope = request.scope.as_ref().unwrap();
            let found = running.tables.large(request.resource_type, large.clone()).await?.unwrap();
            ids.extend((scope.wants)(&large.id, &found.patients).then(|| large.id.to_string()));
        }
        request = PageRequest { after: next, expected, ..request };
        if request.after.is_none() {
            return Ok((ids, count));
        }
    }
}

/// Patients and what belongs to them, in all the ways of writing it, among what belongs to others.
async fn filled() -> (TestDatabase, Client) {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(
            r#"insert into fhir.resource (resource_type, id, content)
               select 'Patient', 'p' || i, format('{"resourceType":"Patient","link":[{"other":{"reference":"Patient/p%s"}}]}', i + 1)::json
                 from generate_series(1, 300) i;
               insert into fhir.resource (resource_type, id, content)
               select t, lower(t) || i, format('{"resourceType":"%s","subject":{"reference":"Patient/p%s"},"text":"%s"}', t, i % 300, repeat('x', i % 500))::json
                 from generate_series(1, 2400) i, unnest(array['Observation', 'Condition']) t;
               insert into fhir.resource (resource_type, id, content) values
                 ('Observation', 'slash', '{"resourceType":"Observation","subject":{"reference":"Patient\/p1"}}'),
                 ('Observation', 'escape', '{"resourceType":"Observation","subject":{"reference":"\u0050atient/p1"}}'),
                 ('Observation', 'escape-of-another', '{"resourceType":"Observation","subject":{"reference":"\u0050atient/p2"}}'),
                 ('Observation', 'absolute', '{"resourceType":"Observation","subject":{"reference":"https:\/\/ehr.example\/fhir\/Patient\/p1\/_history\/7"}}'),
                 ('Observation', 'elsewhere', '{"resourceType":"Observation","subject":{"reference":"https://other.example/fhir/Patient/p1"}}'),
                 ('Observation', 'only-mentions', '{"resourceType":"Observation","valueString":"Patient/p1","subject":{"reference":"Patient/p2"}}'),
                 ('Practitioner', 'mentions', '{"resourceType":"Practitioner","text":{"div":"Patient/p1"}}'),
                 ('Group', 'roster', '{"resourceType":"Group","member":[{"entity":{"reference":"Patient/p1"}}]}');
               insert into fhir.resource (resource_type, id, content)
               select 'Appointment', 'of-a-thousand', json_build_object('resourceType', 'Appointment', 'participant',
                      (select json_agg(json_build_object('actor', json_build_object('reference', 'Patient/p' || i))) from generate_series(1, 1000) i));
               insert into fhir.resource (resource_type, id, content)
               select 'DocumentReference', 'large' || i, format('{"resourceType":"DocumentReference","subject":{"reference":"Patient/p%s"},"description":"%s"}',
                      i, repeat('y', 3000000))::json from generate_series(1, 2) i;"#,
        )
        .await
        .unwrap();
    (database, client)
}

/// Of each type that there is, what the index finds for these patients, and what is found among all rows.
async fn found(running: &Running, patients: &[&str]) -> (Vec<String>, Vec<String>) {
    let mentioned = Some(Arc::new(Patients::from_ids(patients.iter().copied())));
    let present = running.tables.present(None, TypeSet::all(), mentioned).await.unwrap();
    let all = running.tables.present(None, TypeSet::all(), None).await.unwrap();
    assert!(present.iter().all(|of| all.contains(of)), "{present:?}");
    let read_all = async |types: Vec<(Kind, ResourceType)>, by_mention| {
        let mut ids = Vec::new();
        for (kind, of) in types {
            ids.extend(
                read(running, request(kind, of.as_str(), scope(patients, by_mention))).await.unwrap().0,
            );
        }
        ids.sort_unstable();
        ids
    };
    (read_all(present, true).await, read_all(all, false).await)
}

#[tokio::test]
async fn what_belongs_to_them_is_found_by_what_it_mentions() {
    let (database, client) = filled().await;
    let running = start(&database, "postgres");
    for patients in [&["p1"][..], &["p2"], &["p7", "p8", "p1", "nobody"], &["p300"], &["nobody"], &["p0"]] {
        let (by_mention, among_all) = found(&running, patients).await;
        assert_eq!(by_mention, among_all, "{patients:?}");
    }
    let (of_one, _) = found(&running, &["p1"]).await;
    let expected: BTreeSet<&str> =
        ["slash", "escape", "absolute", "of-a-thousand", "large1", "p1", "observation1", "condition2101"]
            .into();
    let ids: BTreeSet<&str> = of_one.iter().map(String::as_str).collect();
    assert!(expected.is_subset(&ids), "{ids:?}");
    assert_eq!(ids.len(), of_one.len(), "none twice");
    assert_eq!(of_one.len(), 6 + 16, "{ids:?}");
    assert_eq!(found(&running, &["nobody"]).await.0, Vec::<String>::new());
    // What is asked of the database is what mentions them, not all rows.
    client
        .batch_execute(
            "update fhir.resource set content = '{\"resourceType\":\"Basic\"}' where id = 'observation2'",
        )
        .await
        .unwrap();
    read(&running, request(Kind::Upsert, "Observation", scope(&["p1"], true))).await.unwrap();
    assert_eq!(running.tables.bad_rows().count(), 0);
    read(&running, request(Kind::Upsert, "Observation", scope(&["p1"], false))).await.unwrap();
    assert_eq!(running.tables.bad_rows().count(), 1);
}

/// Of many patients more pages than one, in order, from any row; of most of them all rows are read.
#[tokio::test]
async fn pages_of_many_patients_come_once_and_in_order() {
    let (database, client) = filled().await;
    let running = start(&database, "postgres");
    let names: Vec<String> = (1..=250).map(|n| format!("p{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Of the last lots so few others are stored that all rows are read.
    for (patients, least) in [(&names[..60], 2), (&names[..150], 2), (&names[..], 2)] {
        let asked =
            PageRequest { bytes: 1 << 16, ..request(Kind::Upsert, "Observation", scope(patients, true)) };
        let (ids, pages) = read(&running, asked.clone()).await.unwrap();
        assert!(pages >= least, "{pages}");
        let (among_all, _) =
            read(&running, request(Kind::Upsert, "Observation", scope(patients, false))).await.unwrap();
        assert_eq!(ids, among_all, "in the same order");
        let sql = format!(
            "select (extract(epoch from last_updated) * 1000000)::bigint from fhir.resource where id = '{}'",
            ids[ids.len() / 2]
        );
        let stamp = Instant::from_unix_micros(number(&client, &sql).await);
        let after = Some((stamp, ids[ids.len() / 2].as_str().into()));
        let (rest, _) = read(&running, PageRequest { after, ..asked.clone() }).await.unwrap();
        assert_eq!(rest, ids[ids.len() / 2 + 1..]);
        let (since, _) = read(&running, PageRequest { since: Some(stamp), ..asked.clone() }).await.unwrap();
        assert!(ids.ends_with(&since) && since.len() <= rest.len());
        let (until, _) = read(&running, PageRequest { until: stamp, ..asked }).await.unwrap();
        assert!(ids.starts_with(&until) && until.len() > ids.len() / 2);
    }
}

#[tokio::test]
async fn deletions_are_judged_by_what_was_deleted() {
    let (database, client) = filled().await;
    client
        .batch_execute(
            r#"delete from fhir.resource where id in ('p1', 'p2', 'slash', 'escape', 'large1', 'large2', 'elsewhere', 'roster', 'of-a-thousand');
               insert into fhir.resource (resource_type, id, content)
               values ('Observation', 'slash', '{"resourceType":"Observation"}')"#,
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let mut deleted = Vec::new();
    let since = Some(Instant::from_unix_micros(0));
    let one = Some(Arc::new(Patients::from_ids(["p1"])));
    for (kind, of) in running.tables.present(since, TypeSet::all(), one).await.unwrap() {
        if kind == Kind::Deletion {
            let asked = PageRequest { since, ..request(kind, of.as_str(), scope(&["p1"], true)) };
            deleted.extend(read(&running, asked).await.unwrap().0);
        }
    }
    deleted.sort_unstable();
    assert_eq!(deleted, ["escape", "large1", "of-a-thousand", "p1"]);
}

#[tokio::test]
async fn those_who_are_stored_are_told() {
    let (database, _client) = filled().await;
    let running = start(&database, "postgres");
    let asked = Patients::from_ids(["p1", "p299", "nobody", "observation1"]);
    assert_eq!(running.tables.stored(asked).await.unwrap(), Patients::from_ids(["p1", "p299"]));
    assert_eq!(running.tables.stored(Patients::none()).await.unwrap(), Patients::none());
}

/// The service's own role, and no more connections than pages are read at once.
#[tokio::test]
async fn pages_of_both_kinds_share_their_connections() {
    let (database, client) = filled().await;
    client.batch_execute("alter role fhir_tail login").await.unwrap();
    native::repair(&client).await.unwrap();
    let running = start(&database, "fhir_tail");
    let readers = (0..24).map(|n| {
        let running = &running;
        async move {
            read(running, request(Kind::Upsert, "Condition", scope(&["p1", "p2"], n % 2 == 0)))
                .await
                .unwrap()
                .0
        }
    });
    for ids in futures_util::future::join_all(readers).await {
        assert_eq!(ids.len(), 16);
    }
    let connections = "select count(*) from pg_stat_activity where application_name = 'fhir-tail pages'
                       and datname = current_database()";
    assert!(number(&client, connections).await <= 4);
}

/// The plans are kept for the session: made while there was nothing, they have to do for a million rows.
#[tokio::test]
async fn the_index_is_used_even_on_an_empty_table() {
    let database = Cluster::database().await;
    let client = database.client().await;
    let running = start(&database, "postgres");
    read(&running, request(Kind::Upsert, "Observation", scope(&["p1"], true))).await.unwrap();
    let scans = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where indexrelname = 'resource_mentions'";
    client
        .batch_execute(
            r#"insert into fhir.resource (resource_type, id, content)
               select 'Observation', 'o' || i, format('{"resourceType":"Observation","subject":{"reference":"Patient/p%s"}}', i % 300)::json
                 from generate_series(1, 3000) i"#,
        )
        .await
        .unwrap();
    let before = number(&client, scans).await;
    let (ids, _) = read(&running, request(Kind::Upsert, "Observation", scope(&["p1"], true))).await.unwrap();
    assert_eq!(ids.len(), 10);
    // What a session has counted is told when it is idle.
    let mut after = before;
    for _ in 0..200 {
        after = number(&client, scans).await;
        if after > before {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(after > before, "another way was taken");
}

/// A release before this one has left tables without it: all other pages are read.
#[tokio::test]
async fn an_old_layout_refuses_patients_and_serves_the_rest() {
    let database = Cluster::shared().empty().await;
    let rows = r#"select fhir.put('Observation', 'o', '{"resourceType":"Observation","subject":{"reference":"Patient/p1"}}')"#;
    let mut client = crate::mentions::old(&database, rows).await;
    let running = start(&database, "postgres");
    running.tables.watermark().await.unwrap();
    running.tables.confirm().await.unwrap();
    assert!(running.tables.failing_facts().is_empty());
    let refused = running.tables.knows_patients().await.unwrap_err();
    assert!(
        matches!(refused, SourceError::Refused(_)) && refused.to_string().contains("fhir-tail migrate"),
        "{refused}"
    );
    let lacking = running.tables.lacking_for_patients();
    assert_eq!(
        lacking.iter().map(|finding| finding.subject).collect::<Vec<_>>(),
        native::PATIENT_STREAM_FACTS
    );
    let mut all = request(Kind::Upsert, "Observation", scope(&[], false));
    all.scope = None;
    let mut ids = Ids::default();
    running.tables.page(all, &mut ids).await.unwrap();
    assert_eq!(ids.0.len(), 1);
    // The files are not all of it: the index is built after them.
    native::migrate(&mut client).await.unwrap();
    let refused = running.tables.knows_patients().await.unwrap_err().to_string();
    assert!(refused.contains("no index of patients"), "{refused}");
    native::build_patient_index(&database.database("postgres"), |_| {}).await.unwrap();
    // Not before the feed has passed the place where the setting was made.
    let place = number(&client, "select (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
    let mut knows = running.tables.knows_patients();
    assert!(futures_util::poll!(&mut knows).is_pending());
    // More than was written by then.
    running.pass(Lsn::new(u64::try_from(place).unwrap() + (1 << 30))).await;
    knows.await.unwrap();
    assert!(running.tables.lacking_for_patients().is_empty());
    // Taken back: noticed when somebody asks again, or within a minute.
    client.batch_execute("drop index fhir.resource_mentions").await.unwrap();
    running.tables.confirm().await.unwrap();
    assert!(running.tables.knows_patients().await.is_err());
}
