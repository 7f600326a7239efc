//! What a reference names, judged by its text: <https://hl7.org/fhir/R4/references.html#literal>.

use crate::{ResourceType, is_id};

/// The URLs below which the resources of this service stand: `https://ehr.example/fhir`.
///
/// An absolute reference that begins with one of them names a resource here, any other one does not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BaseUrls(Vec<Box<str>>);

/// A resource, by type and id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reference<'a> {
    /// The type that is named.
    pub resource_type: ResourceType,
    /// The id: a valid one.
    pub id: &'a str,
}

impl BaseUrls {
    /// The URLs as an operator gives them, with or without a slash at the end.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>) -> Self {
        Self(urls.into_iter().map(|url| url.trim_end_matches('/').into()).collect())
    }

    /// The resource here that a reference names: `Patient/1`, `Patient/1/_history/2`, or the same below
    /// one of the base URLs. A version is ignored.
    ///
    /// `None` for a contained resource (`#p`), a `urn:`, a URL of another server, and whatever else does
    /// not name a resource type of R4 and a valid id.
    pub fn resolve<'a>(&self, reference: &'a str) -> Option<Reference<'a>> {
        let (type_name, rest) = self.relative(reference)?;
        let resource_type = type_name.parse().ok()?;
        Some(Reference { resource_type, id: id_of(rest)? })
    }

    /// The id of the resource of this type here that a reference names, as [`resolve`](Self::resolve)
    /// would say it. Nothing is allocated, whatever the reference names.
    pub(crate) fn id_of<'a>(&self, resource_type: ResourceType, reference: &'a str) -> Option<&'a str> {
        let (type_name, rest) = self.relative(reference)?;
        if type_name == resource_type.as_str() { id_of(rest) } else { None }
    }

    /// What stands before and after the first slash, below the base URL if there is one.
    fn relative<'a>(&self, reference: &'a str) -> Option<(&'a str, &'a str)> {
        self.0
            .iter()
            .find_map(|base| reference.strip_prefix(&**base)?.strip_prefix('/'))
            .unwrap_or(reference)
            .split_once('/')
    }
}

/// The id, with a version or without.
fn id_of(rest: &str) -> Option<&str> {
    if is_id(rest) {
        return Some(rest);
    }
    let (id, history) = rest.split_once('/')?;
    let version = history.strip_prefix("_history/")?;
    (is_id(id) && is_id(version)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resolved(reference: &str) -> Option<(&'static str, &str)> {
        let bases = BaseUrls::new(["https://ehr.example/fhir/", "http://127.0.0.1:8080/fhir"]);
        bases.resolve(reference).map(|found| (found.resource_type.as_str(), found.id))
    }

    #[test]
    fn relative_and_own_absolute_references_name_a_resource() {
        for reference in [
            "Patient/p.1-A",
            "Patient/p.1-A/_history/3",
            "https://ehr.example/fhir/Patient/p.1-A",
            "http://127.0.0.1:8080/fhir/Patient/p.1-A/_history/a",
        ] {
            assert_eq!(resolved(reference), Some(("Patient", "p.1-A")), "{reference}");
        }
    }

    #[test]
    fn other_references_name_none() {
        for reference in [
            "",
            "#p1",
            "p1",
            "Patient/",
            "Patient",
            "/Patient/p1",
            "patient/p1",
            "Patient/p 1",
            "Patient/p1/",
            "Patient/p1/_history",
            "Patient/p1/_history/",
            "Patient/p1/_history/1/x",
            "Patient/p1/other/1",
            "Patient/p1#x",
            "Patient/p1|2",
            "Patient?identifier=x",
            "urn:uuid:0b1f6c1e-0000-4000-8000-000000000000",
            "https://other.example/fhir/Patient/p1",
            "https://ehr.example/fhirPatient/p1",
            "https://ehr.example/fhir//Patient/p1",
            "https://ehr.example/fhir",
        ] {
            assert_eq!(resolved(reference), None, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_reference_is_spelled_in_the_text(text in "(https://ehr.example/fhir/)?(Patient|Foo|Group)?/?[a-z #.%é-]{0,70}(/_history/1)?") {
            if let Some((kind, id)) = resolved(&text) {
                let spelled = format!("{kind}/{id}");
                prop_assert!(text.contains(&spelled));
                prop_assert!(is_id(id));
            }
            let bases = BaseUrls::new(["https://ehr.example/fhir/"]);
            for kind in [ResourceType::PATIENT, ResourceType::GROUP] {
                let found = bases.resolve(&text).filter(|found| found.resource_type == kind);
                prop_assert_eq!(bases.id_of(kind, &text), found.map(|found| found.id));
            }
        }
    }
}
