//! The text that names a database, as libpq reads it: a URL, or a list of `keyword=value`.
//!
//! No error repeats what was written. A password with a character that has to be encoded falls apart, and its
//! pieces look like hosts, ports, databases or keywords.
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>

use super::InvalidDatabaseUrl;
use percent_encoding::percent_decode_str;

/// What was written: keywords and their values, in order. Of a keyword that stands twice the last one counts.
pub(super) type Pairs = Vec<(String, String)>;

/// What to do about a password that fell apart.
pub(super) const ENCODE: &str = "the database URL cannot be read: if the password or the user has one of the characters \
    : / ? # [ ] @ or %, write it as : %3A / %2F ? %3F # %23 [ %5B ] %5D @ %40 % %25, or leave the password out and set \
    PGPASSWORD";

fn invalid(message: &str) -> InvalidDatabaseUrl {
    InvalidDatabaseUrl(message.to_owned())
}

/// Reads it. Keywords are not looked at.
pub(super) fn parse(text: &str) -> Result<Pairs, InvalidDatabaseUrl> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        url(rest)
    } else if text.split_once("://").is_none_or(|(scheme, _)| scheme.contains('=')) {
        // A value may have `://` in it, as a password may.
        keywords(text)
    } else {
        Err(invalid(
            "the database URL begins with postgres:// or postgresql://, or is a list of keyword=value",
        ))
    }
}

/// Whether the name of the keyword at this place may be shown: it may be a piece of a password.
pub(super) fn may_show(text: &str, pairs: &Pairs, index: usize) -> bool {
    let secret = |(keyword, _): &(String, String)| keyword == "password" || keyword == "sslpassword";
    let after_secret = index.checked_sub(1).and_then(|before| pairs.get(before)).is_some_and(secret);
    // Of a URL's `@` one ends user and password. Another one was not encoded.
    let falls_apart = text.trim().split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.contains('=') && rest.matches('@').count() > usize::from(has_credentials(rest))
    });
    !after_secret && !falls_apart
}

/// Whether what follows the scheme begins with user and password.
fn has_credentials(rest: &str) -> bool {
    rest.find(['@', '/']).is_some_and(|at| rest[at..].starts_with('@'))
}

fn url(rest: &str) -> Result<Pairs, InvalidDatabaseUrl> {
    let mut pairs = Pairs::new();
    let mut push = |keyword: &str, raw: &str| {
        if !raw.is_empty() {
            pairs.push((keyword.to_owned(), decoded(raw)?));
        }
        Ok(())
    };
    let mut rest = rest;
    if has_credentials(rest) {
        let (credentials, after) = rest.split_once('@').unwrap_or(("", rest));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        // The password first: what follows is known not to be a piece of it.
        push("user", user)?;
        push("password", password)?;
        rest = after;
    }
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    if place.contains('@') || place.contains('#') {
        return Err(invalid(ENCODE));
    }
    let (authority, dbname) = place.split_once('/').map_or((place, ""), |(hosts, dbname)| (hosts, dbname));
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for host in authority.split(',') {
        let (host, port) = match host.strip_prefix('[') {
            Some(bracketed) => {
                let (address, after) = bracketed.split_once(']').ok_or_else(|| invalid(ENCODE))?;
                let port = after.strip_prefix(':').or(after.is_empty().then_some(""));
                (address, port.ok_or_else(|| invalid(ENCODE))?)
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(invalid(ENCODE));
        }
        hosts.push(host);
        ports.push(port);
    }
    let list = |items: &[&str]| {
        if items.iter().all(|item| item.is_empty()) { String::new() } else { items.join(",") }
    };
    push("host", &list(&hosts))?;
    push("port", &list(&ports))?;
    push("dbname", dbname)?;
    for parameter in
        query.into_iter().flat_map(|query| query.split('&')).filter(|parameter| !parameter.is_empty())
    {
        let (keyword, value) = parameter.split_once('=').ok_or_else(|| invalid(ENCODE))?;
        let (keyword, value) = (decoded(keyword)?, decoded(value)?);
        // As JDBC has it.
        if keyword == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            pairs.push((keyword, value));
        }
    }
    Ok(pairs)
}

fn decoded(raw: &str) -> Result<String, InvalidDatabaseUrl> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(is_hex(bytes.next()) && is_hex(bytes.next())) {
            return Err(invalid(ENCODE));
        }
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| invalid(ENCODE))?;
    if decoded.contains('\0') { Err(invalid(ENCODE)) } else { Ok(decoded.into_owned()) }
}

/// `keyword = value`, `keyword='quoted \' value'`, separated by blanks.
fn keywords(text: &str) -> Result<Pairs, InvalidDatabaseUrl> {
    const EXPECTED: &str = "the database URL cannot be read: write postgres://user@host/db or keyword=value pairs; a value \
        with blanks stands in single quotes, where ' and \\ are written \\' and \\\\";
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=').ok_or_else(|| invalid(EXPECTED))?;
        let keyword = keyword.trim_end();
        if keyword.is_empty() || keyword.contains(char::is_whitespace) {
            return Err(invalid(EXPECTED));
        }
        let (value, after) = keyword_value(after.trim_start()).ok_or_else(|| invalid(EXPECTED))?;
        pairs.push((keyword.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn keyword_value(text: &str) -> Option<(String, &str)> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Some((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &body[at..])),
            c => value.push(c),
        }
    }
    // A quoted value that is not closed.
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let pairs = parse(text).unwrap();
        pairs.iter().map(|(keyword, value)| format!("{keyword}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_are_taken_apart_as_libpq_does() {
        for (url, pairs) in [
            ("postgres://", ""),
            ("postgresql://h", "host=h"),
            ("postgres://u@h:1/d", "user=u host=h port=1 dbname=d"),
            ("postgres://u:p:w?x#y@h/d", "user=u password=p:w?x#y host=h dbname=d"),
            ("postgres://u:@/d", "user=u dbname=d"),
            (
                "postgres://a%40b:%2F%25@h/%2fd?sslmode=disable",
                "user=a@b password=/% host=h dbname=/d sslmode=disable",
            ),
            ("postgres://%2Frun%2Fpg/d", "host=/run/pg dbname=d"),
            ("postgres://u@a:1,b,[::1]:3/d", "user=u host=a,b,::1 port=1,,3 dbname=d"),
            ("postgres:///d?host=/run/pg&port=5&ssl=true", "dbname=d host=/run/pg port=5 sslmode=require"),
            ("postgres://h/?user=a%40b", "host=h user=a@b"),
        ] {
            assert_eq!(read(url), pairs, "{url}");
        }
    }

    #[test]
    fn a_url_that_fell_apart_is_refused_and_says_how_to_encode() {
        for url in [
            "postgres://u:p@w@h/d",
            "postgres://u:p@@h/d",
            "postgres://u:p@w/x@h/d",
            "postgres://u:p/w@h/d",
            "postgres://u:1/w@h/d",
            "postgres://u:p/w#x@h/d",
            "postgres://u:p@w#x/d",
            "postgres://u:p%w@h/d",
            "postgres://u:p%00w@h/d",
            "postgres://u:[x@h/d?",
            "postgres://u:p@[::1/d",
            "postgres://u@h:port/d",
            "postgres://u@h/d?word",
        ] {
            match parse(url) {
                Err(error) => assert!(error.0.contains("%40"), "{url}: {error}"),
                // A password that libpq reads as it is written.
                Ok(pairs) => assert_eq!(pairs[1].1, "[x", "{url}"),
            }
        }
    }

    #[test]
    fn keywords_that_may_be_pieces_of_a_password_are_not_shown() {
        for (text, index) in [
            ("postgres://u:a@b?c=d@h/d", 3),
            ("postgres://h/d?password=a&b=c", 3),
            ("host=h password=a b=c", 2),
        ] {
            assert!(!may_show(text, &parse(text).unwrap(), index), "{text}");
        }
        for (text, index) in [("postgres://u:p@h/d?colour=red", 4), ("host=h colour=red password=x", 1)] {
            assert!(may_show(text, &parse(text).unwrap(), index), "{text}");
        }
    }
}
