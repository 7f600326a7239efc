//! What a path below `/fhir` names. `%24export` is `$export`: some clients encode the sign, some do not.

use fhir::{Level, ResourceType};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// The list of URLs.
    Front,
    /// The CapabilityStatement.
    Metadata,
    /// The operation.
    Export(Level),
    /// Nothing. Why, for the client.
    Nothing(String),
}

impl Place {
    /// Reads the path of a request's target.
    pub(crate) fn of(path: &str) -> Self {
        let path = path.strip_prefix("/fhir").unwrap_or(path);
        let path = path.strip_prefix('/').unwrap_or(path);
        // Some clients end every URL with a slash.
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let segments: Result<Vec<Cow<'_, str>>, _> =
            path.split('/').map(|segment| percent_decode_str(segment).decode_utf8()).collect();
        let Ok(segments) = segments else {
            return Self::Nothing("the path is not UTF-8".to_owned());
        };
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match segments.as_slice() {
            [""] => Self::Front,
            ["metadata"] => Self::Metadata,
            ["$export"] => Self::Export(Level::System),
            ["Patient", "$export"] => Self::Export(Level::AllPatients),
            ["Patient", id, "$export"] if fhir::is_id(id) => Self::Export(Level::Patient((*id).into())),
            ["Group", id, "$export"] if fhir::is_id(id) => Self::Export(Level::Group((*id).into())),
            [name, "$export"] => match name.parse::<ResourceType>() {
                Ok(resource_type) => Self::Export(Level::Type(resource_type)),
                Err(error) => Self::Nothing(error.to_string()),
            },
            _ => Self::Nothing(
                "there is nothing here: this service has the operation $export and no other interaction; \
                 see /fhir/ for its URLs"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_name_the_levels() {
        let condition: ResourceType = "Condition".parse().unwrap();
        for (path, expected) in [
            ("/fhir", Place::Front),
            ("/fhir/", Place::Front),
            ("/fhir/metadata", Place::Metadata),
            ("/fhir/metadata/", Place::Metadata),
            ("/fhir/$export/", Place::Export(Level::System)),
            ("/fhir/%24export/", Place::Export(Level::System)),
            ("/fhir/Condition/$export/", Place::Export(Level::Type(condition))),
            ("/fhir/Patient/p-1/$export/", Place::Export(Level::Patient("p-1".into()))),
            ("/fhir/$export", Place::Export(Level::System)),
            ("/fhir/%24export", Place::Export(Level::System)),
            ("/fhir/Condition/$export", Place::Export(Level::Type(condition))),
            ("/fhir/Condition/%24export", Place::Export(Level::Type(condition))),
            ("/fhir/%43ondition/%24%65xport", Place::Export(Level::Type(condition))),
            ("/fhir/Patient/$export", Place::Export(Level::AllPatients)),
            ("/fhir/Patient/p-1/$export", Place::Export(Level::Patient("p-1".into()))),
            ("/fhir/Group/g.1/%24export", Place::Export(Level::Group("g.1".into()))),
            ("/fhir/Group/$export", Place::Export(Level::Type(ResourceType::GROUP))),
        ] {
            assert_eq!(Place::of(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in [
            "/fhir/condition/$export",
            "/fhir/Condition/1/$export",
            "/fhir/Patient/not_an_id/$export",
            "/fhir/Patient//$export",
            "/fhir/Patient",
            "/fhir/Condition/",
            "/fhir//$export",
            "/fhir/$export//",
            "/fhir//",
            "/fhir/metadata//",
            "/fhir/$EXPORT",
            "/fhir/%2524export",
            "/fhir/Patient%2F$export",
            "/fhir/%ff",
        ] {
            assert!(matches!(Place::of(path), Place::Nothing(_)), "{path}");
        }
        let Place::Nothing(why) = Place::of("/fhir/Widget/$export") else { panic!() };
        assert!(why.contains("'Widget'"), "{why}");
    }

    proptest! {
        #[test]
        fn no_path_is_too_strange(path in "(/fhir)?(/[ -~]{0,12}){0,5}") {
            Place::of(&path);
        }
    }
}
