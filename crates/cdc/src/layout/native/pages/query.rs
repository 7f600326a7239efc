//! The statements of pages. Those that each page needs are prepared once for a connection: to plan one anew would cost the
//! database a fifth of what it takes to read the page.

use crate::layout::native::rows::table_name;
use crate::lossy::RawText;
use crate::timestamptz::Timestamptz;
use feed::{Kind, LARGE_BYTES, PageRequest};
use fhir::{Instant, Patients};
use pg::Encoding;
use std::borrow::Cow;

/// The size of a content without fetching it; what is compressed is taken to be four times as long.
const SIZE: &str = "(least(pg_column_size(t.content), 100000000) \
                    * case when pg_column_compression(t.content) is null then 1 else 4 end)";

/// Whether a content, as it is streamed, may be sent with others. To know the size of what is compressed it has to be
/// read, so what cannot become that large even if it is compressed to nearly nothing is not looked at.
fn inline(content: &str) -> String {
    format!(
        "(case when pg_column_compression({content}) is null then pg_column_size({content}) \
          when pg_column_size({content}) <= {SURELY_INLINE} then 0 \
          else octet_length({content}::text) end <= {LARGE_BYTES})"
    )
}

/// Postgres compresses to a ninetieth at most (pglz), or to a 255th (lz4): what is smaller comes to four times [`LARGE_BYTES`] at
/// most, and only if it says next to nothing.
const SURELY_INLINE: usize = LARGE_BYTES / 64;

/// What a page has, and how it is found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Rows {
    /// All resources of a type.
    Resources,
    /// All that were deleted. A deletion says what is gone, not what it was.
    Deletions,
    /// The same with their contents, which say whose they were.
    JudgedDeletions,
    /// The resources of a type that mention one of some patients, who are one more parameter.
    Mentioning,
    /// These patients themselves. They need not mention themselves, and nobody else's index entry is read for them.
    ThePatients,
}

impl Rows {
    /// What the parameter after those of [`Parameters`] is asked for.
    pub(super) const fn of_patients(self) -> bool {
        matches!(self, Self::Mentioning | Self::ThePatients)
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Resources | Self::Mentioning | Self::ThePatients => Kind::Upsert,
            Self::Deletions | Self::JudgedDeletions => Kind::Deletion,
        }
    }

    const fn with_content(self) -> bool {
        !matches!(self, Self::Deletions)
    }

    /// What both statements for pages have in common: the rows after a place, in order.
    fn from(self) -> String {
        let table = table_name(self.kind());
        let place = |of: &str| {
            format!(
                "{of}.resource_type = $1::text and {of}.last_updated <= $2::timestamptz \
                 and ({of}.last_updated, {of}.id) > ($3::timestamptz, $4::text)"
            )
        };
        let order = |of: &str| format!("order by {of}.last_updated, {of}.id");
        match self {
            Self::Resources => format!("from {table} t where {} {} limit $5::bigint", place("t"), order("t")),
            Self::Deletions | Self::JudgedDeletions => format!(
                "from {table} t where {} and not exists (select from fhir.resource r \
                   where r.resource_type = t.resource_type and r.id = t.id) {} limit $5::bigint",
                place("t"),
                order("t"),
            ),
            // The keys first, which are few, and then the contents. Were it left to the planner it could walk the type in
            // the order of the page, and ask each row that it meets whom it mentions.
            Self::Mentioning | Self::ThePatients => format!(
                "from (with mine as materialized ({}) select m.last_updated, m.id from mine m where {} {} limit $5::bigint) k \
                   join {table} t on t.resource_type = $1::text and t.id = k.id {}",
                if self == Self::Mentioning { mentioning("$7") } else { the_patients("$7") },
                place("m"),
                order("m"),
                order("k"),
            ),
        }
    }
}

/// The keys of the rows that mention one of the patients in a parameter. The condition on the type is that of the index.
fn mentioning(patients: &str) -> String {
    format!(
        "select r.resource_type, r.last_updated, r.id from fhir.resource r \
          where r.resource_type <> 'Group' and fhir.mentions(r.content::text) && {patients}::text[]"
    )
}

/// The keys of these patients themselves.
fn the_patients(patients: &str) -> String {
    format!(
        "select r.resource_type, r.last_updated, r.id from fhir.resource r \
          where r.resource_type = 'Patient' and r.id = any({patients}::text[])"
    )
}

/// The types of the rows that mention one of these patients ($1), and of these patients themselves, stamped after an
/// instant ($2) if there is one.
pub(super) fn present_of_patients() -> String {
    format!(
        "with mine as materialized ({} union all {}) select distinct m.resource_type from mine m \
          where $2::timestamptz is null or m.last_updated > $2::timestamptz",
        mentioning("$1"),
        the_patients("$1"),
    )
}

/// A Group by its id ($1): the columns that a page has.
pub(super) const GROUP: &str = "select t.id, t.version_id, t.last_updated, t.content from fhir.resource t \
                                where t.resource_type = 'Group' and t.id = $1";

/// Those of some patients ($1) who are stored.
pub(super) const STORED: &str =
    "select r.id from fhir.resource r where r.resource_type = 'Patient' and r.id = any($1::text[])";

/// Whether there are more patients than a number ($1), which is the effort.
pub(super) const MORE_PATIENTS: &str = "select count(*) > $1::bigint from \
    (select from fhir.resource r where r.resource_type = 'Patient' limit $1::bigint + 1) p";

/// The types with about how many rows each has: the planner's estimate, which takes the number of rows as of the last analyze or
/// vacuum and how the file has grown since. Types that are rare, or came since, are not among the most common values; names that
/// are no types' may not be convertible.
pub(super) const ESTIMATES: &str = "select t.name, round(t.share * c.reltuples / c.relpages \
     * (pg_relation_size(c.oid) / current_setting('block_size')::int8))::int8 \
    from pg_class c, pg_stats s, unnest(s.most_common_vals::text::text[], s.most_common_freqs) as t(name, share) \
    where c.oid = 'fhir.resource'::regclass and c.reltuples > 0 and c.relpages > 0 and s.schemaname = 'fhir' \
    and s.tablename = 'resource' and s.attname = 'resource_type' and not s.inherited and t.name ~ '^[A-Z][A-Za-z]*$' \
    order by 1";

/// What is asked for to find the rows of these patients: a row whose mentions are hidden by escapes mentions `*`.
pub(super) fn asked_for(patients: &Patients) -> Vec<&str> {
    patients.iter().chain(["*"]).collect()
}

/// The statement for a page of which nothing is known, whose parameters are those of [`Parameters`]: id, `version_id`,
/// `last_updated`, content, in each row what [`end_if_newer`] is in the same snapshot, the weight up to this row, and whether
/// its content is left out since it is large. After the
/// last row there may be more if there are as many as were asked for or if it came to the weight that was asked for ($6): so a
/// page of large resources does not have the server read a thousand of them to throw most away.
pub(super) fn weighed(which: Rows) -> String {
    let (content, large) = match which.kind() {
        // What was deleted is read to be judged, and never sent.
        Kind::Deletion if which.with_content() => ("p.content".to_owned(), "false".to_owned()),
        Kind::Upsert => {
            let inline = inline("p.content");
            (
                format!("case when {inline} then p.content end"),
                format!("p.content is not null and not {inline}"),
            )
        }
        Kind::Deletion => ("null::text".to_owned(), "false".to_owned()),
    };
    format!(
        "select p.id, p.version_id, p.last_updated, {content}, ({}), p.weight, {large} from (\
           select w.*, sum(w.size) over (order by w.last_updated, w.id rows unbounded preceding) as weight \
             from (select t.id, t.version_id, t.last_updated, t.content, {SIZE} as size {}) w) p \
          where p.weight - p.size < $6::bigint order by p.last_updated, p.id",
        end_if_newer(),
        which.from(),
    )
}

/// The statement for a page whose rows are like those of the page before, which costs the server a quarter less: as
/// [`weighed`], but without the weight, and without the contents that are larger than $6.
pub(super) fn alike(which: Rows) -> String {
    let content = match which.kind() {
        Kind::Deletion if which.with_content() => {
            "case when $6::bigint is not null then t.content end".into()
        }
        Kind::Upsert => {
            format!("case when {SIZE} <= $6::bigint and {} then t.content end", inline("t.content"))
        }
        // Always null: a parameter has to stand somewhere.
        Kind::Deletion => "case when $6::bigint is null then ''::text end".into(),
    };
    format!("select t.id, t.version_id, t.last_updated, {content}, ({}) {}", end_if_newer(), which.from())
}

/// A large row: what [`weighed`] says of a row, if it is still there.
pub(super) const LARGE: &str = "select t.id, t.version_id, t.last_updated, t.content from fhir.resource t \
                                where t.resource_type = $1 and t.last_updated = $2 and t.version_id = $3";

/// The end of the log, unless nothing of a page's type ($1) is visible that is newer than the page's upper bound ($2): then
/// nothing was passed over.
pub(super) fn end_if_newer() -> String {
    let newer = |kind| {
        format!(
            "exists (select from {} n where n.resource_type = $1::text and n.last_updated > $2::timestamptz)",
            table_name(kind),
        )
    };
    format!(
        "select case when {} or {} then pg_current_wal_insert_lsn() end",
        newer(Kind::Upsert),
        newer(Kind::Deletion),
    )
}

/// What a page's statement is told.
pub(super) struct Parameters<'a> {
    pub(super) resource_type: &'a str,
    pub(super) until: Timestamptz,
    /// The page begins after this place, ...
    pub(super) after_stamp: Timestamptz,
    /// ... which is an id in that stamp.
    after_id: Cow<'a, [u8]>,
    pub(super) rows: i64,
    /// The largest content that is like those before, for [`alike`]; for [`weighed`] the bytes that are wanted.
    pub(super) bytes: i64,
}

/// Stands in a place for what follows in an id that is not ASCII. Postgres' text has no NUL.
pub(super) const BEYOND_TEXT: char = '\0';

/// A content is not like those before it if it is so many times as large as these are on the average.
const ALIKE: usize = 8;

impl<'a> Parameters<'a> {
    /// Of a page that has so many rows at most.
    pub(super) fn of(request: &'a PageRequest, most: usize, encoding: &Encoding) -> Self {
        let wanted = request.bytes.clamp(1, PageRequest::LARGEST);
        let (rows, bytes) = match request.expected {
            None => (most, wanted),
            Some(expected) => {
                let expected = expected.clamp(1, PageRequest::LARGEST);
                let rows = (expected * wanted / PageRequest::LARGEST).clamp(1, most);
                (rows, ALIKE * PageRequest::LARGEST / expected)
            }
        };
        // No id is empty: so a place before all of a stamp is beyond all of the one before.
        let next = |since: Instant| Instant::from_unix_micros(since.unix_micros().saturating_add(1));
        let (after_stamp, after_id) = match (&request.after, request.since) {
            (Some((stamp, id)), _) => (Timestamptz::within_calendar(*stamp), &**id),
            (None, Some(since)) => (Timestamptz::within_calendar(next(since)), ""),
            (None, None) => (Timestamptz(Instant::MIN), ""),
        };
        Self {
            resource_type: request.resource_type.as_str(),
            until: Timestamptz::within_calendar(request.until),
            after_stamp,
            after_id: match after_id.split_once(BEYOND_TEXT) {
                None => Cow::Borrowed(after_id.as_bytes()),
                // Beyond all that begins so and goes on with a character that is not ASCII. None of that can be streamed.
                Some((start, _)) => {
                    Cow::Owned([start.as_bytes(), &encoding.last_character().repeat(8)].concat())
                }
            },
            rows: i64::try_from(rows).unwrap_or(i64::MAX),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }
}

impl Parameters<'_> {
    pub(super) fn after_id(&self) -> RawText<'_> {
        RawText(&self.after_id)
    }
}

/// The end of the log.
pub(super) const END: &str = "select pg_current_wal_insert_lsn()";

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
