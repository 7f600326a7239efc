//! Another layout than the native one: one table of other names, that remembers deletions in its rows.
//! What follows it knows nothing else of it than [`Layout`] says.

use crate::cluster::{Cluster, TestDatabase};
use cdc::layout::{Asked, Layout, LayoutError, OnBadRow, Pages, RowContext, RowDecoder, Stamps};
use cdc::pages::{PageContext, PagePool, Prepared, Purpose, failure};
use cdc::{SourceStatus, TableName, Tables};
use feed::{
    Answer, Before, Begin, Change, EventId, Feed, Framing, Item, Kind, Large, LargeRow, Lsn, Notice, Page,
    PageRequest, PageRows, Position, Subscription,
};
use fhir::{BaseUrls, Columns, Filter, Instant, Patients, ResourceType, TypeSet};
use pg::Encoding;
use pg::pgoutput::{Column, Relation, Row};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Error};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Stamps are microseconds. A transaction has an id before it looks which time is closed.
const SCHEMA: &str = "
    create schema chart;
    create sequence chart.closed;
    create sequence chart.revision;
    create table chart.note (
        key text, body text not null, at bigint, revision bigint, kind text, gone boolean not null default false,
        primary key (kind, key));
    create index on chart.note (kind, at, key);
    create function chart.now() returns bigint language sql volatile
        return (extract(epoch from clock_timestamp()) * 1000000)::bigint;
    create function chart.stamp() returns trigger language plpgsql as $$
        begin
            perform pg_current_xact_id();
            new.revision := nextval('chart.revision');
            new.at := greatest(chart.now(), (select last_value + 1 from chart.closed));
            if tg_op = 'UPDATE' then new.at := greatest(new.at, old.at + 1); end if;
            return new;
        end $$;
    create trigger stamp before insert or update on chart.note for each row execute function chart.stamp();
    create function chart.close(reached bigint) returns bigint language sql volatile
        return setval('chart.closed', greatest(chart.now(), reached, (select last_value from chart.closed)));";

#[derive(Debug)]
struct Notes([TableName; 1]);

impl Layout for Notes {
    type Decoder = NoteRows;

    fn tables(&self) -> &[TableName] {
        &self.0
    }

    fn decoder(&self, _: RowContext) -> NoteRows {
        NoteRows::default()
    }

    fn pages(&self, context: PageContext) -> Box<dyn Pages> {
        Box::new(NotePages(PagePool::new(&context)))
    }

    fn stamps(&self) -> &dyn Stamps {
        self
    }

    fn service_role(&self) -> &str {
        "postgres"
    }
}

impl Stamps for Notes {
    fn close_time<'a>(&'a self, client: &'a Client, reached: Instant) -> Asked<'a, Instant> {
        Box::pin(async move {
            let reached = reached.unix_micros().max(1);
            let row = client.query_one("select chart.close($1)", &[&reached]).await?;
            row.try_get(0).map(Instant::from_unix_micros)
        })
    }

    fn grant_to_close(&self) -> &'static str {
        "grant update on sequence chart.closed to"
    }

    fn newest<'a>(&'a self, client: &'a Client) -> Asked<'a, Option<Instant>> {
        Box::pin(async move {
            let row = client.query_one("select max(at) from chart.note", &[]).await?;
            row.try_get::<_, Option<i64>>(0).map(|at| at.map(Instant::from_unix_micros))
        })
    }

    fn tombstones_purged<'a>(&'a self, _: &'a Client) -> Asked<'a, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }
}

/// What a row says.
struct Note<'a> {
    key: &'a str,
    body: &'a str,
    columns: Columns<'a>,
}

impl Note<'_> {
    fn write(&self, kind: Kind, out: &mut Vec<u8>) -> bool {
        match kind {
            Kind::Upsert => fhir::write_resource(self.body.as_bytes(), &self.columns, out).is_ok(),
            Kind::Deletion => fhir::write_deletion(&self.columns, out).is_ok(),
        }
    }
}

fn note<'a>(of: ResourceType, key: &'a str, revision: i64, at: i64, body: &'a str) -> Note<'a> {
    let last_updated = Instant::from_unix_micros(at);
    Note { key, body, columns: Columns { resource_type: of, id: key, version_id: revision, last_updated } }
}

/// The columns in the order of the table.
#[derive(Default)]
struct NoteRows(Vec<String>);

impl RowDecoder for NoteRows {
    fn encoding(&mut self, _: Arc<Encoding>) {}

    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError> {
        self.0 = relation.columns.iter().map(|column| column.name.clone()).collect();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError> {
        let Some(new) = row.new else { return Ok(()) };
        let text = |name: &str| {
            let index = self.0.iter().position(|column| column == name).unwrap();
            match new.get(index).unwrap() {
                Column::Text(text) => std::str::from_utf8(text).unwrap(),
                other => panic!("{name} is {other:?}"),
            }
        };
        let resource_type = text("kind").parse().unwrap();
        let (revision, at) = (text("revision").parse().unwrap(), text("at").parse().unwrap());
        let kind = if text("gone") == "t" { Kind::Deletion } else { Kind::Upsert };
        let mut data = Vec::new();
        assert!(note(resource_type, text("key"), revision, at, text("body")).write(kind, &mut data));
        out.push(Change {
            position,
            stamp: Instant::from_unix_micros(at),
            resource_type,
            kind,
            patients: Patients::none(),
            before: Before::Unknown,
            group_before: None,
            tick: None,
            data: data.into(),
        });
        Ok(())
    }

    fn truncated(&mut self, _: &[u32]) -> Result<(), LayoutError> {
        Err(LayoutError::Untold("the notes were truncated"))
    }

    fn commit(&mut self) -> Result<(), LayoutError> {
        Ok(())
    }

    fn restart(&mut self) {}
}

struct Nothing;

impl Prepared for Nothing {
    async fn prepare(_: &Client, _: Purpose) -> Result<Self, Error> {
        Ok(Self)
    }
}

struct NotePages(PagePool<Nothing>);

/// Two rows a page, so that there are several.
const ROWS: usize = 2;

impl Pages for NotePages {
    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async move {
            let of = request.resource_type;
            let gone = request.kind == Kind::Deletion;
            let since = request.since.map_or(i64::MIN, Instant::unix_micros);
            let until = request.until.unix_micros();
            let (after, key) =
                request.after.map_or((i64::MIN, String::new()), |(at, key)| (at.unix_micros(), key.into()));
            let (found, end) = self
                .0
                .attempt(Purpose::ByType, |connection| {
                    let key = &key;
                    async move {
                        let client = &connection.client;
                        let found = client
                            .query(
                                "select key, revision, at, body from chart.note
                                  where kind = $1 and gone = $2 and at > $3 and at <= $4 and (at, key) > ($5, $6)
                                  order by at, key limit 2",
                                &[&of.as_str(), &gone, &since, &until, &after, key],
                            )
                            .await
                            .map_err(|error| failure(&error))?;
                        let end = client.query_one("select pg_current_wal_insert_lsn()", &[]).await;
                        let end: PgLsn = end.and_then(|row| row.try_get(0)).map_err(|error| failure(&error))?;
                        let end = Lsn::new(end.into());
                        self.0.until_on_disk(client, Some(end)).await?;
                        Ok((found, end))
                    }
                })
                .await?;
            assert_ne!(end, Lsn::ZERO);
            rows.clear();
            let mut next = None;
            for row in &found {
                let note = note(of, row.get(0), row.get(1), row.get(2), row.get(3));
                let stamp = note.columns.last_updated;
                rows.row(stamp, note.key, &mut |out| note.write(request.kind, out));
                next = (found.len() == ROWS).then(|| (stamp, note.key.into()));
            }
            Ok(Page { next, expected: None, large: None })
        })
    }

    fn large(&self, _: ResourceType, _: LargeRow) -> Answer<'_, Option<Large>> {
        Box::pin(async { Ok(None) })
    }

    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async move {
            let found = self.0.attempt(Purpose::ByType, |connection| async move {
                let sql = "select distinct kind, gone from chart.note order by 1, 2";
                connection.client.query(sql, &[]).await.map_err(|error| failure(&error))
            });
            let kinds = found.await?.into_iter().map(|row| {
                let kind = if row.get(1) { Kind::Deletion } else { Kind::Upsert };
                (kind, row.get::<_, &str>(0).parse::<ResourceType>().unwrap())
            });
            Ok(kinds
                .filter(|(kind, of)| types.contains(*of) && (since.is_some() || *kind == Kind::Upsert))
                .collect())
        })
    }

    fn estimates(&self, _: TypeSet) -> Answer<'_, Vec<(ResourceType, u64)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn group<'a>(&'a self, _: &'a str) -> Answer<'a, Option<bytes::Bytes>> {
        Box::pin(async { Ok(None) })
    }

    fn are_most(&self, _: usize) -> Answer<'_, bool> {
        Box::pin(async { Ok(false) })
    }

    fn stored(&self, _: Patients) -> Answer<'_, Patients> {
        Box::pin(async { Ok(Patients::none()) })
    }

    fn tick(&self) -> Answer<'_, ()> {
        Box::pin(self.0.tick())
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }
}

struct Lines;

impl Framing for Lines {
    fn begin(&self, _: &str, _: ResourceType, _: &mut Vec<u8>) {}

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

/// The service, as far as it lies below HTTP.
struct Service {
    feed: Feed,
    _shutdown: DropGuard,
    _directory: TempDir,
}

impl Service {
    fn start(database: &TestDatabase) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = feed::Options {
            directory: directory.path().join("journal"),
            retention_bytes: 1 << 30,
            retention_age: Duration::from_secs(3600),
            concurrent_pages: 4,
            held_bytes: 64 << 20,
            base_urls: BaseUrls::default(),
        };
        let (feed, publisher) = Feed::open(options, Arc::new(Lines)).unwrap();
        let layout = Notes([TableName::new("chart", "note")]);
        let settings = cdc::Settings {
            // Slots are the cluster's.
            slot: database.name.parse().unwrap(),
            publication: "notes".into(),
            layout: Arc::new(Notes(layout.0.clone())),
            ..database.settings("postgres")
        };
        let shutdown = CancellationToken::new();
        let tables = Tables::start(&settings, feed.clone(), OnBadRow::Stop, shutdown.clone());
        let decoder = Box::new(layout.decoder(tables.context()));
        feed.set_source(tables);
        let status = watch::Sender::new(SourceStatus::default());
        tokio::spawn(cdc::run(settings, decoder, feed.clone(), publisher, status, shutdown.clone()));
        Self { feed, _shutdown: shutdown.drop_guard(), _directory: directory }
    }

    fn subscribe(&self, begin: Begin) -> Subscription {
        self.feed.subscribe(Filter::everything(), begin)
    }
}

async fn next(subscription: &mut Subscription) -> Item {
    let next = tokio::time::timeout(Duration::from_secs(60), subscription.next());
    next.await.expect("nothing came").unwrap()
}

/// What a frame says: the id, and the version or that it is gone.
fn said(line: &str) -> String {
    let json = line.as_bytes();
    match (fhir::deleted_id(json), fhir::stored_id(json)) {
        (Some(id), _) => format!("{id} gone"),
        (None, Some(id)) => {
            let n = line.split("\"n\":").nth(1).and_then(|rest| rest.split('}').next()).unwrap();
            format!("{id} {n}")
        }
        (None, None) => panic!("{line}"),
    }
}

fn lines(item: Item) -> Vec<String> {
    match item {
        Item::Frames(frames) => std::str::from_utf8(&frames.bytes).unwrap().lines().map(said).collect(),
        Item::Notice(Notice::Reset { reason, .. }) => panic!("reset: {reason}"),
        Item::Notice(_) | Item::Waiting(_) => Vec::new(),
    }
}

/// All up to `live`.
async fn replay(subscription: &mut Subscription) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        match next(subscription).await {
            Item::Notice(Notice::Live { .. }) => return heard,
            item => heard.extend(lines(item)),
        }
    }
}

/// All up to a line, which is the last.
async fn until(subscription: &mut Subscription, last: &str) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    while heard.last().is_none_or(|line| line != last) {
        heard.extend(lines(next(subscription).await));
    }
    heard
}

async fn put(client: &Client, key: &str, n: u32) {
    let body = format!("{{\"resourceType\":\"Basic\",\"n\":{n}}}");
    let sql = "insert into chart.note (kind, key, body) values ('Basic', $1, $2)
               on conflict (kind, key) do update set body = excluded.body, gone = false";
    client.execute(sql, &[&key, &body]).await.unwrap();
}

async fn delete(client: &Client, key: &str) {
    client.execute("update chart.note set gone = true where key = $1", &[&key]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn second_layout_is_replayed_followed_resumed_and_its_deletions_are_exact() {
    let database = Cluster::shared().empty().await;
    let client = database.client().await;
    client.batch_execute(SCHEMA).await.unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        put(&client, key, 1).await;
    }
    delete(&client, "c").await;

    let service = Service::start(&database);
    let mut first = service.subscribe(Begin::Since(None));
    assert_eq!(replay(&mut first).await, ["a 1", "b 1", "d 1", "e 1"], "over several pages");

    put(&client, "a", 2).await;
    delete(&client, "b").await;
    put(&client, "c", 3).await;
    assert_eq!(until(&mut first, "c 3").await, ["a 2", "b gone", "c 3"]);

    let id: EventId = first.id();
    drop(first);
    put(&client, "f", 4).await;
    delete(&client, "a").await;
    let mut resumed = service.subscribe(Begin::After { id: Some(id), since: None });
    assert_eq!(until(&mut resumed, "a gone").await, ["f 4", "a gone"]);

    // Deletions that the log does not bring any more come from the table.
    let since = Some(Instant::from_unix_micros(1));
    let mut changed = service.subscribe(Begin::Since(since));
    let mut heard = replay(&mut changed).await;
    heard.sort();
    assert_eq!(heard, ["a gone", "b gone", "c 3", "d 1", "e 1", "f 4"]);
    put(&client, "z", 5).await;
    assert_eq!(until(&mut changed, "z 5").await, ["z 5"]);
    assert_eq!(until(&mut resumed, "z 5").await, ["z 5"]);
}
