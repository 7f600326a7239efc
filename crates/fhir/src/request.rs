//! The `$export` request: what its parameters ask for.
//!
//! Everything that is wrong with a request is told at once, in one OperationOutcome with an issue for
//! each, so that nobody mends it one parameter at a time.

use crate::{Filter, Instant, Issue, IssueType, Outcome, ResourceType, TypeSet};
use std::time::Duration;

/// Whose resources are asked for: what the path says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Level {
    /// `/$export`: everything.
    System,
    /// `/{Type}/$export`: one resource type.
    Type(ResourceType),
    /// `/Patient/$export`: the compartments of all patients.
    AllPatients,
    /// `/Patient/{id}/$export`: one patient's compartment.
    Patient(String),
    /// `/Group/{id}/$export`: the compartments of a group's members.
    Group(String),
}

/// What becomes of parameters that cannot be heeded: `Prefer: handling=…` of RFC 7240.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Handling {
    /// They are an error.
    #[default]
    Strict,
    /// They are ignored, and `start` names them.
    Lenient,
}

/// What a request asks for. Its values came from the client: they are not for logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRequest {
    /// Whose resources.
    pub level: Level,
    /// Which changes concern it.
    pub filter: Filter,
    /// Only what was stamped after this, and deletions.
    pub since: Option<Instant>,
    /// The event after which to go on, as it came in the query; never empty.
    pub last_event_id: Option<String>,
    /// The same, as a library adds it to the URL when it comes back: newer than what the URL was written with. Never empty.
    pub library_event_id: Option<String>,
    /// How long a quiet stream stays silent.
    pub heartbeat: Duration,
    /// The names of the parameters that were ignored.
    pub ignored: Vec<String>,
    /// The values of `_type` that were ignored: no resource types of R4.
    pub ignored_types: Vec<String>,
    /// The values of `patient` that were ignored: no ids.
    pub ignored_patients: Vec<String>,
    /// Types that were asked for by name and are not sent, since they are in no patient's compartment.
    pub unsent_types: Vec<ResourceType>,
}

/// The heartbeat unless `_heartbeat` says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What can be asked for as `_heartbeat`, in seconds. Under a minute, as many proxies cut what is quiet for one.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 2..=60;

/// Parameters of Bulk Data that will be heeded some day.
const NOT_YET: [&str; 6] = [
    "_typeFilter",
    "_elements",
    "_until",
    "includeAssociatedData",
    "organizeOutputBy",
    "allowPartialManifests",
];

/// Names under which libraries that cannot send the header `Last-Event-ID` give the last id back.
const LIBRARY_EVENT_ID: [&str; 3] = ["lastEventId", "Last-Event-ID", "evs_last_event_id"];

/// What asks for nothing that would change a stream: how JSON is laid out, what polyfills add for old browsers, and what keeps
/// caches away.
const HARMLESS: [&str; 5] = ["_pretty", "padding", "evs_buffer_size_limit", "evs_preamble", "_"];

/// Media types that ask for what comes anyway: JSON, one resource a line, as events.
const FORMATS: [&str; 10] = [
    "application/fhir+ndjson",
    "application/ndjson",
    "application/x-ndjson",
    "ndjson",
    "application/fhir+json",
    "application/json+fhir",
    "application/json",
    "text/json",
    "json",
    "text/event-stream",
];

/// How much of a value is repeated to the client.
const SHOWN: usize = 60;

impl ExportRequest {
    /// Reads the parameters, already decoded, in their order. Otherwise everything that is wrong.
    pub fn parse<N: AsRef<str>, V: AsRef<str>>(
        level: Level,
        parameters: impl IntoIterator<Item = (N, V)>,
        handling: Handling,
    ) -> Result<Self, Outcome> {
        let mut parsing = Parsing { handling, ..Parsing::default() };
        for (name, value) in parameters {
            parsing.parameter(name.as_ref(), value.as_ref());
        }
        parsing.finish(level)
    }
}

/// A request that is being read.
#[derive(Default)]
struct Parsing {
    handling: Handling,
    /// The single-valued parameters met so far.
    met: Vec<&'static str>,
    types: Option<TypeSet>,
    /// Whether `_type` was there.
    types_named: bool,
    patient: Option<patients::Asked>,
    ignored_patients: Vec<String>,
    unknown_types: Vec<String>,
    since: Option<Instant>,
    last_event_id: Option<String>,
    library_event_id: Option<String>,
    heartbeat: Option<Duration>,
    ignored: Vec<String>,
    unknown: Vec<String>,
    issues: Vec<Issue>,
}

impl Parsing {
    fn parameter(&mut self, name: &str, value: &str) {
        match name {
            "_type" => self.types(value),
            "patient" => self.patient.get_or_insert_default().value(value),
            "_since" if self.first("_since") => match value.parse() {
                Ok(since) => self.since = Some(since),
                Err(error) => self.issue(IssueType::Value, "_since", format!("_since: {error}")),
            },
            // Empty, it is what a client sends that has no id yet.
            "_lastEventId" if self.first("_lastEventId") => {
                self.last_event_id = Some(value).filter(|id| !id.is_empty()).map(str::to_owned);
            }
            "_heartbeat" if self.first("_heartbeat") => match value.parse() {
                Ok(seconds) if HEARTBEATS.contains(&seconds) => {
                    self.heartbeat = Some(Duration::from_secs(seconds));
                }
                _ => {
                    let (least, most) = (HEARTBEATS.start(), HEARTBEATS.end());
                    let text = format!(
                        "_heartbeat: '{}' is not a whole number from {least} to {most} (seconds)",
                        shown(value)
                    );
                    self.issue(IssueType::Value, "_heartbeat", text);
                }
            },
            "_outputFormat" if self.first("_outputFormat") => self.format(name, value),
            "_format" if self.first("_format") => self.format(name, value),
            "_summary" if self.first("_summary") => {
                if self.handling == Handling::Lenient || ["", "false"].contains(&value) {
                    self.ignore(name);
                } else {
                    let text = format!(
                        "_summary: '{}' is not supported: events hold whole resources, leave the parameter out",
                        shown(value)
                    );
                    self.issue(IssueType::NotSupported, "_summary", text);
                }
            }
            "_since" | "_lastEventId" | "_heartbeat" | "_outputFormat" | "_format" | "_summary" => {
                let text = format!("{name} is there more than once: give it once");
                self.issue(IssueType::Duplicate, name, text);
            }
            _ if LIBRARY_EVENT_ID.contains(&name) => self.library_event_id(name, value),
            _ if HARMLESS.contains(&name) => self.ignore(name),
            _ if self.handling == Handling::Lenient => self.ignore(name),
            _ if NOT_YET.contains(&name) => {
                let text = format!(
                    "{name} is not supported yet: leave it out, or ignore it with 'Prefer: handling=lenient'"
                );
                self.issue(IssueType::NotSupported, name, text);
            }
            _ => add(&mut self.unknown, name),
        }
    }

    /// A media type that fits is ignored.
    fn format(&mut self, name: &str, value: &str) {
        if self.handling == Handling::Lenient || is_json(value) {
            self.ignore(name);
        } else {
            let text = format!(
                "{name}: '{}' is not supported: events hold FHIR JSON, leave the parameter out",
                shown(value)
            );
            self.issue(IssueType::NotSupported, name, text);
        }
    }

    /// An empty one is none; of several they must be the same.
    fn library_event_id(&mut self, name: &str, value: &str) {
        match &self.library_event_id {
            _ if value.is_empty() => {}
            Some(before) if before != value => {
                let text = format!(
                    "{name} is not the id that another parameter gives: give the id of the last event once"
                );
                self.issue(IssueType::Duplicate, name, text);
            }
            _ => self.library_event_id = Some(value.to_owned()),
        }
    }

    fn types(&mut self, value: &str) {
        self.types_named = true;
        let types = self.types.get_or_insert_default();
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name.parse() {
                Ok(kind) => types.insert(kind),
                Err(_) => add(&mut self.unknown_types, &shown(name)),
            }
        }
    }

    /// Whether a single-valued parameter is met for the first time.
    fn first(&mut self, name: &'static str) -> bool {
        let first = !self.met.contains(&name);
        if first {
            self.met.push(name);
        }
        first
    }

    fn ignore(&mut self, name: &str) {
        add(&mut self.ignored, name);
    }

    fn issue(&mut self, code: IssueType, parameter: &str, text: String) {
        self.issues.push(Issue::error(code, text).about(shown(parameter)));
    }

    fn finish(mut self, level: Level) -> Result<ExportRequest, Outcome> {
        self.refuse_unknown();
        let types = self.asked_types(&level);
        let patients::Scoped { filter, unsent_types } = self.scope(&level, types);
        match Outcome::of(self.issues) {
            Some(outcome) => Err(outcome),
            None => Ok(ExportRequest {
                level,
                filter,
                since: self.since,
                last_event_id: self.last_event_id,
                library_event_id: self.library_event_id,
                heartbeat: self.heartbeat.unwrap_or(HEARTBEAT),
                ignored: self.ignored,
                ignored_types: self.unknown_types,
                ignored_patients: self.ignored_patients,
                unsent_types,
            }),
        }
    }

    fn refuse_unknown(&mut self) {
        if self.unknown.is_empty() {
            return;
        }
        let names: Vec<_> = self.unknown.iter().map(|name| hinted(name)).collect();
        let text = format!(
            "unknown {}: {}; leave out what is not meant for this service, or ignore it with 'Prefer: handling=lenient'",
            if names.len() == 1 { "parameter" } else { "parameters" },
            names.join(", ")
        );
        let issue = Issue::error(IssueType::NotSupported, text);
        self.issues.push(self.unknown.iter().fold(issue, |issue, name| issue.about(shown(name))));
    }

    /// The types that the path and `_type` ask for together.
    fn asked_types(&mut self, level: &Level) -> TypeSet {
        let wrong = self.unknown_types.join(", ");
        if !wrong.is_empty() && self.handling == Handling::Strict {
            let text = format!("_type: not a resource type of FHIR R4: {wrong}");
            self.issue(IssueType::CodeInvalid, "_type", text);
        }
        let asked = match self.types {
            // Of a request that is refused for them anyway nothing more need be said.
            Some(types) if types.is_empty() && self.handling == Handling::Strict && !wrong.is_empty() => {
                return types;
            }
            Some(types) if types.is_empty() => {
                let of_these = if wrong.is_empty() { wrong } else { format!(" (it has: {wrong})") };
                let text =
                    format!("_type names no resource type of FHIR R4{of_these}: name some, or leave it out");
                self.issue(IssueType::Required, "_type", text);
                return types;
            }
            Some(types) => types,
            None => TypeSet::all(),
        };
        match level {
            Level::Type(kind) if asked.contains(*kind) => [*kind].into_iter().collect(),
            Level::Type(kind) => {
                let text = format!("_type does not name {kind}, the only type below this path: leave it out");
                self.issue(IssueType::Value, "_type", text);
                asked
            }
            _ => asked,
        }
    }
}

/// Whether a value of `_format` or `_outputFormat` asks for what comes anyway.
fn is_json(value: &str) -> bool {
    let mut parts = value.split(';').map(str::trim);
    // A `+` may have become a blank.
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase().replace(' ', "+");
    let fits = |parameter: &str| {
        ["charset=utf-8", "fhirversion=4.0", ""]
            .contains(&&*parameter.to_ascii_lowercase().replace(['"', ' '], ""))
    };
    (media_type.is_empty() || FORMATS.contains(&&*media_type)) && parts.all(fits)
}

/// Adds a name that is not there yet.
fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// As much of a value as is repeated.
fn shown(value: &str) -> String {
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// An unknown name, with the known one that was probably meant.
fn hinted(name: &str) -> String {
    let plain = |name: &str| name.trim_start_matches('_').to_ascii_lowercase();
    let known = [
        "_type",
        "_since",
        "_lastEventId",
        "_heartbeat",
        "_outputFormat",
        "_format",
        "_pretty",
        "_summary",
        "patient",
    ];
    match known.into_iter().find(|known| plain(known) == plain(name)) {
        Some(known) => format!("{} (did you mean {known}?)", shown(name)),
        None => shown(name),
    }
}

mod patients;

#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;

#[cfg(test)]
mod tests;
