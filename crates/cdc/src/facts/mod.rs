//! The facts on which a complete replay depends, in one list: while one of them fails, a replay could leave something
//! out without anybody noticing.
//!
//! `fhir-tail check` prints them. The service looks at them when it connects, every minute, and before a replay says
//! that it is complete. What is asked here changes nothing, and reads no table through.

mod access;
mod definitions;
mod layout;
mod patients;
mod published;
mod relations;
mod triggers;

pub(crate) use access::{Judged, Role, TABLES as READ};
pub use patients::NAMES as PATIENT_STREAM_NAMES;
pub(crate) use patients::repairs as patient_repairs;
pub(crate) use triggers::repairs as trigger_repairs;

use crate::check::{Finding, Verdict};
use crate::{Settings, describe_error};
use pg::Retry;
use pg::database::retry_of;
use tokio_postgres::{Client, Error};

/// What the facts are called, in the order in which they are asked.
pub const NAMES: [&str; 12] = [
    "tables",
    "columns",
    "partitions",
    "triggers",
    "versions",
    "replica identity",
    "subscriptions",
    "stamps",
    "publication",
    "pg_read_all_stats",
    "select",
    "row security",
];

/// A question, and what its answers came to.
pub(crate) type Answer = (&'static str, Result<Vec<Finding>, Error>);

/// Asks for all of them, passing and failing.
pub(crate) async fn ask(client: &Client, settings: &Settings, judged: Judged) -> Vec<Answer> {
    // Sent at once, answered in order.
    let (layout, relations, triggers, published, access) = tokio::join!(
        layout::ask(client, settings),
        relations::ask(client),
        triggers::ask(client),
        published::ask(client, settings),
        access::ask(client, judged),
    );
    let there = layout.as_ref().is_ok_and(layout::Facts::are_there);
    let mut answers = vec![("tables", layout.map(|facts| layout::judge(&facts)))];
    if there {
        answers.push(("columns", relations.map(|facts| relations::judge(&facts))));
        answers.push(("triggers", triggers.map(|facts| triggers::judge(&facts))));
        answers.push(("publication", published.map(|facts| published::judge(&facts, settings))));
    }
    answers.push(("select", access.map(|facts| access::judge(&facts))));
    answers
}

/// Whether the answers are about tables that are there: then these were asked for their columns.
pub(crate) fn tables_are_there(answers: &[Answer]) -> bool {
    answers.iter().any(|(subject, _)| *subject == "columns")
}

/// What streams of patients and Groups need beside them, passing and not.
pub(crate) async fn for_patients(client: &Client) -> Result<Vec<Finding>, Error> {
    patients::ask(client).await.map(|facts| patients::judge(&facts))
}

/// What of that is lacking. Nothing is where the native layout is not what is followed.
pub(crate) async fn lacking_for_patients(
    client: &Client,
    settings: &Settings,
) -> Result<Vec<Finding>, Error> {
    if !is_native(settings) {
        return Ok(Vec::new());
    }
    let findings = for_patients(client).await?;
    Ok(findings.into_iter().filter(|finding| finding.verdict != Verdict::Pass).collect())
}

fn is_native(settings: &Settings) -> bool {
    settings.tables.first().is_some_and(|table| table.schema == "fhir" && table.name == "resource")
}

/// Those that fail, for the role that asks; an error if the database does not answer. None fails where the native layout
/// is not what is followed.
pub(crate) async fn failing(client: &Client, settings: &Settings) -> Result<Vec<Finding>, Error> {
    let mut failing = Vec::new();
    if !is_native(settings) {
        return Ok(failing);
    }
    for (subject, answer) in ask(client, settings, Judged::WhoAsks).await {
        match answer {
            Ok(findings) => {
                failing.extend(findings.into_iter().filter(|finding| finding.verdict == Verdict::Failure));
            }
            // A question that this role may not ask is no answer either, and does not pass by itself.
            Err(error) if retry_of(&error) == Retry::Operator => {
                failing.push(Finding::failure(subject, could_not_be_asked(&error)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(failing)
}

/// What is said of a question that the database did not answer.
pub(crate) fn could_not_be_asked(error: &Error) -> String {
    format!("could not be asked: {}", describe_error(error))
}
