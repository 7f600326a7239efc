//! A Group as it is in the tables now: whether a stream of its members can begin.

use crate::feed::Shared;
use crate::{Source, SourceError};
use fhir::{BaseUrls, GroupContent, Instant, Patients, UninterpretableGroup};
use std::collections::BTreeSet;
use std::sync::Weak;
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
    Members(Patients),
}

/// What a Group and those that are nested in it say of their members, the Group first; `None`: it is not stored. Who is in a
/// nested one that is not, or cannot be interpreted, cannot be said for certain: it is left out.
async fn tree(
    source: &dyn Source,
    bases: &BaseUrls,
    id: &str,
) -> Result<Option<Result<Vec<GroupContent>, UninterpretableGroup>>, SourceError> {
    let (mut seen, mut tree) = (BTreeSet::new(), Vec::new());
    let mut found: Vec<Box<str>> = vec![id.into()];
    while let Some(next) = found.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let content = source.group(&next).await?;
        match content.map(|content| GroupContent::read(&content, bases)) {
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

/// Reads a Group and those that are nested in it.
pub(crate) async fn group_now(
    source: &dyn Source,
    bases: &BaseUrls,
    id: &str,
) -> Result<GroupNow, SourceError> {
    // By our own clock: who joins or leaves at this very moment may be told either.
    let now = now();
    Ok(match tree(source, bases, id).await? {
        None => GroupNow::Missing,
        Some(Err(why)) => GroupNow::Uninterpretable(why.to_string()),
        Some(Ok(tree)) => {
            GroupNow::Members(Patients::from_ids(tree.iter().flat_map(|read| read.members_at(now))))
        }
    })
}

impl Shared {
    /// Whether somebody is a member of the Group, or of one in it, for some time only.
    pub(crate) async fn has_periods(&self, source: &dyn Source, id: &str) -> Result<bool, SourceError> {
        let tree = tree(source, &self.base_urls, id).await?;
        Ok(matches!(tree, Some(Ok(tree)) if tree.iter().any(GroupContent::has_periods)))
    }
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
        let (journal, head) = (shared.journal.clone(), shared.durable.borrow().head.position);
        let newest = tokio::task::spawn_blocking(move || journal.tick_at(head)).await;
        if matches!(newest, Ok(Ok(Some(newest))) if newest >= due) {
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
