//! The URL that is followed: the user's URL, made into a request for `$export`.

use crate::error::{Error, Result};
use reqwest::Url;
use std::time::Duration;

/// A quiet stream sends a comment this often, unless `_heartbeat` says otherwise.
const HEARTBEAT: u64 = 15;
/// This many of them may be missed before the connection counts as lost.
const MISSED: u64 = 3;

/// What is asked for, in addition to the URL's own parameters.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Resource types; none: all.
    pub types: &'a [String],
    /// Only changes after this instant.
    pub since: Option<&'a str>,
    /// Only what belongs to the members of the Group with this id.
    pub group: Option<&'a str>,
    /// Only what belongs to the patients with these ids; none: all.
    pub patients: &'a [String],
}

/// A stream of a service: its URL with all parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    url: Url,
}

impl Target {
    /// `url` is the base of a FHIR service or a whole `$export` URL, whose query is kept; the selection is added.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidTarget`], whose text holds no password.
    pub fn new(url: &str, selection: Selection<'_>) -> Result<Self> {
        let Selection { types, since, group, patients } = selection;
        let mut url = Url::parse(url).map_err(|error| {
            // Not the text: it may hold a password, whose end is unknown.
            Error::InvalidTarget(format!(
                "this is not a URL ({error}): give that of the service, such as http://127.0.0.1:8080/fhir"
            ))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::InvalidTarget(format!(
                "a URL of {}: is neither http:// nor https://",
                url.scheme()
            )));
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        let whole = path.ends_with("/$export") || path.ends_with("/%24export");
        if whole && group.is_some() {
            return Err(Error::InvalidTarget(
                "--group is for the URL of the service: leave out $export and what stands before it".into(),
            ));
        }
        if let Some(group) = group.filter(|group| !fhir::is_id(group)) {
            return Err(Error::InvalidTarget(format!("--group: '{group}' is not the id of a Group")));
        }
        url.set_path(&match group {
            _ if whole => path,
            Some(group) => format!("{path}/Group/{group}/$export"),
            None if !patients.is_empty() => format!("{path}/Patient/$export"),
            None => format!("{path}/$export"),
        });
        if !patients.is_empty() {
            url.query_pairs_mut().append_pair("patient", &patients.join(","));
        }
        if !types.is_empty() {
            url.query_pairs_mut().append_pair("_type", &types.join(","));
        }
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("_since", since);
        }
        Ok(Self { url })
    }

    /// The URL of the request.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its name in messages and in the state file: the URL without a password.
    #[must_use]
    pub fn name(&self) -> String {
        let mut url = self.url.clone();
        // Fails only for URLs without a host, which http always has.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.to_string()
    }

    /// A stream that is silent for longer than this is lost: three heartbeats.
    #[must_use]
    pub fn silence(&self) -> Duration {
        let asked = self.url.query_pairs().find(|(name, _)| name == "_heartbeat");
        let heartbeat = asked.and_then(|(_, seconds)| seconds.parse().ok()).unwrap_or(HEARTBEAT);
        Duration::from_secs(heartbeat.clamp(2, 60) * MISSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(url: &str, types: &[&str], since: Option<&str>) -> String {
        let types: Vec<String> = types.iter().map(|&name| name.to_owned()).collect();
        Target::new(url, Selection { types: &types, since, ..Selection::default() }).unwrap().name()
    }

    #[test]
    fn a_group_and_patients_are_levels() {
        let patients = ["a".to_owned(), "b".to_owned()];
        let asked = |group, patients| Selection { group, patients, ..Selection::default() };
        let name = |asked| Target::new("http://h/fhir/", asked).unwrap().name();
        assert_eq!(name(asked(Some("g.1"), &[])), "http://h/fhir/Group/g.1/$export");
        assert_eq!(name(asked(None, &patients)), "http://h/fhir/Patient/$export?patient=a%2Cb");
        assert_eq!(name(asked(Some("g"), &patients)), "http://h/fhir/Group/g/$export?patient=a%2Cb");
        assert!(Target::new("http://h/fhir/$export", asked(Some("g"), &[])).is_err());
        assert!(Target::new("http://h/fhir", asked(Some("../x"), &[])).is_err());
    }

    #[test]
    fn a_base_becomes_an_export_and_an_export_stays() {
        for (url, expected) in [
            ("http://h/fhir", "http://h/fhir/$export"),
            ("http://h/fhir/", "http://h/fhir/$export"),
            ("http://h", "http://h/$export"),
            ("http://h/fhir/Patient/$export", "http://h/fhir/Patient/$export"),
            ("http://h/fhir/%24export?_type=Patient#x", "http://h/fhir/%24export?_type=Patient"),
            ("https://h:443/fhir?_heartbeat=5", "https://h/fhir/$export?_heartbeat=5"),
        ] {
            assert_eq!(name(url, &[], None), expected);
        }
    }

    #[test]
    fn no_piece_of_a_password_is_shown() {
        for c in ['@', '/', '#', '?', ':', '%', '[', ']', '&', '=', ' ', '\\', '+'] {
            for url in
                [format!("http://ann:hunter{c}secret@h/fhir"), format!("ftp://ann:hunter{c}secret@h/fhir")]
            {
                let shown = match Target::new(&url, Selection::default()) {
                    Ok(target) => target.name(),
                    Err(error) => error.to_string(),
                };
                assert!(!shown.contains("hunter") && !shown.contains("secret"), "{url}: {shown}");
            }
        }
    }

    #[test]
    fn types_and_since_are_added() {
        assert_eq!(
            name("http://h/fhir?_heartbeat=5", &["Patient", "Group"], Some("2026-01-01T00:00:00+01:00")),
            "http://h/fhir/$export?_heartbeat=5&_type=Patient%2CGroup&_since=2026-01-01T00%3A00%3A00%2B01%3A00"
        );
    }

    #[test]
    fn a_password_is_not_in_its_name() {
        let target = Target::new("https://user:secret@h/fhir", Selection::default()).unwrap();
        assert_eq!(target.name(), "https://h/fhir/$export");
        assert_eq!(target.url().password(), Some("secret"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (url, message) in [("h/fhir", "is not a URL"), ("ftp://h/fhir", "neither http:// nor https://")] {
            assert!(
                Target::new(url, Selection::default()).unwrap_err().to_string().contains(message),
                "{url}"
            );
        }
    }

    #[test]
    fn silence_follows_the_heartbeat() {
        let silence =
            |query: &str| Target::new(&format!("http://h/{query}"), Selection::default()).unwrap().silence();
        assert_eq!(silence(""), Duration::from_secs(45));
        assert_eq!(silence("?_heartbeat=2"), Duration::from_secs(6));
        assert_eq!(silence("?_heartbeat=x"), Duration::from_secs(45));
    }
}
