//! What an event means to a subscriber.
//!
//! Nearly all are resources, whose type the event's name says: their data is not looked at. Only in a Bundle or
//! an OperationOutcome is looked for an `id`, which tells a stored one from a deletion or a notice.

use fhir::canonical::{NOTICE_CODES, TRANSACTION_TIME};
use serde::Deserialize;

/// What an event holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// A resource of the type that the event names.
    Resource,
    /// The Bundle that tells of a deletion.
    Deletion(Deletion),
    /// Something about the stream.
    Notice(Notice),
}

/// What is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Deletion {
    /// The type of the resource.
    pub(super) resource_type: String,
    /// Its id.
    pub(super) id: String,
}

/// A notice: an OperationOutcome that was not stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Notice {
    /// What it asks of a subscriber.
    pub(super) code: Code,
    /// For people.
    pub(super) text: String,
}

/// The codes that a subscriber has to do something about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Code {
    /// The current state has been sent; the instant to use as the next `_since`, if there is one.
    Live(Option<String>),
    /// What may have changed comes in its newest state.
    Reset,
    /// What has not come again by `live` is gone.
    ResetAll,
    /// What comes is late, since this instant.
    Stale(Option<String>),
    /// It is not any more.
    Fresh,
    /// The stream ends, and may be taken up again.
    End,
    /// Nothing is to be done.
    Other,
}

/// The event cannot be understood. Says why, never what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NotUnderstood {
    #[error("an event has no id: it could not be continued from")]
    NoId,
    #[error("an event is not named as a resource type")]
    NotAType,
    #[error("a Bundle without an id is not that of a deletion")]
    NotADeletion,
    #[error("an OperationOutcome without an id cannot be read")]
    NotANotice,
}

impl Content {
    /// Looks at an event.
    pub(super) fn of(name: &str, data: &[u8]) -> Result<Self, NotUnderstood> {
        // It will be the name of a file.
        if !(name.starts_with(|first: char| first.is_ascii_uppercase())
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            return Err(NotUnderstood::NotAType);
        }
        match name {
            "Bundle" if fhir::stored_id(data).is_none() => Deletion::of(data).map(Self::Deletion),
            "OperationOutcome" if fhir::stored_id(data).is_none() => Notice::of(data).map(Self::Notice),
            _ => Ok(Self::Resource),
        }
    }
}

impl Deletion {
    /// Reads a Bundle without an id.
    pub(super) fn of(data: &[u8]) -> Result<Self, NotUnderstood> {
        #[derive(Deserialize)]
        struct Bundle {
            entry: [Entry; 1],
        }
        #[derive(Deserialize)]
        struct Entry {
            request: Request,
        }
        #[derive(Deserialize)]
        struct Request {
            method: String,
            url: String,
        }
        let read = || {
            let Bundle { entry: [Entry { request }] } = serde_json::from_slice(data).ok()?;
            let (resource_type, id) = request.url.split_once('/')?;
            let fine = request.method == "DELETE" && fhir::is_id(id);
            let named = !resource_type.is_empty() && resource_type.bytes().all(|b| b.is_ascii_alphanumeric());
            (fine && named).then(|| Self { resource_type: resource_type.to_owned(), id: id.to_owned() })
        };
        read().ok_or(NotUnderstood::NotADeletion)
    }
}

/// As much of an OperationOutcome as matters.
#[derive(Deserialize)]
struct Outcome {
    issue: Vec<Issue>,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    severity: String,
    #[serde(default)]
    diagnostics: String,
    #[serde(default)]
    details: Details,
    #[serde(default)]
    extension: Vec<Extension>,
}

#[derive(Deserialize, Default)]
struct Details {
    #[serde(default)]
    coding: Vec<Coding>,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Coding {
    #[serde(default)]
    system: String,
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
struct Extension {
    url: String,
    #[serde(rename = "valueInstant")]
    instant: Option<String>,
}

impl Issue {
    fn transaction_time(&self) -> Option<String> {
        let time = self.extension.iter().find(|extension| extension.url == TRANSACTION_TIME);
        time.and_then(|extension| extension.instant.clone())
    }
}

impl Outcome {
    /// All that it says to people.
    fn text(&self) -> String {
        let said = |issue: &Issue| match issue.diagnostics.is_empty() {
            true => issue.details.text.clone(),
            false => issue.diagnostics.clone(),
        };
        let said: Vec<String> = self.issue.iter().map(said).filter(|text| !text.is_empty()).collect();
        said.join("; ")
    }
}

impl Notice {
    fn of(data: &[u8]) -> Result<Self, NotUnderstood> {
        let outcome: Outcome = serde_json::from_slice(data).map_err(|_| NotUnderstood::NotANotice)?;
        let codes = outcome.issue.iter().flat_map(|issue| {
            let ours = issue.details.coding.iter().filter(|coding| coding.system == NOTICE_CODES);
            ours.map(move |coding| (coding.code.as_str(), issue))
        });
        let code = match codes.last() {
            Some(("live", issue)) => Code::Live(issue.transaction_time()),
            Some(("stale", issue)) => Code::Stale(issue.transaction_time()),
            Some(("fresh", _)) => Code::Fresh,
            Some(("reset", _)) => Code::Reset,
            Some(("reset-all", _)) => Code::ResetAll,
            Some(("end" | "shutdown" | "transient" | "throttled", _)) => Code::End,
            Some(_) => Code::Other,
            None if outcome
                .issue
                .iter()
                .any(|issue| matches!(issue.severity.as_str(), "error" | "fatal")) =>
            {
                Code::End
            }
            None => Code::Other,
        };
        Ok(Self { code, text: outcome.text() })
    }
}

/// What an OperationOutcome says to people; `None`: it is none, or says nothing.
pub(super) fn diagnostics(outcome: &[u8]) -> Option<String> {
    let outcome: Outcome = serde_json::from_slice(outcome).ok()?;
    Some(outcome.text()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fhir::{Columns, Instant, Issue, IssueType, NoticeCode, Outcome, ResourceType};

    fn notice(outcome: &Outcome) -> Notice {
        match Content::of("OperationOutcome", outcome.to_json().as_bytes()) {
            Ok(Content::Notice(notice)) => notice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_notice_is_known() {
        for code in NoticeCode::ALL {
            let expected = match code {
                NoticeCode::Start | NoticeCode::Position | NoticeCode::Members => Code::Other,
                NoticeCode::Live => Code::Live(None),
                NoticeCode::Stale => Code::Stale(None),
                NoticeCode::Fresh => Code::Fresh,
                NoticeCode::Reset => Code::Reset,
                NoticeCode::ResetAll => Code::ResetAll,
                NoticeCode::End | NoticeCode::Shutdown | NoticeCode::Transient | NoticeCode::Throttled => {
                    Code::End
                }
            };
            assert_eq!(
                notice(&Outcome::notice(code, "why")),
                Notice { code: expected, text: "why".to_owned() }
            );
        }
        let live = notice(&Outcome::live(Instant::from_unix_micros(1)));
        assert_eq!(live.code, Code::Live(Some("1970-01-01T00:00:00.000001Z".to_owned())));
    }

    #[test]
    fn an_error_ends_the_stream() {
        let error = Issue::error(IssueType::Exception, "broken");
        let end = Issue::notice(NoticeCode::End, "comes back");
        let both = notice(&Outcome::new(error.clone()).and(end));
        assert_eq!(both, Notice { code: Code::End, text: "broken; comes back".to_owned() });
        assert_eq!(notice(&Outcome::new(error)).code, Code::End);
    }

    #[test]
    fn what_is_stored_is_a_resource_whatever_it_looks_like() {
        let stored =
            br#"{"resourceType":"OperationOutcome","id":"a","issue":[{"details":{"coding":[{"system":
            "https://fhir-tail.dev/CodeSystem/notice","code":"end"}]}}]}"#;
        assert_eq!(Content::of("OperationOutcome", stored), Ok(Content::Resource));
        let stored = br#"{"resourceType":"Bundle","id":"a","entry":1,"entry":2}"#;
        assert_eq!(Content::of("Bundle", stored), Ok(Content::Resource));
        assert_eq!(Content::of("Patient", b"nobody looks"), Ok(Content::Resource));
    }

    #[test]
    fn a_deletion_names_what_is_gone() {
        let columns = Columns {
            resource_type: ResourceType::PATIENT,
            id: "a-1",
            version_id: 7,
            last_updated: Instant::from_unix_micros(0),
        };
        let mut bundle = Vec::new();
        fhir::write_deletion(&columns, &mut bundle).unwrap();
        let gone = Deletion { resource_type: "Patient".to_owned(), id: "a-1".to_owned() };
        assert_eq!(Content::of("Bundle", &bundle), Ok(Content::Deletion(gone)));
        for other in [
            r#"{"entry":[]}"#,
            r#"{"entry":[{"request":{"method":"PUT","url":"Patient/1"}}]}"#,
            r#"{"entry":[{"request":{"method":"DELETE","url":"../x/1"}}]}"#,
            r#"{"entry":[{"request":{"method":"DELETE","url":"Patient/../x"}}]}"#,
        ] {
            assert_eq!(Content::of("Bundle", other.as_bytes()), Err(NotUnderstood::NotADeletion), "{other}");
        }
    }

    #[test]
    fn a_name_that_is_no_type_is_not_understood() {
        for name in ["", "message", "../Patient", "Patient/x", "Pat\u{e9}"] {
            assert_eq!(Content::of(name, b"{}"), Err(NotUnderstood::NotAType), "{name}");
        }
    }
}
