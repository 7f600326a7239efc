//! Pages: everything exactly once, in order, within bounds, by the index.

use crate::cluster::{Cluster, TestDatabase, number, text};
use crate::watermark::{Running, start, start_with};
use cdc::layout::OnBadRow;
use cdc::layout::native;
use feed::{Kind, Page, PageRequest, PageRows, Source, SourceError};
use fhir::{Instant, ResourceType, TypeSet};
use std::collections::BTreeSet;

const LATE: Instant = Instant::from_unix_micros(4_000_000_000_000_000);

pub(crate) fn basic(kind: Kind) -> PageRequest {
    let resource_type: ResourceType = "Basic".parse().unwrap();
    let bytes = PageRequest::LARGEST;
    PageRequest {
        resource_type,
        kind,
        scope: None,
        since: None,
        until: LATE,
        after: None,
        expected: None,
        bytes,
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    stamp: Instant,
    pub(crate) id: String,
    pub(crate) data: Vec<u8>,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl PageRows for Rows {
    fn row(&mut self, stamp: Instant, id: &str, write: &mut dyn FnMut(&mut Vec<u8>) -> bool) {
        // As a frame does, it begins with something else.
        let mut data = b"data: ".to_vec();
        if write(&mut data) {
            self.0.push(Row { stamp, id: id.to_owned(), data: data.split_off(6) });
        }
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

async fn page(running: &Running, request: PageRequest) -> Result<(Page, Vec<Row>), SourceError> {
    let mut rows = Rows::default();
    let page = running.tables.page(request, &mut rows).await?;
    assert!(rows.0.len() <= 1_000);
    Ok((page, rows.0))
}

/// All pages from a request on.
async fn pages(running: &Running, mut request: PageRequest) -> Vec<(Page, Vec<Row>)> {
    let mut pages = Vec::new();
    loop {
        let (page, rows) = page(running, request.clone()).await.unwrap();
        request = PageRequest { after: page.next.clone(), expected: page.expected, ..request };
        pages.push((page, rows));
        if request.after.is_none() {
            return pages;
        }
    }
}

/// The rows of all pages from a request on, and how many pages there were.
pub(crate) async fn read(running: &Running, request: PageRequest) -> (Vec<Row>, usize) {
    let pages = pages(running, request).await;
    let count = pages.len();
    (pages.into_iter().flat_map(|(_, rows)| rows).collect(), count)
}

fn keys(rows: &[Row]) -> Vec<(Instant, String)> {
    rows.iter().map(|row| (row.stamp, row.id.clone())).collect()
}

/// 2,500 rows, many with the same stamp, 300 tombstones (50 of them beside a row, which do not count), and rows
/// of other types.
async fn filled() -> TestDatabase {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "alter table fhir.resource disable trigger all;
             insert into fhir.resource select 'Basic', md5(i::text), i,
                    timestamptz '2026-01-01' + (i / 7) * interval '1 microsecond', '{\"resourceType\":\"Basic\"}'
               from generate_series(1, 2500) i;
             insert into fhir.resource select t, 'other' || i, i, '2026-01-01', '{}'
               from generate_series(1, 5) i, unnest(array['Account', 'BodyStructure', 'Patient']) t;
             insert into fhir.tombstone select 'Basic', md5(i::text), i,
                    timestamptz '2026-01-01' + (i / 7) * interval '1 microsecond', '{}'
               from generate_series(2451, 2750) i;",
        )
        .await
        .unwrap();
    database
}

#[tokio::test]
async fn everything_once_in_order_and_again_from_any_row() {
    let database = filled().await;
    let running = start(&database, "postgres");
    let (rows, pages) = read(&running, basic(Kind::Upsert)).await;
    assert_eq!(pages, 3);
    let all = keys(&rows);
    assert_eq!(all.len(), 2500);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    let (tombstones, _) = read(&running, basic(Kind::Deletion)).await;
    assert_eq!(tombstones.len(), 250, "only of keys without a row");
    assert!(tombstones.iter().all(|row| row.data.windows(8).any(|part| part == b"\"DELETE\"")));

    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..10 {
        let at = random.usize(..all.len());
        let (stamp, id) = &all[at];
        let request = PageRequest { after: Some((*stamp, id.as_str().into())), ..basic(Kind::Upsert) };
        assert_eq!(keys(&read(&running, request).await.0), all[at + 1..]);

        let bounds = [all[random.usize(..all.len())].0, all[random.usize(..all.len())].0];
        let (since, until) = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]));
        let request = PageRequest { since: Some(since), until, ..basic(Kind::Upsert) };
        let within = all.iter().filter(|(stamp, _)| *stamp > since && *stamp <= until).cloned();
        assert_eq!(keys(&read(&running, request).await.0), within.collect::<Vec<_>>());
    }
    let request = PageRequest { since: Some(LATE), ..basic(Kind::Upsert) };
    assert_eq!(read(&running, request).await.0.len(), 0);
}

#[tokio::test]
async fn the_services_own_role_is_enough() {
    let database = filled().await;
    let client = database.client().await;
    client.batch_execute("alter role fhir_tail login").await.unwrap();
    native::repair(&client).await.unwrap();
    let running = start(&database, "fhir_tail");
    running.tables.watermark().await.unwrap();
    assert_eq!(read(&running, basic(Kind::Upsert)).await.0.len(), 2500);
    assert_eq!(read(&running, basic(Kind::Deletion)).await.0.len(), 250);
}

#[tokio::test]
async fn a_cursor_is_only_ever_a_place() {
    let database = filled().await;
    let running = start(&database, "postgres");
    let stamp = Instant::from_unix_micros(0);
    for id in ["'", "\\", "\\'", "'); drop table fhir.resource; --", "\0", "a\0'", "é", ""] {
        let request = PageRequest { after: Some((stamp, id.into())), ..basic(Kind::Upsert) };
        assert_eq!(read(&running, request).await.0.len(), 2500, "{id:?}");
    }
    for after in [Instant::MIN, Instant::from_unix_micros(i64::MAX)] {
        let request = PageRequest { after: Some((after, "".into())), ..basic(Kind::Upsert) };
        let expected = if after == Instant::MIN { 2500 } else { 0 };
        assert_eq!(read(&running, request).await.0.len(), expected);
    }
}

#[tokio::test]
async fn rows_that_cannot_be_streamed_are_passed_over() {
    let database = filled().await;
    let client = database.client().await;
    client
        .batch_execute(
            "alter table fhir.resource drop constraint resource_id_is_a_fhir_id;
             update fhir.resource set content = '{\"resourceType\":\"Patient\"}'
              where resource_type = 'Basic' and version_id <= 1100;
             update fhir.resource set id = 'it''s' where resource_type = 'Basic' and version_id = 2500;",
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let (rows, pages) = read(&running, basic(Kind::Upsert)).await;
    // The first page has nothing to send, and a cursor.
    assert_eq!((rows.len(), pages), (1399, 3));
    assert_eq!(running.tables.bad_rows().count(), 1101);
}

/// More than a page of them, in an order of their own, before what is good.
#[tokio::test]
async fn stamps_before_the_calendar_are_left_out_and_keep_nothing_back() {
    let database = filled().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into fhir.resource select 'Basic', 'ancient' || i, 5000 + i,
                    case when i > 600 then timestamptz '-infinity' else timestamptz '0044-03-15 BC' end,
                    '{\"resourceType\":\"Basic\"}'
               from generate_series(1, 1200) i;
             insert into fhir.resource values
                    ('Basic', '0', 1, '0001-01-01 00:00+00', '{\"resourceType\":\"Basic\"}')",
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let (rows, pages) = read(&running, basic(Kind::Upsert)).await;
    assert_eq!((rows.len(), pages), (2501, 4));
    assert_eq!(rows[0].id, "0");
    assert_eq!(running.tables.bad_rows().count(), 1000);
    let stopping = start_with(&database, "postgres", OnBadRow::Stop);
    let told = page(&stopping, basic(Kind::Upsert)).await.unwrap_err().to_string();
    assert!(told.contains("last_updated") && told.contains("version_id 6000"), "{told}");
}

/// What of a type that nobody knows stops, if anything does: not those who did not ask for it, and no deletions.
#[tokio::test]
async fn a_type_that_is_none_concerns_who_asks_for_everything() {
    let database = filled().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into fhir.resource values ('Patent', 'p', 4711, '2026-01-01', '{}');
             insert into fhir.tombstone values ('Patent', 'q', 4712, '2026-01-01', '{}')",
        )
        .await
        .unwrap();
    let running = start_with(&database, "postgres", OnBadRow::Stop);
    let some: TypeSet = ["Basic".parse().unwrap()].into_iter().collect();
    let present = running.tables.present(None, some, None).await.unwrap();
    assert!(present.contains(&(Kind::Upsert, "Basic".parse().unwrap())));
    assert_eq!(running.tables.bad_rows().count(), 0);
    let told = running.tables.present(None, TypeSet::all(), None).await.unwrap_err().to_string();
    assert!(told.contains("delete from fhir.resource where version_id = 4711;"), "{told}");
    assert!(!told.contains("Patent"), "{told}");
    client.batch_execute("delete from fhir.resource where version_id = 4711").await.unwrap();
    let since = Some(Instant::from_unix_micros(0));
    assert!(running.tables.present(since, TypeSet::all(), None).await.is_ok());
    assert_eq!(running.tables.bad_rows().count(), 2);
}

#[tokio::test]
async fn a_page_ends_when_it_is_large_enough() {
    let database = Cluster::database().await;
    let client = database.client().await;
    // Of md5 sums little is left out when it is compressed; of blanks nearly all.
    client
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content)
             select 'Basic', 'sums' || i, json_build_object('resourceType', 'Basic', 'x',
                    (select string_agg(md5(j::text), '') from generate_series(1, 20000) j))
               from generate_series(1, 10) i;
             insert into fhir.resource (resource_type, id, content)
             select 'Basic', 'blanks' || i, json_build_object('resourceType', 'Basic', 'x', repeat(' ', 600000))
               from generate_series(1, 10) i;",
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let mut ids = BTreeSet::new();
    for (_, rows) in pages(&running, basic(Kind::Upsert)).await {
        let size: usize = rows.iter().map(|row| row.data.len()).sum();
        assert!(size < (2 << 20) + 700_000, "{size}");
        for row in rows {
            assert!(ids.insert(row.id), "twice");
        }
    }
    assert_eq!(ids.len(), 20);
}

/// Neither what is large as it is stored, nor what is compressed to next to nothing, comes with other rows.
#[tokio::test]
async fn large_rows_are_named_in_their_place_and_read_alone() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "insert into fhir.resource (resource_type, id, content)
             select 'Basic', i || 'small', '{\"resourceType\":\"Basic\"}' from generate_series(1, 5) i;
             insert into fhir.resource (resource_type, id, content)
             select 'Basic', '6sums', json_build_object('resourceType', 'Basic', 'x',
                    (select string_agg(md5(j::text), '') from generate_series(1, 100000) j));
             insert into fhir.resource (resource_type, id, content)
             select 'Basic', '7blanks',
                    ('{\"resourceType\":\"Basic\",\n\"meta\":{\"x\":1},\"y\":\"' || repeat('y', 8000000) || '\"}')::json;
             insert into fhir.resource (resource_type, id, content)
             select 'Basic', i || 'small', '{\"resourceType\":\"Basic\"}' from generate_series(8, 9) i;",
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let basic_type = basic(Kind::Upsert).resource_type;
    let mut ids = Vec::new();
    let mut large = Vec::new();
    for (page, rows) in pages(&running, basic(Kind::Upsert)).await {
        ids.extend(rows.into_iter().map(|row| row.id));
        if let Some(row) = page.large {
            ids.push(row.id.to_string());
            large.push(row);
        }
    }
    let expected = ["1small", "2small", "3small", "4small", "5small", "6sums", "7blanks", "8small", "9small"];
    assert_eq!(ids, expected);
    assert_eq!(large.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["6sums", "7blanks"]);
    for row in &large {
        let large = running.tables.large(basic_type, row.clone()).await.unwrap().expect("it is there");
        let mut text = Vec::new();
        (large.write)(&mut text).unwrap();
        assert!(text.len() > 3_000_000 && !text.contains(&b'\n'));
        let beginning = String::from_utf8_lossy(&text[..400.min(text.len())]).into_owned();
        assert!(beginning.contains(&format!("\"versionId\":\"{}\"", row.version)), "{beginning}");
    }
    client.batch_execute("delete from fhir.resource where id = '6sums'").await.unwrap();
    assert!(running.tables.large(basic_type, large[0].clone()).await.unwrap().is_none(), "it is gone");
}

#[tokio::test]
async fn more_readers_than_connections_all_get_their_pages() {
    let database = filled().await;
    let running = start(&database, "postgres");
    let readers = (0..20).map(|_| read(&running, basic(Kind::Upsert)));
    for (rows, _) in futures_util::future::join_all(readers).await {
        assert_eq!(rows.len(), 2500);
    }
    let client = database.client().await;
    let connections = "select count(*) from pg_stat_activity where application_name = 'fhir-tail pages'
                       and datname = current_database()";
    assert!(number(&client, connections).await <= 4);
    // A connection that was cut off is replaced.
    let cut = "select count(pg_terminate_backend(pid))::text from pg_stat_activity
               where application_name = 'fhir-tail pages' and datname = current_database()";
    text(&client, cut).await;
    assert_eq!(read(&running, basic(Kind::Upsert)).await.0.len(), 2500);
}

/// Tables are altered while the service runs, and what is JSON is read whatever its type.
#[tokio::test]
async fn a_column_of_another_type_is_read_by_statements_made_anew() {
    let database = filled().await;
    let running = start(&database, "postgres");
    let (before, _) = read(&running, basic(Kind::Upsert)).await;
    let client = database.client().await;
    for data_type in ["jsonb", "text"] {
        client
            .batch_execute(&format!(
                "alter table fhir.resource drop constraint if exists resource_content_is_an_object;
                 alter table fhir.resource disable trigger all;
                 alter table fhir.resource alter content type {data_type} using content::{data_type}"
            ))
            .await
            .unwrap();
        let (after, _) = read(&running, basic(Kind::Upsert)).await;
        assert_eq!(keys(&after), keys(&before), "{data_type}");
    }
    assert_eq!(running.tables.bad_rows().count(), 0);
}

/// What was replaced by a commit that is not on disk yet was passed over: should the power fail, it would be back.
#[tokio::test]
async fn a_page_counts_once_what_it_passed_over_is_on_disk() {
    let database = Cluster::database().await;
    let client = database.client().await;
    // Nobody else writes the log to disk in the time of the test.
    client.batch_execute("alter system set wal_writer_delay = '10s'").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
    let basic_row = r#"{"resourceType":"Basic"}"#;
    let put = format!("select fhir.put('Basic', 'a', '{basic_row}'), fhir.put('Basic', 'b', '{basic_row}')");
    client.batch_execute(&put).await.unwrap();
    let running = start(&database, "postgres");
    running.tables.watermark().await.unwrap();
    let stamp = "select (extract(epoch from max(last_updated)) * 1000000)::bigint from fhir.resource";
    let until = Instant::from_unix_micros(number(&client, stamp).await);
    client.batch_execute("set synchronous_commit = off").await.unwrap();
    let end = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let flushed = "select (pg_current_wal_flush_lsn() - '0/0')::bigint";
    for (change, left) in [
        ("update fhir.resource set content = content where id = 'a'", 1),
        ("delete from fhir.resource where id = 'b'", 0),
    ] {
        client.batch_execute(change).await.unwrap();
        let committed = number(&client, end).await;
        let request = PageRequest { until, ..basic(Kind::Upsert) };
        let (_, rows) = page(&running, request).await.unwrap();
        assert_eq!(rows.len(), left, "{change}");
        assert!(number(&client, flushed).await >= committed, "{change}");
    }
    // A type of which nothing is left is not even asked for.
    client.batch_execute("delete from fhir.resource").await.unwrap();
    let committed = number(&client, end).await;
    assert_eq!(running.tables.present(None, TypeSet::all(), None).await.unwrap(), []);
    assert!(number(&client, flushed).await >= committed);
    client.batch_execute("alter system reset wal_writer_delay").await.unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
}

/// Most rows small, some of 20 KB, some of 400 KB, two of them in a row; in the end many that Postgres compresses to a
/// hundredth, after some that are as large as that when they are stored.
#[tokio::test]
async fn rows_of_very_different_sizes_come_once_and_in_order() {
    let database = Cluster::database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "alter table fhir.resource disable trigger all;
             insert into fhir.resource select 'Basic', lpad(i::text, 5, '0'), i,
                    timestamptz '2026-01-01' + i * interval '1 microsecond',
                    json_build_object('resourceType', 'Basic', 'x', case
                        when i > 4500 then repeat('x', 400000)
                        when i > 3000 then (select string_agg(md5(j::text), '') from generate_series(1, 80) j)
                        when i % 613 in (0, 1) and i % 2 = 0 then repeat('x', 400000)
                        when i % 613 in (0, 1) then (select string_agg(md5(j::text), '') from generate_series(1, 12500) j)
                        when i % 97 = 0 then (select string_agg(md5(j::text), '') from generate_series(1, 600) j)
                        else 'small' end)
               from generate_series(1, 4700) i;",
        )
        .await
        .unwrap();
    let running = start(&database, "postgres");
    let (mut ids, mut expectations) = (Vec::new(), [0, 0]);
    for (page, rows) in pages(&running, basic(Kind::Upsert)).await {
        expectations[usize::from(page.expected.is_some())] += 1;
        let bytes: usize = rows.iter().map(|row| row.data.len()).sum();
        assert!(bytes <= 3 << 20, "{} rows, {bytes} bytes", rows.len());
        ids.extend(rows.into_iter().map(|row| row.id));
    }
    assert_eq!(ids, (1..=4700).map(|i| format!("{i:05}")).collect::<Vec<_>>());
    assert!(expectations.iter().all(|count| *count > 2), "both kinds of pages: {expectations:?}");
}
