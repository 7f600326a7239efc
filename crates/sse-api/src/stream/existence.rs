//! Whether the requested patients and Groups exist.

use crate::feed_handle::FeedHandle;
use crate::stream::rejection::RetryReason;
use feed::{GroupNow, SourceError};
use fhir::{Compartment, ExportRequest, Handling, Issue, IssueType, Level, Outcome, Patients};
use http::StatusCode;
use std::sync::Arc;

/// Why a request cannot be served.
pub(crate) enum ExistenceError {
    /// A retry would be rejected again.
    Permanent(StatusCode, Outcome),
    /// The database cannot answer now.
    Retryable(RetryReason),
}

impl From<SourceError> for ExistenceError {
    fn from(error: SourceError) -> Self {
        Self::Retryable(match error {
            SourceError::Unavailable(_) => RetryReason::Unavailable,
            SourceError::Refused(_) | SourceError::Gone(_) => RetryReason::MigrationMissing,
        })
    }
}

/// Returns the requested patients that do not exist, if the request tolerates them.
pub(crate) async fn check_existence<F: FeedHandle>(
    feed: &F,
    request: &ExportRequest,
    handling: Handling,
) -> Result<Patients, ExistenceError> {
    let (named, there, of) = match &request.filter.compartment {
        Compartment::Any => return Ok(Patients::none()),
        Compartment::AnyPatient => {
            feed.stored(Patients::none()).await?;
            return Ok(Patients::none());
        }
        Compartment::Patients(named) => (named, Arc::new(feed.stored(named.clone()).await?), ""),
        Compartment::Group { id, only } => {
            let there = followable_members(feed.group(id).await?, id)?;
            let Some(named) = only else { return Ok(Patients::none()) };
            (named, there, " among the Group's members")
        }
    };
    let missing = Patients::from_ids(named.iter().filter(|id| !there.contains(id)));
    let ids = missing.iter().collect::<Vec<_>>().join(", ");
    match (&request.level, handling) {
        _ if missing.is_empty() => Ok(missing),
        (Level::Patient(_), _) => Err(not_found(&format!("there is no Patient with the id {ids}"))),
        (_, Handling::Lenient) => Ok(missing),
        (_, Handling::Strict) => {
            let text = format!(
                "patient: there is no Patient{of} with the id {ids}; leave it out, or ask with 'Prefer: handling=lenient'"
            );
            let outcome = Outcome::new(Issue::error(IssueType::Value, text).about("patient"));
            Err(ExistenceError::Permanent(StatusCode::BAD_REQUEST, outcome))
        }
    }
}

/// Checks the Group of a request that resumes, if the database is available. Patients need no check: a
/// resuming client is sent their deletions, and the journal needs no tables.
pub(crate) async fn recheck_group<F: FeedHandle>(
    feed: &F,
    request: &ExportRequest,
) -> Result<(), ExistenceError> {
    let Compartment::Group { id, .. } = &request.filter.compartment else { return Ok(()) };
    match feed.group(id).await {
        Ok(group) => followable_members(group, id).map(|_| ()),
        Err(_) => Ok(()),
    }
}

/// The members of a Group that can be followable_members.
fn followable_members(group: GroupNow, id: &str) -> Result<Arc<Patients>, ExistenceError> {
    match group {
        GroupNow::Missing => Err(not_found(&format!("there is no Group with the id {id}"))),
        GroupNow::Uninterpretable(why) => {
            let text = format!("the Group {id} cannot be followable_members: {why}");
            let outcome = Outcome::error(IssueType::Processing, text);
            Err(ExistenceError::Permanent(StatusCode::UNPROCESSABLE_ENTITY, outcome))
        }
        GroupNow::Members(members) => Ok(members),
    }
}

fn not_found(text: &str) -> ExistenceError {
    ExistenceError::Permanent(StatusCode::NOT_FOUND, Outcome::error(IssueType::NotFound, text))
}
