//! The facts on which a complete replay depends: while one of them fails, a replay could leave something
//! out without anybody noticing.

use crate::check::{Finding, Verdict};
use crate::{Settings, describe_error};
use pg::Retry;
use pg::database::retry_of;
use tokio_postgres::{Client, Error};

/// Those that fail, for the role that asks; an error if the database does not answer.
pub(crate) async fn failing(client: &Client, settings: &Settings) -> Result<Vec<Finding>, Error> {
    let mut failing = Vec::new();
    for (subject, answer) in settings.layout.facts(client, settings).await {
        match answer {
            Ok(findings) => {
                failing.extend(findings.into_iter().filter(|finding| finding.verdict == Verdict::Failure));
            }
            // A question that this role may not ask is not an answer either, and does not pass by itself.
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
