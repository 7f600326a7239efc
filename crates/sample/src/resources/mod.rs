//! FHIR's data types and resources, as far as they are written here: the members in FHIR's order, what is absent
//! left out. Written by serde straight into text, which is what makes it fast.

pub(crate) mod administrative;
pub(crate) mod clinical;
pub(crate) mod quality;

use crate::Resource;
use crate::codes::hl7;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Serialize, Serializer};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Coding {
    pub(crate) system: &'static str,
    pub(crate) code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display: Option<&'static str>,
}

/// A `CodeableConcept`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Concept {
    pub(crate) coding: &'static [Coding],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<&'static str>,
}

impl Concept {
    /// The code that comes first.
    pub(crate) const fn code(&self) -> &'static str {
        match self.coding {
            [first, ..] => first.code,
            [] => "",
        }
    }

    /// In words.
    pub(crate) fn words(&self) -> &'static str {
        self.text.or(self.coding.first().and_then(|coding| coding.display)).unwrap_or_default()
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Reference {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) extension: Vec<Extension>,
    pub(crate) reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display: Option<String>,
}

impl Reference {
    /// To this resource.
    pub(crate) fn to(reference: impl Into<String>) -> Self {
        Self { extension: Vec::new(), reference: reference.into(), display: None }
    }

    /// With what it is called.
    pub(crate) fn named(reference: impl Into<String>, display: impl Into<String>) -> Self {
        Self { display: Some(display.into()), ..Self::to(reference) }
    }
}

/// An extension with a value of one of the types that are needed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Extension {
    pub(crate) url: &'static str,
    #[serde(flatten)]
    pub(crate) value: Value,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) enum Value {
    #[serde(rename = "valueString")]
    Text(&'static str),
    #[serde(rename = "valueCodeableConcept")]
    Concept(Concept),
    #[serde(rename = "valueReference")]
    Reference(Box<Reference>),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Identifier {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) r#type: Option<Concept>,
    pub(crate) system: &'static str,
    pub(crate) value: String,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Quantity {
    pub(crate) value: Decimal,
    pub(crate) unit: &'static str,
    pub(crate) system: &'static str,
    pub(crate) code: &'static str,
}

impl Quantity {
    /// In a unit of UCUM whose code is also how people write it.
    pub(crate) fn of(value: f64, code: &'static str) -> Self {
        Self { value: Decimal(value), unit: code, system: "http://unitsofmeasure.org", code }
    }
}

/// A number that was rounded to the digits that are to be shown.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Decimal(pub(crate) f64);

impl Serialize for Decimal {
    #[allow(clippy::cast_possible_truncation, reason = "readings are small, and this one is whole")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            self.0.serialize(serializer)
        }
    }
}

/// A `date`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Day(pub(crate) Date);

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A `dateTime` or an `instant`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A `Period`, of days or of times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Period<T> {
    pub(crate) start: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<T>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Meta {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) profile: &'static [&'static str],
    pub(crate) security: [Coding; 1],
}

impl Meta {
    /// Of a resource that claims no profile.
    pub(crate) const TEST: Self = Self { profile: &[], security: [hl7::TEST_DATA] };
}

/// What every resource begins with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Head {
    pub(crate) resource_type: &'static str,
    pub(crate) id: String,
    pub(crate) meta: Meta,
}

impl Head {
    pub(crate) fn new(resource_type: &'static str, id: String) -> Self {
        Self { resource_type, id, meta: Meta::TEST }
    }
}

/// What has a head.
pub(crate) trait Headed: Serialize {
    fn head(&self) -> &Head;
}

/// Its text.
pub(crate) fn written(resource: &impl Headed) -> Resource {
    let Head { resource_type, id, .. } = resource.head();
    // Nothing that is written here can fail: no map with keys that are no text, no writer but memory.
    let content = serde_json::to_string(resource).unwrap_or_default();
    Resource { resource_type, id: id.clone(), content }
}

/// Gives structs their heads.
macro_rules! headed {
    ($($name:ty),* $(,)?) => {
        $(impl $crate::resources::Headed for $name {
            fn head(&self) -> &$crate::resources::Head {
                &self.head
            }
        })*
    };
}
pub(crate) use headed;
