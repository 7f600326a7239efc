//! A Group as it is in the tables now: whether a stream of its members can begin.

use super::as_of::PERIODS;
use crate::{Source, SourceError};
use fhir::{BaseUrls, GroupContent, Patients};
use std::collections::BTreeSet;

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

/// Reads a Group and those that are nested in it.
pub(crate) async fn group_now(
    source: &dyn Source,
    bases: &BaseUrls,
    id: &str,
) -> Result<GroupNow, SourceError> {
    let (mut seen, mut members) = (BTreeSet::new(), Vec::new());
    let mut found: Vec<Box<str>> = vec![id.into()];
    while let Some(next) = found.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let root = *next == *id;
        let Some(content) = source.group(&next).await? else {
            if root {
                return Ok(GroupNow::Missing);
            }
            continue;
        };
        match GroupContent::read(&content, bases) {
            Ok(read) if read.has_periods() => return Ok(GroupNow::Uninterpretable(PERIODS.into())),
            Ok(read) => {
                members.extend(read.members_at(fhir::Instant::MIN).map(str::to_owned));
                found.extend(read.nested().map(Box::from));
            }
            Err(why) if root => return Ok(GroupNow::Uninterpretable(why.to_string())),
            // Who is in it for certain cannot be said.
            Err(_) => {}
        }
    }
    Ok(GroupNow::Members(Patients::from_ids(members.iter().map(String::as_str))))
}
