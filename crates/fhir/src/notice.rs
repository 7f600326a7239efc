//! The codes of the notices: what a stream tells besides changes.

use crate::{Instant, Issue, IssueType, Outcome, Severity};

/// A code of our CodeSystem [`canonical::NOTICE_CODES`](crate::canonical::NOTICE_CODES).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoticeCode {
    /// The first frame of every stream.
    Start,
    /// The replay has ended: from now on changes come as they commit.
    Live,
    /// How far the stream is: nothing was sent for a while, or a replay begins and it can be said how much it is about.
    Position,
    /// What was sent is old: the database is away, or the service is behind its log.
    Stale,
    /// After `stale`: what is sent is new again.
    Fresh,
    /// The id could not be continued: the newest state of all that changed follows.
    Reset,
    /// As `reset`, and what has not come again by `live` is to be dropped.
    ResetAll,
    /// The members of the Group have changed, and what that means has been sent.
    Members,
    /// The stream ends; the client may come back.
    End,
    /// The service stops; the client comes back to the one that follows.
    Shutdown,
    /// A refusal that passes: starting, stopping, the database away.
    Transient,
    /// A limit was reached: come back later.
    Throttled,
}

impl NoticeCode {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::Start,
        Self::Live,
        Self::Position,
        Self::Stale,
        Self::Fresh,
        Self::Reset,
        Self::ResetAll,
        Self::Members,
        Self::End,
        Self::Shutdown,
        Self::Transient,
        Self::Throttled,
    ];

    /// The code as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Live => "live",
            Self::Position => "position",
            Self::Stale => "stale",
            Self::Fresh => "fresh",
            Self::Reset => "reset",
            Self::ResetAll => "reset-all",
            Self::Members => "members",
            Self::End => "end",
            Self::Shutdown => "shutdown",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
        }
    }

    /// How bad it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Start
            | Self::Live
            | Self::Position
            | Self::Fresh
            | Self::Members
            | Self::End
            | Self::Shutdown => Severity::Information,
            Self::Stale | Self::Reset | Self::ResetAll => Severity::Warning,
            Self::Transient | Self::Throttled => Severity::Error,
        }
    }

    /// What kind of issue it is.
    pub const fn issue_type(self) -> IssueType {
        match self {
            Self::Start | Self::Live | Self::Position | Self::Fresh | Self::Members | Self::End => {
                IssueType::Informational
            }
            Self::Stale | Self::Reset | Self::ResetAll => IssueType::Incomplete,
            Self::Shutdown | Self::Transient => IssueType::Transient,
            Self::Throttled => IssueType::Throttled,
        }
    }
}

impl Outcome {
    /// A notice with the instant to use as the next `_since`.
    pub fn notice_as_of(code: NoticeCode, transaction_time: Instant, diagnostics: &str) -> Self {
        Self::new(Issue::notice(code, diagnostics).with_transaction_time(transaction_time))
    }

    /// The notice `live`, with the instant to use as the next `_since`.
    pub fn live(transaction_time: Instant) -> Self {
        Self::notice_as_of(
            NoticeCode::Live,
            transaction_time,
            "the replay has ended; changes follow as they commit",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_carries_the_next_since() {
        assert_eq!(
            Outcome::live(Instant::from_unix_micros(1)).to_json(),
            concat!(
                r#"{"resourceType":"OperationOutcome","issue":[{"extension":[{"url":"urn:fhir-tail:transaction-time","#,
                r#""valueInstant":"1970-01-01T00:00:00.000001Z"}],"severity":"information","code":"informational","details":{"coding":[{"#,
                r#""system":"urn:fhir-tail:notice","code":"live"}]},"diagnostics":"the replay has ended; changes follow as they commit"}]}"#
            )
        );
    }

    #[test]
    fn estimates_stand_beside_their_types() {
        let issue = Issue::notice(NoticeCode::Position, "about");
        let issue = issue.with_estimated_total(crate::ResourceType::PATIENT, 3_000_000_000);
        let json = Outcome::new(issue).to_json();
        let extension = concat!(
            r#""extension":[{"url":"urn:fhir-tail:estimated-total","#,
            r#""extension":[{"url":"type","valueCode":"Patient"},{"url":"total","valueDecimal":3000000000}]}]"#
        );
        assert!(json.contains(extension), "{json}");
    }

    #[test]
    fn a_reset_is_a_warning() {
        let json = Outcome::notice(NoticeCode::ResetAll, "why").to_json();
        assert!(json.contains(r#""severity":"warning""#) && json.contains(r#""code":"reset-all""#), "{json}");
    }

    #[test]
    fn codes_are_distinct() {
        let mut codes = NoticeCode::ALL.map(NoticeCode::as_str);
        codes.sort_unstable();
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
