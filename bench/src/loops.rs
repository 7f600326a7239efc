//! The inner loops: what happens to each event on its way from the log to a client, piece by piece.

use crate::documents;
use bytes::Bytes;
use cdc::layout::native::NativeRows;
use cdc::layout::{RowContext, RowDecoder};
use feed::{
    Answer, Batch, Before, Begin, Change, EventId, Feed, Framing as _, Item, Kind, Lsn, Notice, Options,
    Origin, Page, PageRequest, PageRows, Position, Sample, Source, Transaction, Watermark,
};
use fhir::{
    BaseUrls, Columns, Filter, Instant, Patients, RESOURCE_TYPES, ResourceType, TypeSet,
    patients_of_resource, write_resource, write_resource_with_patients,
};
use pg::pgoutput::{Message, Relation, RelationColumn, ReplicaIdentity};
use sse_api::EventStream;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Does so many items.
pub type Work = Box<dyn FnMut(u64)>;

/// A loop.
#[derive(Clone, Copy)]
pub struct Loop {
    /// Its name.
    pub name: &'static str,
    /// What an item is.
    pub item: &'static str,
    /// Makes it ready.
    pub prepare: fn() -> Result<Work, Box<dyn Error>>,
}

/// All of them, in the order of an event's way.
pub const LOOPS: [Loop; 9] = [
    Loop { name: "decode", item: "a row message of pgoutput, its columns read", prepare: decode },
    Loop { name: "splice", item: "a resource written with id and meta", prepare: splice },
    Loop { name: "found", item: "the same, and the patients that the resource belongs to", prepare: found },
    Loop { name: "patients", item: "the patients that an old content belonged to", prepare: patients },
    Loop { name: "row", item: "a row message decoded and made a change", prepare: row },
    Loop { name: "match", item: "a change's type looked up in a filter", prepare: matching },
    Loop { name: "id", item: "an event id written", prepare: id },
    Loop { name: "frame", item: "a frame written", prepare: frame },
    Loop {
        name: "feed",
        item: "a change through hub and journal to one subscriber, in batches of 200",
        prepare: feed,
    },
];

const RELATION: u32 = 16_384;
const STAMP: Instant = Instant::from_unix_micros(1_773_480_413_589_793);
const DIFFERENT: u64 = 64;

/// Row messages as the server sends them, different ones.
fn messages() -> Vec<Bytes> {
    let message = |number: u64| {
        let content = documents::observation(number);
        let (id, version) = (format!("o-{number:09}"), (1_000_000 + number).to_string());
        let stamp = "2026-03-14 09:26:53.589793+00";
        let mut out = vec![b'I'];
        out.extend_from_slice(&RELATION.to_be_bytes());
        out.extend_from_slice(b"N\0\x05");
        for column in [documents::TYPE, &id, &version, stamp, &content] {
            out.push(b't');
            // A few bytes to a few kilobytes.
            out.extend_from_slice(&u32::try_from(column.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(column.as_bytes());
        }
        Bytes::from(out)
    };
    (0..DIFFERENT).map(message).collect()
}

fn relation() -> Relation {
    let names = ["resource_type", "id", "version_id", "last_updated", "content"];
    let column =
        |name: &str| RelationColumn { key: false, name: name.to_owned(), type_oid: 25, type_modifier: -1 };
    Relation {
        id: RELATION,
        namespace: "fhir".to_owned(),
        name: "resource".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: names.into_iter().map(column).collect(),
    }
}

fn decode() -> Result<Work, Box<dyn Error>> {
    let messages = messages();
    Ok(Box::new(move |count| {
        for message in messages.iter().cycle().take(places(count)) {
            if let Ok(Message::Row(row)) = Message::decode(black_box(message))
                && let Some(new) = row.new
            {
                for column in new.columns() {
                    black_box(column);
                }
            }
        }
    }))
}

fn splice() -> Result<Work, Box<dyn Error>> {
    contents(|content, columns, _, out| {
        let _ = black_box(write_resource(content, columns, out));
    })
}

fn found() -> Result<Work, Box<dyn Error>> {
    contents(|content, columns, bases, out| {
        let _ = black_box(write_resource_with_patients(content, columns, bases, out));
    })
}

fn patients() -> Result<Work, Box<dyn Error>> {
    contents(|content, columns, bases, _| {
        let _ = black_box(patients_of_resource(content, columns.resource_type, columns.id, bases));
    })
}

/// What is done with a content. A content that cannot be read would show in the figures as nothing.
type Use = fn(&[u8], &Columns<'_>, &BaseUrls, &mut Vec<u8>);

fn contents(each: Use) -> Result<Work, Box<dyn Error>> {
    let resource_type = documents::TYPE.parse()?;
    let contents: Vec<String> = (0..DIFFERENT).map(documents::observation).collect();
    let bases = BaseUrls::new(["https://ehr.example/fhir"]);
    let mut out = Vec::new();
    Ok(Box::new(move |count| {
        for content in contents.iter().cycle().take(places(count)) {
            out.clear();
            let columns =
                Columns { resource_type, id: "o-000000007", version_id: 1_000_007, last_updated: STAMP };
            each(black_box(content.as_bytes()), &columns, &bases, &mut out);
        }
    }))
}

fn row() -> Result<Work, Box<dyn Error>> {
    let (messages, mut changes) = (messages(), Vec::new());
    let mut layout = NativeRows::new(RowContext::default());
    layout.relation(&relation())?;
    Ok(Box::new(move |count| {
        for message in messages.iter().cycle().take(places(count)) {
            if let Ok(Message::Row(row)) = Message::decode(black_box(message)) {
                let _ = black_box(layout.row(&row, Position::ZERO, &mut changes));
            }
            if changes.len() == 200 {
                changes.clear();
            }
        }
    }))
}

fn matching() -> Result<Work, Box<dyn Error>> {
    let filter = Filter::of_types([ResourceType::PATIENT, documents::TYPE.parse()?].into_iter().collect());
    let types: Vec<ResourceType> = (0..RESOURCE_TYPES).filter_map(ResourceType::from_index).collect();
    Ok(Box::new(move |count| {
        for resource_type in types.iter().cycle().take(places(count)) {
            black_box(black_box(&filter).matches(*resource_type));
        }
    }))
}

fn id() -> Result<Work, Box<dyn Error>> {
    let id: EventId = "EQkMtu_m9EhSAAAAAAGUBagAAAAGYOSanMzy2zkhQA".parse()?;
    Ok(Box::new(move |count| {
        for _ in 0..count {
            black_box(black_box(&id).to_string());
        }
    }))
}

fn frame() -> Result<Work, Box<dyn Error>> {
    let event = documents::TYPE.parse()?;
    let contents: Vec<String> = (0..DIFFERENT).map(documents::observation).collect();
    let mut out = Vec::new();
    Ok(Box::new(move |count| {
        for content in contents.iter().cycle().take(places(count)) {
            if out.len() > 256 << 10 {
                out.clear();
            }
            let id = black_box("EQkMtu_m9EhSAAAAAAGUBagAAAAGYOSanMzy2zkhQA");
            EventStream.frame(id, event, black_box(content.as_bytes()), &mut out);
        }
    }))
}

/// Tables without rows, and a watermark.
struct Empty;

const WATERMARK: Watermark = Watermark { safe_time: STAMP, fence_lsn: Lsn::new(1) };

impl Source for Empty {
    fn watermark(&self) -> Answer<'_, Sample> {
        let sample =
            Sample { watermark: WATERMARK, taken: tokio::time::Instant::now(), tombstones_purged: None };
        Box::pin(async move { Ok(sample) })
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn present(
        &self,
        _: Option<Instant>,
        _: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, _: PageRequest, _: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn feed() -> Result<Work, Box<dyn Error>> {
    const BATCH: u64 = 200;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let options = Options {
        directory: directory.path().join("journal"),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 1,
        held_bytes: 64 << 20,
        base_urls: fhir::BaseUrls::default(),
    };
    let _inside = runtime.enter();
    let (feed, mut publisher) = Feed::open(options, Arc::new(EventStream))?;
    feed.set_source(Arc::new(Empty));
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    let mut durable = publisher.durable();
    let mut subscription = feed.subscribe(Filter::everything(), Begin::Since(None));
    runtime.block_on(async {
        publisher.begin_epoch(origin, Lsn::new(1), Instant::from_unix_micros(0), false).await?;
        feed.note_watermark(feed.sample_base(), WATERMARK);
        publisher.publish(Batch { passed: Some(Lsn::new(2)), ..Batch::default() }).await?;
        while !matches!(subscription.next().await?, Item::Notice(Notice::Live { .. })) {}
        Ok::<_, Box<dyn Error>>(())
    })?;
    let contents: Vec<Bytes> =
        (0..DIFFERENT).map(|number| Bytes::from(documents::observation(number))).collect();
    let resource_type = documents::TYPE.parse()?;
    let mut lsn = 1_000;
    drop(_inside);
    Ok(Box::new(move |count| {
        // The journal lies in it.
        let _kept = &directory;
        let mut left = count;
        while left > 0 {
            let size = left.min(BATCH);
            left -= size;
            lsn += 1_000;
            let batch = batch(&contents, resource_type, lsn, size);
            let done = runtime.block_on(async {
                publisher.publish(batch).await?;
                let mut came = 0;
                while came < size {
                    if let Item::Frames(frames) = subscription.next().await? {
                        came += frames.counts.total();
                        black_box(&frames.bytes);
                    }
                }
                // Else how many batches share an fsync would differ from run to run.
                durable.wait_for(|durable| durable.get() > lsn).await?;
                Ok::<_, Box<dyn Error>>(())
            });
            // A loop that stands still would look fast.
            assert!(done.is_ok(), "the feed stopped: {done:?}");
        }
    }))
}

fn batch(contents: &[Bytes], resource_type: ResourceType, lsn: u64, size: u64) -> Batch {
    let commit_lsn = Lsn::new(lsn);
    let change = |(ordinal, data): (u64, &Bytes)| Change {
        position: Position { commit_lsn, ordinal, part: 0 },
        stamp: STAMP,
        resource_type,
        kind: Kind::Upsert,
        patients: Patients::none(),
        before: Before::Nothing,
        group_before: None,
        tick: None,
        data: data.clone(),
    };
    Batch {
        changes: (0..size).zip(contents.iter().cycle()).map(change).collect(),
        transactions: vec![Transaction { commit_lsn, xid: 1, commit_time: STAMP }],
        passed: Some(Lsn::new(lsn + 1)),
    }
}

/// What `take` wants. More than fit are more than anybody counts.
fn places(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
