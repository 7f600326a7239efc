//! What an event says, read as a subscriber who knows only the contract would read it.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Which resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Its type.
    pub resource_type: String,
    /// Its id.
    pub id: String,
}

impl Key {
    /// `Type/id`.
    pub fn new(resource_type: &str, id: &str) -> Self {
        Self { resource_type: resource_type.to_owned(), id: id.to_owned() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.resource_type, self.id)
    }
}

/// What one event says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A resource, as it is now.
    Resource {
        /// Which.
        key: Key,
        /// `meta.versionId`.
        version: i64,
        /// `meta.lastUpdated`, microseconds since 1970.
        stamp: i64,
        /// The member `n`, which the writers of the tests give every version.
        n: Option<i64>,
    },
    /// That a resource is gone, or is no longer among what was asked for.
    Deletion {
        /// Which.
        key: Key,
        /// When it was deleted, microseconds since 1970.
        stamp: i64,
    },
    /// Something about the stream.
    Notice {
        /// Its code: `start`, `live`, …
        code: String,
        /// The instant to use as the next `_since`, as it was sent.
        transaction_time: Option<String>,
    },
}

/// An event as a subscriber got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// In which of its connections, from 1.
    pub connection: u32,
    /// The event's id.
    pub event_id: String,
    /// What it said.
    pub what: What,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    resource_type: String,
    id: Option<String>,
    meta: Option<Meta>,
    n: Option<i64>,
    #[serde(rename = "type")]
    bundle_type: Option<serde_json::Value>,
    issue: Option<Vec<Issue>>,
    entry: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    version_id: Option<String>,
    last_updated: Option<String>,
    tag: Option<Vec<Coding>>,
}

#[derive(Deserialize)]
struct Coding {
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Issue {
    details: Option<Details>,
    extension: Option<Vec<Extension>>,
}

#[derive(Deserialize)]
struct Details {
    coding: Vec<Coding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    value_instant: Option<String>,
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

/// An instant of FHIR or of Postgres in UTC, as microseconds since 1970.
pub fn micros(text: &str) -> Result<i64> {
    let instant: jiff::Timestamp = text.parse().with_context(|| format!("not an instant: '{text}'"))?;
    Ok(instant.as_microsecond())
}

impl What {
    /// Reads an event. What the server makes has no id; what is stored has one.
    pub fn read(event: &str, data: &str) -> Result<Self> {
        let what = Self::understand(data).with_context(|| format!("event {event}: {data:.300}"))?;
        let name = match &what {
            Self::Resource { key, .. } => key.resource_type.as_str(),
            Self::Deletion { .. } => "Bundle",
            Self::Notice { .. } => "OperationOutcome",
        };
        ensure!(event == name, "event '{event}' holds a {name}: {data:.300}");
        Ok(what)
    }

    fn understand(data: &str) -> Result<Self> {
        let any: Any = serde_json::from_str(data)?;
        let stamp = any.meta.as_ref().and_then(|meta| meta.last_updated.as_deref());
        if let Some(id) = any.id {
            let meta = any.meta.as_ref().context("no meta")?;
            let version = meta.version_id.as_deref().context("no meta.versionId")?.parse()?;
            let stamp = micros(stamp.context("no meta.lastUpdated")?)?;
            return Ok(Self::Resource {
                key: Key { resource_type: any.resource_type, id },
                version,
                stamp,
                n: any.n,
            });
        }
        match any.resource_type.as_str() {
            "Bundle" => {
                let stamp = micros(stamp.context("no meta.lastUpdated")?)?;
                let tags = any.meta.and_then(|meta| meta.tag).context("no meta.tag")?;
                ensure!(
                    tags.iter().any(|tag| matches!(tag.code.as_deref(), Some("deleted" | "out-of-scope"))),
                    "neither tagged as deleted nor as out of scope"
                );
                ensure!(any.bundle_type == Some("transaction".into()), "not a transaction");
                let entries = any.entry.context("no entry")?;
                let [entry] = &entries[..] else { bail!("{} entries", entries.len()) };
                ensure!(entry.request.method == "DELETE", "not a DELETE");
                let (resource_type, id) = entry.request.url.split_once('/').context("request.url")?;
                Ok(Self::Deletion { key: Key::new(resource_type, id), stamp })
            }
            "OperationOutcome" => {
                let issue = any.issue.and_then(|issues| issues.into_iter().next()).context("no issue")?;
                let coding = issue.details.and_then(|details| details.coding.into_iter().next());
                let code = coding.and_then(|coding| coding.code).context("no details.coding.code")?;
                let mut extensions = issue.extension.into_iter().flatten();
                let transaction_time = extensions.find_map(|extension| extension.value_instant);
                Ok(Self::Notice { code, transaction_time })
            }
            other => bail!("a {other} without an id"),
        }
    }

    /// The resource it is about.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Resource { key, .. } | Self::Deletion { key, .. } => Some(key),
            Self::Notice { .. } => None,
        }
    }

    /// Its code, if it is a notice.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Notice { code, .. } => Some(code),
            _ => None,
        }
    }
}
