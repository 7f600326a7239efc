//! What an event means to a subscriber.
//!
//! Nearly all are resources, whose type is the event's name: their data is not read. Only a Bundle or an
//! OperationOutcome is searched for an `id`, which distinguishes a stored one from a deletion or a notice.

use fhir::Instant;
use fhir::canonical::{DELETION_CODES, ESTIMATED_TOTAL, NOTICE_CODES, TRANSACTION_TIME};
use serde::Deserialize;

/// What an event holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A resource of the type that the event names.
    Resource,
    /// The Bundle that stands for a deletion.
    Deletion(Deletion),
    /// A message about the stream.
    Notice(Notice),
}

/// A resource that was deleted, or that left what was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// The type of the resource.
    pub resource_type: String,
    /// Its id.
    pub id: String,
    /// It still exists, but no longer belongs to what was asked for.
    pub out_of_scope: bool,
}

/// A notice: an OperationOutcome that was not stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// What a subscriber has to do.
    pub kind: NoticeKind,
    /// For people.
    pub text: String,
}

/// The notices that a subscriber acts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoticeKind {
    /// The current state has been sent; the instant to use as the next `_since`, if there is one.
    Live(Option<String>),
    /// What may have changed is sent again in its newest state.
    Reset,
    /// Everything is sent again; what was not sent again by `live` is gone.
    ResetAll,
    /// Changes since this instant may be missing.
    Stale(Option<String>),
    /// The stream is no longer stale.
    Fresh,
    /// The stream ends, and can be resumed.
    End,
    /// The current state has about this many resources, all types together.
    Estimated(u64),
    /// Nothing has to be done.
    Other,
}

/// Why an event cannot be understood. Its text never holds the event's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUnderstood {
    /// It has no id to resume from.
    #[error("an event has no id: it could not be resumed from")]
    NoId,
    /// Its name is not that of a resource type.
    #[error("an event is not named after a resource type")]
    NotAType,
    /// A Bundle without an id is not a deletion.
    #[error("a Bundle without an id is not that of a deletion")]
    NotADeletion,
    /// An OperationOutcome without an id is not a notice.
    #[error("an OperationOutcome without an id cannot be read")]
    NotANotice,
    /// A notice is larger than any that fhir-tail sends.
    #[error("a notice is larger than {} KiB", LARGEST_NOTICE >> 10)]
    LargeNotice,
    /// A resource has no id, which an envelope needs.
    #[error("a resource has no id")]
    NoResourceId,
    /// A resource is not JSON.
    #[error("a resource is not JSON")]
    NotJson,
}

/// fhir-tail's notices are small, and a notice in memory takes many times its size.
const LARGEST_NOTICE: usize = 1 << 20;
/// The most characters of a notice's text that are shown.
const SHOWN: usize = 2_000;

impl Content {
    /// Reads what an event means from its type and data.
    ///
    /// # Errors
    ///
    /// If it is not what fhir-tail sends.
    pub fn of(name: &str, data: &[u8]) -> Result<Self, NotUnderstood> {
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
    pub(crate) fn of(data: &[u8]) -> Result<Self, NotUnderstood> {
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

/// The fields of an OperationOutcome that matter.
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
        // It is kept, shown, and used in names.
        time.and_then(|extension| extension.instant.clone()).filter(|time| time.parse::<Instant>().is_ok())
    }

    /// The estimated number of resources, all types together; `None`: not given.
    fn estimated(&self) -> Option<u64> {
        let of_types = self.extension.iter().filter(|extension| extension.url == ESTIMATED_TOTAL);
        let totals = of_types.flat_map(|extension| &extension.extension).filter(|part| part.url == "total");
        // Any number is possible: the cast saturates at 0 and at the largest value.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let totals = totals.filter_map(|part| part.decimal).map(|total| total as u64);
        totals.reduce(u64::saturating_add)
    }
}

impl Outcome {
    /// Its text for people.
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
        let kind = match codes.last() {
            Some(("live", issue)) => NoticeKind::Live(issue.transaction_time()),
            Some(("stale", issue)) => NoticeKind::Stale(issue.transaction_time()),
            Some(("fresh", _)) => NoticeKind::Fresh,
            Some(("position", issue)) => issue.estimated().map_or(NoticeKind::Other, NoticeKind::Estimated),
            Some(("reset", _)) => NoticeKind::Reset,
            Some(("reset-all", _)) => NoticeKind::ResetAll,
            Some(("end" | "shutdown" | "transient" | "throttled", _)) => NoticeKind::End,
            Some(_) => NoticeKind::Other,
            None if outcome
                .issue
                .iter()
                .any(|issue| matches!(issue.severity.as_str(), "error" | "fatal")) =>
            {
                NoticeKind::End
            }
            None => NoticeKind::Other,
        };
        Ok(Self { kind, text: outcome.text() })
    }
}

/// The text of an OperationOutcome for people; `None`: it is not one, or has no text.
pub(crate) fn diagnostics(outcome: &[u8]) -> Option<String> {
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
                NoticeCode::Start | NoticeCode::Position | NoticeCode::Members => NoticeKind::Other,
                NoticeCode::Live => NoticeKind::Live(None),
                NoticeCode::Stale => NoticeKind::Stale(None),
                NoticeCode::Fresh => NoticeKind::Fresh,
                NoticeCode::Reset => NoticeKind::Reset,
                NoticeCode::ResetAll => NoticeKind::ResetAll,
                NoticeCode::End | NoticeCode::Shutdown | NoticeCode::Transient | NoticeCode::Throttled => {
                    NoticeKind::End
                }
            };
            assert_eq!(
                notice(&Outcome::notice(code, "why")),
                Notice { kind: expected, text: "why".to_owned() }
            );
        }
        let live = notice(&Outcome::live(Instant::from_unix_micros(1)));
        assert_eq!(live.kind, NoticeKind::Live(Some("1970-01-01T00:00:00.000001Z".to_owned())));
        let forged = Outcome::live(Instant::from_unix_micros(1)).to_json().replace("1970", "\\u001b[2J");
        let Ok(Content::Notice(forged)) = Content::of("OperationOutcome", forged.as_bytes()) else {
            panic!()
        };
        assert_eq!(forged.kind, NoticeKind::Live(None));
    }

    #[test]
    fn estimates_are_added_up() {
        let issue = Issue::notice(NoticeCode::Position, "much");
        assert_eq!(notice(&Outcome::new(issue.clone())).kind, NoticeKind::Other);
        let types = [(ResourceType::PATIENT, 3), (ResourceType::BUNDLE, 1 << 40)];
        let issue = types.into_iter().fold(issue, |issue, (of, total)| issue.with_estimated_total(of, total));
        assert_eq!(notice(&Outcome::new(issue)).kind, NoticeKind::Estimated((1 << 40) + 3));
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
            assert_eq!(notice.kind, NoticeKind::Estimated(expected), "{total}");
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
        assert_eq!(both, Notice { kind: NoticeKind::End, text: "broken; comes back".to_owned() });
        assert_eq!(notice(&Outcome::new(error)).kind, NoticeKind::End);
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
