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
mod writers;

pub(crate) use access::{Judged, TABLES as READ};
pub use patients::NAMES as PATIENT_STREAM_NAMES;
pub(crate) use patients::repairs as patient_repairs;
pub(crate) use triggers::repairs as trigger_repairs;

use crate::Settings;
use crate::check::Finding;
use crate::layout::Findings;
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

/// Asks for all of them, passing and failing.
pub(crate) async fn ask(client: &Client, settings: &Settings, judged: Judged) -> Vec<Findings> {
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
pub(crate) fn tables_are_there(answers: &[Findings]) -> bool {
    answers.iter().any(|(subject, _)| *subject == "columns")
}

/// What streams of patients and Groups need beside them, passing and not.
pub(crate) async fn for_patients(client: &Client) -> Result<Vec<Finding>, Error> {
    patients::ask(client).await.map(|facts| patients::judge(&facts))
}

/// All that `check` prints of the layout.
pub(super) async fn check(client: &Client, settings: &Settings) -> Vec<Findings> {
    let mut answers = ask(client, settings, Judged::ServiceRole).await;
    if tables_are_there(&answers) {
        answers.push(("patient index", for_patients(client).await));
        answers.push(("writers", writers::ask(client).await.map(|facts| writers::judge(&facts))));
    }
    answers
}
