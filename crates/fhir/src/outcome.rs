//! OperationOutcomes: how we speak to a client that is not answered with resources.
//!
//! Whatever we make has no `id`; that is how a client tells it from what is stored.
//! <https://hl7.org/fhir/R4/operationoutcome.html>

use crate::line_breaks::escape_line_breaks;
use crate::{Instant, NoticeCode, ResourceType, canonical};
use serde::Serialize;

/// How bad it is: <https://hl7.org/fhir/R4/valueset-issue-severity.html>.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The request is not answered.
    Error,
    /// The client has to do something, or gets other than it may think.
    Warning,
    /// To be known.
    Information,
}

/// What kind of issue it is, of those that FHIR defines: <https://hl7.org/fhir/R4/valueset-issue-type.html>.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssueType {
    /// The content is invalid.
    Invalid,
    /// Its structure is: it cannot be read.
    Structure,
    /// Something is missing.
    Required,
    /// A value is invalid.
    Value,
    /// A code is not known.
    CodeInvalid,
    /// Something is there twice.
    Duplicate,
    /// An authorization problem of some kind.
    Security,
    /// The client has to authenticate itself.
    Login,
    /// The authorization has expired.
    Expired,
    /// The client may not do this.
    Forbidden,
    /// What is asked for is not there.
    NotFound,
    /// The operation, or a part of it, is not supported.
    NotSupported,
    /// It would cost too much.
    TooCostly,
    /// It is too long.
    TooLong,
    /// It cannot be processed.
    Processing,
    /// A rule of this service forbids it.
    BusinessRule,
    /// An unexpected error of ours.
    Exception,
    /// It took too long.
    Timeout,
    /// What was sent is not all.
    Incomplete,
    /// It will pass: try again later.
    Transient,
    /// Too much is asked for at once: try again later.
    Throttled,
    /// No problem.
    Informational,
}

/// One issue of an [`Outcome`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Issue {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extension: Vec<Extension>,
    severity: Severity,
    code: IssueType,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    diagnostics: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expression: Vec<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Extension {
    url: &'static str,
    #[serde(flatten)]
    value: Value,
}

/// What an extension says.
#[derive(Clone, PartialEq, Debug, Serialize)]
enum Value {
    #[serde(rename = "valueInstant")]
    Instant(String),
    #[serde(rename = "valueCode")]
    Code(&'static str),
    /// There is no larger whole number in R4 than 2,147,483,647.
    #[serde(rename = "valueDecimal")]
    Decimal(u64),
    #[serde(rename = "extension")]
    Parts([Box<Extension>; 2]),
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Details {
    coding: [Coding; 1],
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Coding {
    system: &'static str,
    code: &'static str,
}

impl Issue {
    /// An issue; `diagnostics` is a sentence for people.
    pub fn new(severity: Severity, code: IssueType, diagnostics: impl Into<String>) -> Self {
        Self {
            extension: Vec::new(),
            severity,
            code,
            details: None,
            diagnostics: diagnostics.into(),
            expression: Vec::new(),
        }
    }

    /// An issue that refuses the request.
    pub fn error(code: IssueType, diagnostics: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, diagnostics)
    }

    /// An issue with a code of ours, which says how bad it is and of what kind.
    pub fn notice(code: NoticeCode, diagnostics: impl Into<String>) -> Self {
        let coding = Coding { system: canonical::NOTICE_CODES, code: code.as_str() };
        Self {
            details: Some(Details { coding: [coding] }),
            ..Self::new(code.severity(), code.issue_type(), diagnostics)
        }
    }

    /// Names the parameter that is the matter.
    pub fn about(mut self, parameter: impl Into<String>) -> Self {
        self.expression.push(parameter.into());
        self
    }

    /// Adds the instant to use as the next `_since`.
    pub fn with_transaction_time(mut self, at: Instant) -> Self {
        let value = Value::Instant(at.to_fhir());
        self.extension.push(Extension { url: canonical::TRANSACTION_TIME, value });
        self
    }

    /// Adds about how many resources of a type there are.
    pub fn with_estimated_total(mut self, resource_type: ResourceType, total: u64) -> Self {
        let parts = [("type", Value::Code(resource_type.as_str())), ("total", Value::Decimal(total))];
        let value = Value::Parts(parts.map(|(url, value)| Box::new(Extension { url, value })));
        self.extension.push(Extension { url: canonical::ESTIMATED_TOTAL, value });
        self
    }

    /// The sentence for people.
    pub fn diagnostics(&self) -> &str {
        &self.diagnostics
    }
}

/// An OperationOutcome. It has at least one issue.
///
/// It may repeat what the client sent, so it goes to that client and not into a log.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    #[serde(rename = "resourceType")]
    resource_type: &'static str,
    issue: Vec<Issue>,
}

impl Outcome {
    /// Of one issue.
    pub fn new(issue: Issue) -> Self {
        Self { resource_type: "OperationOutcome", issue: vec![issue] }
    }

    /// Of several issues; none if there are none.
    pub fn of(issues: Vec<Issue>) -> Option<Self> {
        (!issues.is_empty()).then_some(Self { resource_type: "OperationOutcome", issue: issues })
    }

    /// Refuses the request.
    pub fn error(code: IssueType, diagnostics: impl Into<String>) -> Self {
        Self::new(Issue::error(code, diagnostics))
    }

    /// Tells of something with a code of ours.
    pub fn notice(code: NoticeCode, diagnostics: impl Into<String>) -> Self {
        Self::new(Issue::notice(code, diagnostics))
    }

    /// Adds an issue.
    pub fn and(mut self, issue: Issue) -> Self {
        self.issue.push(issue);
        self
    }

    /// The issues.
    pub fn issues(&self) -> &[Issue] {
        &self.issue
    }

    /// As JSON, in one line.
    pub fn to_json(&self) -> String {
        // Serialising fails for a map whose keys are no strings, or where a Serialize says so: there is neither.
        #[allow(clippy::expect_used)]
        let mut json = serde_json::to_vec(self).expect("strings and lists are serialised");
        // It may repeat the name of a parameter.
        escape_line_breaks(&mut json, 0);
        String::from_utf8_lossy(&json).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_parameter_and_has_no_id() {
        let outcome = Outcome::error(IssueType::NotSupported, "no \"x\"\nhere")
            .and(Issue::error(IssueType::CodeInvalid, "b").about("_type"));
        assert_eq!(
            outcome.to_json(),
            r#"{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"not-supported","diagnostics":"no \"x\"\nhere"},{"severity":"error","code":"code-invalid","diagnostics":"b","expression":["_type"]}]}"#
        );
        assert!(!outcome.to_json().contains('\n'));
        let repeats = Outcome::error(IssueType::NotSupported, "a\u{2028}\u{85}b").to_json();
        assert!(repeats.contains(r"a\u2028\u0085b"), "{repeats}");
        assert_eq!(Outcome::of(Vec::new()), None);
    }
}
