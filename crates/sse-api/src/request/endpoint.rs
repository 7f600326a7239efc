//! Paths below `/fhir`. `%24export` equals `$export`: some clients encode the dollar sign.

use fhir::{Level, ResourceType};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The endpoint that a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// The list of URLs.
    UrlList,
    /// The CapabilityStatement.
    Capability,
    /// The operation.
    Export(Level),
    /// None, with the reason for the client.
    NotFound(String),
}

impl Endpoint {
    /// Reads the path of a request's target.
    pub(crate) fn from_path(path: &str) -> Self {
        let path = path.strip_prefix("/fhir").unwrap_or(path);
        let path = path.strip_prefix('/').unwrap_or(path);
        // Some clients end every URL with a slash.
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        let segments: Result<Vec<Cow<'_, str>>, _> =
            path.split('/').map(|segment| percent_decode_str(segment).decode_utf8()).collect();
        let Ok(segments) = segments else {
            return Self::NotFound("the path is not UTF-8".to_owned());
        };
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match segments.as_slice() {
            [""] => Self::UrlList,
            ["metadata"] => Self::Capability,
            ["$export"] => Self::Export(Level::System),
            ["Patient", "$export"] => Self::Export(Level::AllPatients),
            ["Patient", id, "$export"] if fhir::is_id(id) => Self::Export(Level::Patient((*id).into())),
            ["Group", id, "$export"] if fhir::is_id(id) => Self::Export(Level::Group((*id).into())),
            [name, "$export"] => match name.parse::<ResourceType>() {
                Ok(resource_type) => Self::Export(Level::Type(resource_type)),
                Err(error) => Self::NotFound(error.to_string()),
            },
            _ => Self::NotFound(
                "no such path: this service supports the operation $export and no other interaction; \
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
    fn paths_name_their_endpoints() {
        let condition: ResourceType = "Condition".parse().unwrap();
        for (path, expected) in [
            ("/fhir", Endpoint::UrlList),
            ("/fhir/", Endpoint::UrlList),
            ("/fhir/metadata", Endpoint::Capability),
            ("/fhir/metadata/", Endpoint::Capability),
            ("/fhir/$export/", Endpoint::Export(Level::System)),
            ("/fhir/%24export/", Endpoint::Export(Level::System)),
            ("/fhir/Condition/$export/", Endpoint::Export(Level::Type(condition))),
            ("/fhir/Patient/p-1/$export/", Endpoint::Export(Level::Patient("p-1".into()))),
            ("/fhir/$export", Endpoint::Export(Level::System)),
            ("/fhir/%24export", Endpoint::Export(Level::System)),
            ("/fhir/Condition/$export", Endpoint::Export(Level::Type(condition))),
            ("/fhir/Condition/%24export", Endpoint::Export(Level::Type(condition))),
            ("/fhir/%43ondition/%24%65xport", Endpoint::Export(Level::Type(condition))),
            ("/fhir/Patient/$export", Endpoint::Export(Level::AllPatients)),
            ("/fhir/Patient/p-1/$export", Endpoint::Export(Level::Patient("p-1".into()))),
            ("/fhir/Group/g.1/%24export", Endpoint::Export(Level::Group("g.1".into()))),
            ("/fhir/Group/$export", Endpoint::Export(Level::Type(ResourceType::GROUP))),
        ] {
            assert_eq!(Endpoint::from_path(path), expected, "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_found() {
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
            assert!(matches!(Endpoint::from_path(path), Endpoint::NotFound(_)), "{path}");
        }
        let Endpoint::NotFound(why) = Endpoint::from_path("/fhir/Widget/$export") else { panic!() };
        assert!(why.contains("'Widget'"), "{why}");
    }

    proptest! {
        #[test]
        fn any_path_is_parsed(path in "(/fhir)?(/[ -~]{0,12}){0,5}") {
            Endpoint::from_path(&path);
        }
    }
}
