//! The notices of a stream: a code for metrics, and an OperationOutcome.

use feed::{Notice, SourceError};
use fhir::{Instant, Issue, IssueType, NoticeCode, Outcome};

/// A notice's code and its JSON.
pub(crate) type RenderedNotice = (&'static str, String);

/// Renders a notice of the feed.
pub(crate) fn of(notice: &Notice) -> RenderedNotice {
    let (code, outcome) = match notice {
        Notice::Live { transaction_time } => (NoticeCode::Live, Outcome::live(*transaction_time)),
        Notice::Position { transaction_time } => as_of(
            NoticeCode::Position,
            *transaction_time,
            "no changes match this request; its position has advanced",
        ),
        Notice::Estimated { totals } => {
            let all = totals.iter().fold(0_u64, |all, (_, total)| all.saturating_add(*total));
            let text = format!("the current state follows: about {all} resources, as the database estimates");
            let issue = Issue::notice(NoticeCode::Position, text);
            let estimate = |issue: Issue, &(of, total): &(_, u64)| issue.with_estimated_total(of, total);
            (NoticeCode::Position, Outcome::new(totals.iter().fold(issue, estimate)))
        }
        Notice::Stale { transaction_time } => as_of(
            NoticeCode::Stale,
            *transaction_time,
            "the stream is late: the database is away, or the service is behind its log; changes after \
             transactionTime may be missing until the notice fresh",
        ),
        Notice::Fresh { transaction_time } => {
            as_of(NoticeCode::Fresh, *transaction_time, "changes are up to date again")
        }
        Notice::Members { joined, left } => told(
            NoticeCode::Members,
            &format!(
                "the Group's members have changed: {joined} joined, whose resources were sent, and {left} left, whose \
                 resources were removed"
            ),
        ),
        Notice::Reset { reason } => told(
            NoticeCode::Reset,
            &format!("{reason}: the newest state of all that changed since follows, up to the notice live"),
        ),
        Notice::ResetAll { reason } => told(
            NoticeCode::ResetAll,
            &format!("{reason}: everything follows; drop what was not sent again by the notice live"),
        ),
    };
    (code.as_str(), outcome.to_json())
}

/// The last notice of a stream when the service stops.
pub(crate) fn shutdown() -> RenderedNotice {
    let (code, outcome) =
        told(NoticeCode::Shutdown, "the service is stopping: reconnect with this id to miss nothing");
    (code.as_str(), outcome.to_json())
}

/// The last notice of a stream that failed. The database's message is not for clients.
pub(crate) fn failed(error: &SourceError) -> RenderedNotice {
    match error {
        SourceError::Unavailable(_) => {
            let (code, outcome) =
                told(NoticeCode::Transient, "the database is not available: reconnect with this id");
            (code.as_str(), outcome.to_json())
        }
        SourceError::Gone(why) => {
            let text =
                format!("the stream ends: {why}; a reconnect is refused, and what was sent stays valid");
            let (code, outcome) = told(NoticeCode::End, &text);
            (code.as_str(), outcome.to_json())
        }
        SourceError::Refused(_) => {
            let issue = Issue::error(
                IssueType::Exception,
                "the database refuses the request: the operator finds the cause in the service's log",
            );
            let end = Issue::notice(NoticeCode::End, "the stream ends: reconnect with this id");
            ("exception", Outcome::new(issue).and(end).to_json())
        }
    }
}

fn as_of(code: NoticeCode, transaction_time: Instant, diagnostics: &str) -> (NoticeCode, Outcome) {
    (code, Outcome::notice_as_of(code, transaction_time, diagnostics))
}

fn told(code: NoticeCode, diagnostics: &str) -> (NoticeCode, Outcome) {
    (code, Outcome::notice(code, diagnostics))
}
