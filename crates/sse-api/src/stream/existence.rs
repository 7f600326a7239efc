//! Whether those are there whose resources are asked for.

use crate::feed_handle::Subscribe;
use crate::stream::rejection::Passing;
use feed::{GroupNow, SourceError};
use fhir::{Compartment, ExportRequest, Handling, Issue, IssueType, Level, Outcome, Patients};
use http::StatusCode;
use std::sync::Arc;

/// Why a request cannot be answered.
pub(crate) enum NotThere {
    /// It would be refused again.
    Lasting(StatusCode, Outcome),
    /// That cannot be known now.
    Passing(Passing),
}

impl From<SourceError> for NotThere {
    fn from(error: SourceError) -> Self {
        Self::Passing(match error {
            SourceError::Unavailable(_) => Passing::Unavailable,
            SourceError::Refused(_) | SourceError::Gone(_) => Passing::NoPatients,
        })
    }
}

/// Looks for them: the patients who were named and are not there, if the request may leave them out.
pub(crate) async fn look<F: Subscribe>(
    feed: &F,
    request: &ExportRequest,
    handling: Handling,
) -> Result<Patients, NotThere> {
    let (named, there, of) = match &request.filter.compartment {
        Compartment::Any => return Ok(Patients::none()),
        Compartment::AnyPatient => {
            feed.stored(Patients::none()).await?;
            return Ok(Patients::none());
        }
        Compartment::Patients(named) => (named, Arc::new(feed.stored(named.clone()).await?), ""),
        Compartment::Group { id, only } => {
            let there = followed(feed.group(id).await?, id)?;
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
            Err(NotThere::Lasting(StatusCode::BAD_REQUEST, outcome))
        }
    }
}

/// Looks for the Group of a request that goes on, if the database is there to be asked. Of a patient who was deleted since who
/// comes back is told, and what follows in the journal needs no tables.
pub(crate) async fn look_again<F: Subscribe>(feed: &F, request: &ExportRequest) -> Result<(), NotThere> {
    let Compartment::Group { id, .. } = &request.filter.compartment else { return Ok(()) };
    match feed.group(id).await {
        Ok(group) => followed(group, id).map(|_| ()),
        Err(_) => Ok(()),
    }
}

/// The members of a Group that can be followed.
fn followed(group: GroupNow, id: &str) -> Result<Arc<Patients>, NotThere> {
    match group {
        GroupNow::Missing => Err(not_found(&format!("there is no Group with the id {id}"))),
        GroupNow::Uninterpretable(why) => {
            let text = format!("the Group {id} cannot be followed: {why}");
            let outcome = Outcome::error(IssueType::Processing, text);
            Err(NotThere::Lasting(StatusCode::UNPROCESSABLE_ENTITY, outcome))
        }
        GroupNow::Members(members) => Ok(members),
    }
}

fn not_found(text: &str) -> NotThere {
    NotThere::Lasting(StatusCode::NOT_FOUND, Outcome::error(IssueType::NotFound, text))
}
