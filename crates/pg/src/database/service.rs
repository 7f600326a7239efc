//! The connection service file: <https://www.postgresql.org/docs/current/libpq-pgservice.html>.

use super::InvalidDatabaseUrl;
use super::settings::{Environment, home};
use std::path::PathBuf;

/// The keywords of a service, and the file that has it: the one that is named, the user's own, or the system's.
pub(super) fn find(
    name: &str,
    named: Option<PathBuf>,
    environment: Environment<'_>,
) -> Result<(PathBuf, Vec<(String, String)>), InvalidDatabaseUrl> {
    let named = named.or_else(|| environment("PGSERVICEFILE").map(PathBuf::from));
    let files = match named {
        Some(file) => vec![file],
        None => {
            // Where Debian's libpq looks, unless told otherwise.
            let system = environment("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".to_owned());
            let own = home(environment, ".pg_service.conf");
            own.into_iter().chain([PathBuf::from(system).join("pg_service.conf")]).collect()
        }
    };
    for file in &files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(InvalidDatabaseUrl(format!("cannot read {}: {error}", file.display())));
            }
        };
        let entries = entries(&text, name).map_err(|line| {
            InvalidDatabaseUrl(format!("{}:{line}: it is neither [name] nor keyword=value", file.display()))
        })?;
        if let Some(entries) = entries {
            return Ok((file.clone(), entries));
        }
    }
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    Err(InvalidDatabaseUrl(format!("there is no service '{name}' in {}", files.join(" or "))))
}

/// The entries of a service; an error is the number of the line that is none.
fn entries(text: &str, name: &str) -> Result<Option<Vec<(String, String)>>, usize> {
    let mut found: Option<Vec<(String, String)>> = None;
    let lines = text.lines().map(str::trim).enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let section = section.strip_suffix(']').ok_or(index + 1)?;
            found = (section == name).then(Vec::new);
        } else if let Some(entries) = &mut found {
            let (keyword, value) = line.split_once('=').ok_or(index + 1)?;
            entries.push((keyword.trim().to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_keywords_are_those_up_to_the_next() {
        let text =
            "# x\n[other]\nhost=o\n\n[fhir]\nhost=db\n port=5433\n#port=1\npassword= p w \n[last]\nhost=l\n";
        let pair = |keyword: &str, value: &str| (keyword.to_owned(), value.to_owned());
        let expected = vec![pair("host", "db"), pair("port", "5433"), pair("password", " p w")];
        assert_eq!(entries(text, "fhir"), Ok(Some(expected)));
        assert_eq!(entries(text, "missing"), Ok(None));
        assert_eq!(entries("[fhir]\nldap://x", "fhir"), Err(2));
        assert_eq!(entries("[fhir\nhost=x", "fhir"), Err(1));
    }
}
