//! The password file, `~/.pgpass`: lines of `host:port:database:user:password`.
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>

/// What is looked up in it.
pub(super) struct Wanted<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line that fits.
pub(super) fn find(file: &str, wanted: &Wanted<'_>) -> Option<String> {
    let port = wanted.port.to_string();
    let wanted = [wanted.host, &port, wanted.dbname, wanted.user];
    file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for want in wanted {
            let (raw, after) = split(rest)?;
            if raw != "*" && unescape(raw) != want {
                return None;
            }
            rest = after;
        }
        // Only the fields before it end at a colon.
        Some(unescape(rest))
    })
}

/// Cuts the text at its first colon that no backslash precedes.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            // A colon is one byte, so both cuts are between characters.
            b':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_line_that_fits() {
        let file =
            "# a comment\nother:5432:*:*:no\nbroken line\ndb\\:1:*:fhir:al\\\\ice:p\\:w:é\n*:*:*:*:last\n";
        let wanted = |host, user| Wanted { host, port: 5432, dbname: "fhir", user };
        assert_eq!(find(file, &wanted("db:1", "al\\ice")).as_deref(), Some("p:w:é"));
        assert_eq!(find(file, &wanted("db:1", "bob")).as_deref(), Some("last"));
        assert_eq!(find("a:1:b:c", &wanted("a", "c")), None);
    }
}
