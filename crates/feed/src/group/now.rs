//! A Group as it is in the tables now: whether a stream of its members can begin.

use super::in_flight::InFlight;
use crate::shared::Shared;
use crate::{Source, SourceError};
use bytes::Bytes;
use fhir::{BaseUrls, GroupContent, Instant, Patients, UninterpretableGroup};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked whether a period has begun or ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a Group is at the moment.
#[derive(Clone, Debug)]
pub enum GroupNow {
    /// It is not stored.
    Missing,
    /// Who its members are cannot be told: why, for the client.
    Uninterpretable(String),
    /// It has these members, those of nested Groups included.
    Members(Arc<Patients>),
}

/// A Group that was read, with those that are nested in it.
#[derive(Clone)]
pub(crate) struct GroupRead {
    pub(crate) now: GroupNow,
    /// Whether a patient is a member of one of them for a limited period.
    pub(crate) has_periods: bool,
}

/// Reads of Groups. A read serves all who asked before it began, and no one who asked later, who may have written the Group
/// in between: a thousand streams that open at once cost a few reads of a large Group.
#[derive(Default)]
pub(crate) struct GroupReads {
    /// The reads that have not begun.
    next: InFlight<Box<str>, Result<GroupRead, SourceError>>,
    /// Locked while a Group is being read.
    running: Mutex<HashMap<Box<str>, Arc<tokio::sync::Mutex<()>>>>,
}

impl GroupReads {
    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock();
        running.retain(|_, turn| Arc::strong_count(turn) > 1);
        running.entry(id.into()).or_default().clone()
    }
}

/// What a Group and those that are nested in it say of their members, the Group first; `None`: it is not stored. Who is in a
/// nested one that is not, or cannot be interpreted, cannot be said for certain: it is left out.
async fn tree(
    source: &dyn Source,
    bases: &Arc<BaseUrls>,
    id: &str,
) -> Result<Option<Result<Vec<GroupContent>, UninterpretableGroup>>, SourceError> {
    let (mut seen, mut tree) = (BTreeSet::new(), Vec::new());
    let mut found: Vec<Box<str>> = vec![id.into()];
    while let Some(next) = found.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let read = match source.group(&next).await? {
            Some(content) => members_of(content, bases).await,
            None => None,
        };
        match read {
            Some(Ok(read)) => {
                found.extend(read.nested().map(Box::from));
                tree.push(read);
            }
            None if *next == *id => return Ok(None),
            Some(Err(why)) if *next == *id => return Ok(Some(Err(why))),
            None | Some(Err(_)) => {}
        }
    }
    Ok(Some(Ok(tree)))
}

/// Reads what a Group says of its members, which takes a while if it is large; `None` if the process ends.
pub(super) async fn members_of(
    content: Bytes,
    bases: &Arc<BaseUrls>,
) -> Option<Result<GroupContent, UninterpretableGroup>> {
    let bases = bases.clone();
    tokio::task::spawn_blocking(move || GroupContent::read(&content, &bases)).await.ok()
}

impl Shared {
    /// A Group as it is in the tables after this was called, and those that are nested in it.
    pub(crate) async fn group_now(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        id: &str,
    ) -> Result<GroupRead, SourceError> {
        let lost = Err(SourceError::Unavailable("the Group cannot be read".into()));
        let id = Box::<str>::from(id);
        let read = self.group_reads.next.join(&id, lost, || {
            let (shared, source, id) = (self.clone(), source.clone(), id.clone());
            let turn = self.group_reads.turn(&id);
            async move {
                let _running = turn.lock().await;
                shared.group_reads.next.close(&id);
                read(&*source, &shared.base_urls, &id).await
            }
        });
        read.await
    }
}

async fn read(source: &dyn Source, bases: &Arc<BaseUrls>, id: &str) -> Result<GroupRead, SourceError> {
    let tree = tree(source, bases, id).await?;
    // By our own clock: who joins or leaves at this very moment may be told either.
    let now = now();
    Ok(match tree {
        None => GroupRead { now: GroupNow::Missing, has_periods: false },
        Some(Err(why)) => GroupRead { now: GroupNow::Uninterpretable(why.to_string()), has_periods: false },
        Some(Ok(tree)) => GroupRead {
            now: GroupNow::Members(
                Patients::from_ids(tree.iter().flat_map(|read| read.members_at(now))).into(),
            ),
            has_periods: tree.iter().any(GroupContent::has_periods),
        },
    })
}

/// Has ticks written when somebody comes to be a member, or ceases to be, for as long as there is a feed.
pub(crate) async fn keep_time(shared: Weak<Shared>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.member_sets.forget();
        let Some(due) = shared.member_sets.due(now()) else { continue };
        // Who is behind will find the tick that there is.
        let head = shared.durable.borrow().head.position;
        let newest = shared.journal.read(move |journal| journal.tick_at(head)).await;
        if let Ok(Some(newest)) = newest
            && newest >= due
        {
            shared.member_sets.ticked(newest);
            continue;
        }
        let source = shared.source.borrow().clone();
        if let Some(source) = source
            && let Err(error) = source.tick().await
        {
            tracing::debug!(%error, "no tick could be written");
        }
    }
}

/// The time by our own clock.
fn now() -> Instant {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
