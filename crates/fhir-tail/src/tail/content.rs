//! What an event means to a subscriber.
//!
//! Nearly all are resources, whose type the event's name says: their data is not looked at. Only in a Bundle or
//! an OperationOutcome is looked for an `id`, which tells a stored one from a deletion or a notice.

use fhir::Instant;
use fhir::canonical::{DELETION_CODES, ESTIMATED_TOTAL, NOTICE_CODES, TRANSACTION_TIME};
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
    /// It is still there, and does not belong to what was asked for any more.
    pub(super) out_of_scope: bool,
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
    /// About so many resources are the current state, all types together.
    Estimated(u64),
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
    #[error("a notice is larger than {} KiB", LARGEST_NOTICE >> 10)]
    LargeNotice,
    #[error("a resource has no id")]
    NoResourceId,
    #[error("a resource is no JSON")]
    NotJson,
}

/// What we make is small; what is read of it takes many times its size.
const LARGEST_NOTICE: usize = 1 << 20;
/// As much is shown of what a notice says.
const SHOWN: usize = 2_000;

impl Content {
    /// Looks at an event.
    pub(super) fn of(name: &str, data: &[u8]) -> Result<Self, NotUnderstood> {
        if !is_type(name) {
            return Err(NotUnderstood::NotAType);
        }
        match name {
            "Bundle" | "OperationOutcome" if fhir::stored_id(data).is_some() => Ok(Self::Resource),
            "Bundle" | "OperationOutcome" if data.len() > LARGEST_NOTICE => Err(NotUnderstood::LargeNotice),
            "Bundle" => Deletion::of(data).map(Self::Deletion),
            "OperationOutcome" => Notice::of(data).map(Self::Notice),
            _ => Ok(Self::Resource),
        }
    }
}

/// Whether this may be the name of a type, and so of a file.
fn is_type(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Deletion {
    /// Reads a Bundle without an id.
    pub(super) fn of(data: &[u8]) -> Result<Self, NotUnderstood> {
        #[derive(Deserialize)]
        struct Bundle {
            #[serde(default)]
            meta: Meta,
            entry: [Entry; 1],
        }
        #[derive(Deserialize, Default)]
        struct Meta {
            #[serde(default)]
            tag: Vec<Coding>,
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
            let Bundle { meta, entry: [Entry { request }] } = serde_json::from_slice(data).ok()?;
            let (resource_type, id) = request.url.split_once('/')?;
            let fine = request.method == "DELETE" && fhir::is_id(id) && is_type(resource_type);
            let leaves = |tag: &Coding| tag.system == DELETION_CODES && tag.code == "out-of-scope";
            fine.then(|| Self {
                resource_type: resource_type.to_owned(),
                id: id.to_owned(),
                out_of_scope: meta.tag.iter().any(leaves),
            })
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
    #[serde(rename = "valueDecimal")]
    decimal: Option<f64>,
    #[serde(default)]
    extension: Vec<Extension>,
}

impl Issue {
    fn transaction_time(&self) -> Option<String> {
        let time = self.extension.iter().find(|extension| extension.url == TRANSACTION_TIME);
        // It is kept, shown, and made a part of names.
        time.and_then(|extension| extension.instant.clone()).filter(|time| time.parse::<Instant>().is_ok())
    }

    /// How many resources there are about, all types together; `None`: that is not said.
    fn estimated(&self) -> Option<u64> {
        let of_types = self.extension.iter().filter(|extension| extension.url == ESTIMATED_TOTAL);
        let totals = of_types.flat_map(|extension| &extension.extension).filter(|part| part.url == "total");
        // Whatever is said: below 0 it is 0, and above what fits it is that.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let totals = totals.filter_map(|part| part.decimal).map(|total| total as u64);
        totals.reduce(u64::saturating_add)
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
        let mut said = said.join("; ");
        if let Some((end, _)) = said.char_indices().nth(SHOWN) {
            said.truncate(end);
            said.push('…');
        }
        said
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
            Some(("position", issue)) => issue.estimated().map_or(Code::Other, Code::Estimated),
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
    use fhir::{Columns, Issue, IssueType, NoticeCode, Outcome, ResourceType};

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
        let forged = Outcome::live(Instant::from_unix_micros(1)).to_json().replace("1970", "\\u001b[2J");
        let Ok(Content::Notice(forged)) = Content::of("OperationOutcome", forged.as_bytes()) else {
            panic!()
        };
        assert_eq!(forged.code, Code::Live(None));
    }

    #[test]
    fn estimates_are_added_up() {
        let issue = Issue::notice(NoticeCode::Position, "much");
        assert_eq!(notice(&Outcome::new(issue.clone())).code, Code::Other);
        let types = [(ResourceType::PATIENT, 3), (ResourceType::BUNDLE, 1 << 40)];
        let issue = types.into_iter().fold(issue, |issue, (of, total)| issue.with_estimated_total(of, total));
        assert_eq!(notice(&Outcome::new(issue)).code, Code::Estimated((1 << 40) + 3));
        // Whatever a stranger says.
        for (total, expected) in [("-5", 0), ("1e300", u64::MAX), ("0.5", 0)] {
            let text = format!(
                r#"{{"issue":[{{"details":{{"coding":[{{"system":"{NOTICE_CODES}","code":"position"}}]}},
                "extension":[{{"url":"{ESTIMATED_TOTAL}","extension":[{{"url":"total","valueDecimal":{total}}},
                {{"url":"total","valueDecimal":0}}]}}]}}]}}"#
            );
            let Ok(Content::Notice(notice)) = Content::of("OperationOutcome", text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(notice.code, Code::Estimated(expected), "{total}");
        }
    }

    #[test]
    fn a_notice_without_bounds_is_not_read() {
        let text = format!(r#"{{"issue":[{}]}}"#, vec!["{}"; 500_000].join(","));
        for name in ["OperationOutcome", "Bundle"] {
            assert_eq!(Content::of(name, text.as_bytes()), Err(NotUnderstood::LargeNotice));
        }
        let long = notice(&Outcome::notice(NoticeCode::Stale, "\u{e9}".repeat(9_000)));
        assert_eq!(long.text.chars().count(), SHOWN + 1);
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
            "urn:fhir-tail:notice","code":"end"}]}}]}"#;
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
        let gone =
            Deletion { resource_type: "Patient".to_owned(), id: "a-1".to_owned(), out_of_scope: false };
        assert_eq!(Content::of("Bundle", &bundle), Ok(Content::Deletion(gone.clone())));
        bundle.clear();
        fhir::write_out_of_scope(columns.resource_type, columns.id, columns.last_updated, &mut bundle)
            .unwrap();
        let left = Deletion { out_of_scope: true, ..gone };
        assert_eq!(Content::of("Bundle", &bundle), Ok(Content::Deletion(left)));
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
