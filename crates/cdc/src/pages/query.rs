//! The statement of a page. `COPY` takes no parameters, so they are written as literals.

use crate::layout::table_name;
use feed::{Kind, PageRequest};
use fhir::Instant;
use std::fmt::Write as _;

/// The statement ends with the row at which the sizes of all contents so far, as they are stored, come to this: so a
/// page of large resources does not have the server read a thousand of them to throw most away.
pub(super) const WEIGHT: i64 = 1 << 20;

/// The statement for a page of at most `rows`: id, `version_id`, `last_updated`, content, and the weight up to this row. After
/// the last row there may be more if there are so many or if it came to [`WEIGHT`].
pub(super) fn page(request: &PageRequest, rows: usize) -> String {
    let mut conditions = format!(
        "t.resource_type = {} and t.last_updated <= {}",
        literal(request.resource_type.as_str()),
        instant(request.until),
    );
    // Writing to a String never fails.
    if let Some(since) = request.since {
        let _ = write!(conditions, " and t.last_updated > {}", instant(since));
    }
    if let Some((stamp, id)) = &request.after {
        let _ = write!(conditions, " and (t.last_updated, t.id) > ({}, {})", instant(*stamp), literal(id));
    }
    let content = match request.kind {
        Kind::Upsert => "p.content::text",
        // A deletion says what is gone, not what it was.
        Kind::Deletion => {
            conditions.push_str(
                " and not exists (select from fhir.resource r \
                 where r.resource_type = t.resource_type and r.id = t.id)",
            );
            "null::text"
        }
    };
    // pg_column_size does not fetch the content; what is compressed is taken to be four times as long.
    format!(
        "copy (select p.id, p.version_id, p.last_updated, {content}, p.weight from (\
           select w.*, sum(w.size) over (order by w.last_updated, w.id rows unbounded preceding) as weight \
             from (select t.id, t.version_id, t.last_updated, t.content, \
                          least(pg_column_size(t.content), 100000000) \
                          * case when pg_column_compression(t.content) is null then 1 else 4 end as size \
                     from {} t where {conditions} \
                    order by t.last_updated, t.id limit {rows}) w) p \
          where p.weight - p.size < {WEIGHT} order by p.last_updated, p.id) to stdout (format binary)",
        table_name(request.kind),
    )
}

/// The end of the log.
pub(super) const END: &str = "select pg_current_wal_insert_lsn()";

/// The end of the log, unless nothing of a page's type is visible that is newer than the page's upper bound: then nothing was
/// passed over.
pub(super) fn end_if_newer(request: &PageRequest) -> String {
    let condition = format!(
        "t.resource_type = {} and t.last_updated > {}",
        literal(request.resource_type.as_str()),
        instant(request.until),
    );
    format!(
        "select case when exists (select from {} t where {condition}) \
                       or exists (select from {} t where {condition}) \
                then pg_current_wal_insert_lsn() end",
        table_name(Kind::Upsert),
        table_name(Kind::Deletion),
    )
}

/// The types that a table has rows of, stamped after `since`: a step along the index for each type, whatever
/// their number of rows.
pub(crate) fn present(kind: Kind, since: Option<Instant>) -> String {
    let table = table_name(kind);
    let after = since.map_or_else(String::new, |since| format!(" and r.last_updated > {}", instant(since)));
    format!(
        "with recursive present(t) as (\
           (select resource_type from {table} order by resource_type limit 1) \
           union all \
           select (select r.resource_type from {table} r where r.resource_type > p.t \
                    order by r.resource_type limit 1) from present p where p.t is not null) \
         select t from present where exists (select from {table} r where r.resource_type = t{after})"
    )
}

/// The version of some row of a type, which is a parameter.
pub(super) fn one_version(kind: Kind) -> String {
    format!("select version_id from {} where resource_type = $1 limit 1", table_name(kind))
}

/// An instant to the microsecond. Beyond FHIR's calendar it is the nearest within.
fn instant(at: Instant) -> String {
    format!("timestamptz '{at}'")
}

/// Text as a literal, whatever `standard_conforming_strings` is. Postgres' text has no NUL; what follows one
/// is left off, which keeps the place in the order: nothing lies between.
fn literal(text: &str) -> String {
    let text = text.split('\0').next().unwrap_or_default();
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a literal as Postgres' scanner does: the value, and what follows the closing quote.
    fn scan(literal: &str) -> (String, String) {
        let (escapes, rest) = match literal.strip_prefix(" E'") {
            Some(rest) => (true, rest),
            None => (false, literal.strip_prefix('\'').unwrap()),
        };
        let mut value = String::new();
        let mut chars = rest.chars().peekable();
        while let Some(next) = chars.next() {
            match next {
                '\'' if chars.peek() == Some(&'\'') => value.push(chars.next().unwrap()),
                '\'' => return (value, chars.collect()),
                '\\' if escapes => value.push(chars.next().unwrap()),
                other => {
                    assert_ne!(other, '\\', "a backslash outside E'' depends on a setting");
                    value.push(other);
                }
            }
        }
        panic!("the literal does not end");
    }

    proptest! {
        #[test]
        fn any_text_stays_within_its_literal(text in "[a-z'\\\\;\\-\u{e9}\n\0]{0,20}|\\PC{0,20}") {
            let (value, rest) = scan(&literal(&text));
            prop_assert_eq!(value, text.split('\0').next().unwrap());
            prop_assert_eq!(rest, "");
        }
    }
}
