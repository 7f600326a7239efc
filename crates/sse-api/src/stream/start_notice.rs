//! The first notice of a stream, `start`.

use crate::clock::now;
use crate::request::resume::Resume;
use feed::Begin;
use fhir::{Compartment, ExportRequest, Instant, NoticeCode, Outcome, Patients, ResourceType};

/// The notice `start`: how the request was understood, and what was ignored.
pub(crate) fn start(
    request: &ExportRequest,
    resume: &Resume,
    missing: &Patients,
    journal_begins: Instant,
) -> String {
    let filter = &request.filter;
    let types = if filter.types == fhir::TypeSet::all() {
        "every resource type".to_owned()
    } else if filter.is_scoped() && in_compartments(filter) {
        "every resource type that is in patients' compartments".to_owned()
    } else {
        request.filter.types.iter().map(ResourceType::as_str).collect::<Vec<_>>().join(", ")
    };
    let of_group = matches!(filter.compartment, Compartment::Group { .. });
    let from = match (&resume.begin, request.since) {
        (Begin::After { id: Some(_), .. }, _) if resume.has_position() => {
            "continues after the event with the given id".to_owned()
        }
        (Begin::After { id: None, .. }, _) => "the given id cannot be read: a reset follows".to_owned(),
        (_, None) => "the current state, then every change as it commits".to_owned(),
        // Members may have joined after that instant.
        (_, Some(since)) if of_group && journal_begins > since => {
            format!(
                "it is no longer known who was a member at _since ({since}): reset-all, the current state, then every change as \
                 it commits"
            )
        }
        (_, Some(since)) if since > now() => {
            format!(
                "_since ({since}) is ahead of the clock: no current state, only changes that commit from now on"
            )
        }
        (_, Some(since)) if of_group => {
            format!(
                "changes after {since}, removals since, and everything of members who joined since, then every change as it commits"
            )
        }
        (_, Some(since)) => {
            format!("changes after {since}, deletions included, then every change as it commits")
        }
    };
    let there = match &filter.compartment {
        Compartment::Group { .. } => "not among the Group's members",
        Compartment::Any | Compartment::AnyPatient | Compartment::Patients(_) => {
            "patients that are not stored"
        }
    };
    let whose = match &filter.compartment {
        Compartment::Any => String::new(),
        Compartment::AnyPatient => ", of all patients".to_owned(),
        Compartment::Group { only: None, .. } => ", of the Group's members as they come and go".to_owned(),
        Compartment::Group { only: Some(only), .. } => {
            format!(", of {} patients while they are members of the Group", only.iter().count())
        }
        Compartment::Patients(patients) => match patients.iter().count() {
            1 => ", of one patient".to_owned(),
            count => format!(", of {count} patients"),
        },
    };
    let mut diagnostics = format!(
        "start: {types}{whose}; {from}; a comment line after {} s without events",
        request.heartbeat.as_secs()
    );
    let unsent: Vec<_> = request.unsent_types.iter().map(ToString::to_string).collect();
    let missing: Vec<_> = missing.iter().map(str::to_owned).collect();
    for (what, names) in [
        ("ignored", &request.ignored),
        ("ignored values of _type, not types of R4", &request.ignored_types),
        ("ignored values of patient, not ids", &request.ignored_patients),
        ("not sent, not in any patient's compartment", &unsent),
        (there, &missing),
    ] {
        if !names.is_empty() {
            diagnostics.push_str(&format!("; {what}: {}", names.join(", ")));
        }
    }
    Outcome::notice(NoticeCode::Start, diagnostics).to_json()
}

/// Whether a request asks for all types in patients' compartments.
fn in_compartments(filter: &fhir::Filter) -> bool {
    let others = |kind: &ResourceType| *kind != ResourceType::GROUP;
    filter.types.iter().filter(others).eq(fhir::compartment_types().iter())
}
