//! The URL that is followed: what was typed, made into a request for `$export`.

use reqwest::Url;
use std::time::Duration;

/// A quiet stream sends a comment this often, unless `_heartbeat` says otherwise.
const HEARTBEAT: u64 = 15;
/// So many of them may be missed before the connection counts as lost.
const MISSED: u64 = 3;

/// What is asked for besides what the URL says.
#[derive(Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    pub(super) types: &'a [String],
    pub(super) since: Option<&'a str>,
    /// What belongs to the members of this Group.
    pub(super) group: Option<&'a str>,
    /// What belongs to these patients.
    pub(super) patients: &'a [String],
}

/// Where to ask, and what for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    url: Url,
}

impl Target {
    /// `url` is the base of a FHIR service or a whole `$export` URL, whose query is kept; what is asked for is added.
    pub(super) fn new(url: &str, asked: Asked<'_>) -> Result<Self, String> {
        let Asked { types, since, group, patients } = asked;
        let mut url = Url::parse(url).map_err(|error| {
            // Not the text: it may hold a password, and where that ends nobody can tell.
            format!("this is no URL ({error}): give that of the service, such as http://127.0.0.1:8080/fhir")
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("a URL of {}: is neither http:// nor https://", url.scheme()));
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        let whole = path.ends_with("/$export") || path.ends_with("/%24export");
        if whole && group.is_some() {
            return Err(
                "--group is for the URL of the service: leave $export and what stands before it out".into()
            );
        }
        if let Some(group) = group.filter(|group| !fhir::is_id(group)) {
            return Err(format!("--group: '{group}' is not the id of a Group"));
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

    /// To be asked.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What it is known by, in messages and in the state file: without a password.
    pub(super) fn name(&self) -> String {
        let mut url = self.url.clone();
        // Fails for URLs without a host alone, which http always has.
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.to_string()
    }

    /// A stream that is silent for longer has been lost.
    pub(super) fn silence(&self) -> Duration {
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
        Target::new(url, Asked { types: &types, since, ..Asked::default() }).unwrap().name()
    }

    #[test]
    fn a_group_and_patients_are_levels() {
        let patients = ["a".to_owned(), "b".to_owned()];
        let asked = |group, patients| Asked { group, patients, ..Asked::default() };
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
                let shown = match Target::new(&url, Asked::default()) {
                    Ok(target) => target.name(),
                    Err(error) => error,
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
        let target = Target::new("https://user:secret@h/fhir", Asked::default()).unwrap();
        assert_eq!(target.name(), "https://h/fhir/$export");
        assert_eq!(target.url().password(), Some("secret"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (url, message) in [("h/fhir", "is no URL"), ("ftp://h/fhir", "neither http:// nor https://")] {
            assert!(Target::new(url, Asked::default()).unwrap_err().contains(message), "{url}");
        }
    }

    #[test]
    fn silence_follows_the_heartbeat() {
        let silence =
            |query: &str| Target::new(&format!("http://h/{query}"), Asked::default()).unwrap().silence();
        assert_eq!(silence(""), Duration::from_secs(45));
        assert_eq!(silence("?_heartbeat=2"), Duration::from_secs(6));
        assert_eq!(silence("?_heartbeat=x"), Duration::from_secs(45));
    }
}
