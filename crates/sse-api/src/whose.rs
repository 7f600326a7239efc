//! Whether the patients who are asked for by name are stored.

use crate::refusal::{Passing, Refusal};
use crate::subscribe::Subscribe;
use feed::SourceError;
use fhir::{Compartment, ExportRequest, Issue, IssueType, Level, Outcome, Patients};
use http::StatusCode;

/// The patients who are asked for by name and are not stored; or why that cannot be known now.
pub(crate) async fn unknown_patients<F: Subscribe>(
    feed: &F,
    request: &ExportRequest,
) -> Result<Patients, Passing> {
    let asked = match &request.filter.compartment {
        Compartment::Any => return Ok(Patients::none()),
        Compartment::AnyPatient => Patients::none(),
        Compartment::Patients(patients) => patients.clone(),
    };
    match feed.stored(asked.clone()).await {
        Ok(stored) => Ok(Patients::from_ids(asked.iter().filter(|id| !stored.contains(id)))),
        Err(SourceError::Unavailable(_)) => Err(Passing::Unavailable),
        Err(SourceError::Refused(_)) => Err(Passing::NoPatients),
    }
}

/// What who asked for them is told.
pub(crate) fn unknown_refusal(level: &Level, unknown: &Patients) -> Refusal {
    let ids = unknown.iter().collect::<Vec<_>>().join(", ");
    match level {
        Level::Patient(_) => Refusal::lasting(
            StatusCode::NOT_FOUND,
            IssueType::NotFound,
            &format!("there is no Patient with the id {ids}"),
        ),
        _ => {
            let text = format!(
                "patient: there is no Patient with the id {ids}; leave it out, or ask with 'Prefer: handling=lenient'"
            );
            let outcome = Outcome::new(Issue::error(IssueType::Value, text).about("patient"));
            Refusal::Lasting(StatusCode::BAD_REQUEST, outcome)
        }
    }
}
