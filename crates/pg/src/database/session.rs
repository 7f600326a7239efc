//! What each kind of session states of itself, so that nothing that is set for the role or the database
//! changes what it does.
//!
//! A superuser of the database may have said `alter role … set lock_timeout = '1s'`, and that is right for
//! people who work as that role, but it would cancel the creation of a slot again and again. What is stated
//! here goes with the startup message and counts for more than what is set for role and database, and it
//! counts from the first statement on.
//!
//! Not stated: what is the operator's to choose and changes no answer (`synchronous_commit`, `work_mem`,
//! `role`, `default_tablespace`), and what only a superuser may state (`session_replication_role`; the
//! triggers of the layout fire under each of its values).

use crate::encoding::{SQL_ASCII, UTF8};
use std::borrow::Cow;

/// A kind of session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Session {
    /// Looks after slot and publication while the log is read.
    Monitor,
    /// Samples watermarks.
    Watermark,
    /// Reads the pages of replays.
    Pages,
    /// Reads those of some patients.
    PatientPages,
    /// Looks whether the database is ready; writes nothing.
    Check,
    /// Makes or updates the layout.
    Migrate,
    /// Loads files.
    Load,
    /// Writes as a clinic does.
    Simulate,
    /// Anything else, by its application name. The schemas that it searches are those of the role.
    Other(&'static str),
}

type Setting = (&'static str, &'static str);

/// What every session depends on, that of the log included.
const ALL: &[Setting] = &[
    // Ours have limits of their own, which begin where the work begins.
    ("lock_timeout", "0"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("client_min_messages", "notice"),
    // How values are written as text.
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    // How our statements are read, and what they answer.
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("quote_all_identifiers", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // Compiling a statement takes longer than any of ours.
    ("jit", "off"),
];

/// Our statements name the schema of everything that is not of Postgres itself.
const SEARCH_PATH: Setting = ("search_path", "pg_catalog, pg_temp");
/// Rows that a policy hides are an error (42501) and not an answer with rows left out.
const NO_ROW_HIDDEN: Setting = ("row_security", "off");
const POLICIES_APPLY: Setting = ("row_security", "on");
const MAY_WRITE: Setting = ("default_transaction_read_only", "off");
const READS_ONLY: Setting = ("default_transaction_read_only", "on");

/// The publication may be made, and statements have no limit: each look at the slot is a small one.
const MONITOR: &[Setting] = &[SEARCH_PATH, NO_ROW_HIDDEN, MAY_WRITE];

const WATERMARK_SETTINGS: &[Setting] = &[
    SEARCH_PATH,
    NO_ROW_HIDDEN,
    // It closes times.
    MAY_WRITE,
    ("statement_timeout", "5s"),
];

/// Plans may only follow the index of the page's order: a plan that sorts a large table, made on stale
/// statistics, would cost every page the whole table.
const PAGES: &[Setting] = &[
    SEARCH_PATH,
    NO_ROW_HIDDEN,
    READS_ONLY,
    ("statement_timeout", "60s"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_incremental_sort", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// As [`PAGES`], but for what finds the rows of patients: their index yields a bitmap, whose rows are sorted.
const PATIENT_PAGES: &[Setting] = &[("enable_bitmapscan", "on"), ("enable_sort", "on")];

/// A question that nobody answers does not keep the others from being asked.
const CHECK: &[Setting] =
    &[SEARCH_PATH, NO_ROW_HIDDEN, READS_ONLY, ("statement_timeout", "10s"), ("lock_timeout", "2s")];

/// Whoever writes is bound by the policies of the tables. Bulk loading is asked for in each transaction.
const WRITER: &[Setting] = &[SEARCH_PATH, POLICIES_APPLY, MAY_WRITE, ("fhir.bulk_load", "off")];

const OTHER: &[Setting] = &[MAY_WRITE];

/// The session of the log. What it waits for is bounded by TCP and by the sessions beside it.
const REPLICATION: &[Setting] = &[
    SEARCH_PATH,
    NO_ROW_HIDDEN,
    MAY_WRITE,
    // We give a sign of life every ten seconds.
    ("wal_sender_timeout", "60s"),
    ("client_encoding", "UTF8"),
];

/// By this the server shows that it was the one who read our startup message: see [`super::pooler`].
pub(super) const MARKER: &str = "fhir_tail.session";

impl Session {
    /// Whether its work cannot be done on a standby, where most statements would fail with words that do not say why.
    pub(super) const fn needs_primary(self) -> bool {
        // `check` has a word of its own for it.
        !matches!(self, Self::Check | Self::Other(_))
    }

    /// What it is called in `pg_stat_activity`.
    pub(crate) const fn application_name(self) -> &'static str {
        match self {
            Self::Monitor => "fhir-tail",
            Self::Watermark => "fhir-tail watermark",
            Self::Pages | Self::PatientPages => "fhir-tail pages",
            Self::Check => "fhir-tail check",
            Self::Migrate => "fhir-tail migrate",
            Self::Load => "fhir-tail load",
            Self::Simulate => "fhir-tail simulate",
            Self::Other(name) => name,
        }
    }

    /// Whether it reads rows or names as the database has them. The others would rather have them converted, or write.
    pub(super) const fn reads_as_stored(self) -> bool {
        matches!(self, Self::Pages | Self::PatientPages | Self::Watermark)
    }

    /// What it states. Of a name that stands twice the last one counts.
    fn settings(self) -> impl Iterator<Item = Setting> {
        let own = match self {
            Self::Monitor => MONITOR,
            Self::Watermark => WATERMARK_SETTINGS,
            Self::Pages | Self::PatientPages => PAGES,
            Self::Check => CHECK,
            Self::Migrate | Self::Load | Self::Simulate => WRITER,
            Self::Other(_) => OTHER,
        };
        let more = match self {
            Self::PatientPages => PATIENT_PAGES,
            _ => &[],
        };
        ALL.iter().chain(own).chain(more).copied().chain([(MARKER, "on")])
    }

    /// The same as options of the startup message, behind those of the operator.
    pub(super) fn options(self, operator: Option<&str>) -> String {
        let mut options = operator.unwrap_or_default().to_owned();
        for (name, value) in self.settings() {
            if !options.is_empty() {
                options.push(' ');
            }
            options.push_str("-c ");
            options.push_str(name);
            options.push('=');
            // Blanks separate options unless a backslash precedes them.
            options.push_str(&value.replace(' ', "\\ "));
        }
        options
    }
}

impl From<&'static str> for Session {
    fn from(application_name: &'static str) -> Self {
        Self::Other(application_name)
    }
}

/// What the session of the log states, as parameters of its startup message: they count for more than the
/// operator's options.
pub(crate) fn replication() -> impl Iterator<Item = Setting> {
    ALL.iter().chain(REPLICATION).copied()
}

/// What can only be stated once the server's version and encoding are known; `None`: nothing. `as_stored`: texts are to
/// come as the bytes that the database has, as nothing else is sure to succeed.
pub(crate) fn after_login(version: Option<&str>, encoding: Option<&str>, as_stored: bool) -> Option<String> {
    let mut statements: Vec<Cow<'_, str>> = Vec::new();
    // The others refuse the name.
    if version.and_then(major).is_some_and(|major| major >= 17) {
        statements.push("set transaction_timeout = 0".into());
    }
    match encoding {
        // Nothing can be converted there, and the server refuses to send what is not UTF-8: we judge it.
        Some(SQL_ASCII) => statements.push(format!("set client_encoding = '{SQL_ASCII}'").into()),
        Some(name) if as_stored && name != UTF8 && name.bytes().all(is_of_a_name) => {
            statements.push(format!("set client_encoding = '{name}'").into());
        }
        _ => {}
    }
    (!statements.is_empty()).then(|| statements.join("; "))
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// 15 of `15.18 (Debian …)`, 19 of `19devel`.
fn major(version: &str) -> Option<u32> {
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_settings_follow_the_operators_and_blanks_are_escaped() {
        let options = Session::Check.options(Some("-c geqo=off"));
        assert!(options.starts_with("-c geqo=off -c lock_timeout=0 "), "{options}");
        assert!(options.contains(r" -c datestyle=ISO,\ YMD "), "{options}");
        // The last one counts.
        assert!(options.find("lock_timeout=0").unwrap() < options.find("lock_timeout=2s").unwrap());
        assert!(!Session::from("x").options(None).contains("search_path"));
    }

    #[test]
    fn what_reads_for_replays_sees_every_row_or_none() {
        for session in
            [Session::Monitor, Session::Watermark, Session::Pages, Session::PatientPages, Session::Check]
        {
            assert!(session.options(None).contains("row_security=off"), "{session:?}");
        }
        assert!(replication().any(|setting| setting == NO_ROW_HIDDEN));
    }

    #[test]
    fn what_depends_on_the_server_is_stated_after_the_login() {
        assert_eq!(after_login(Some("15.18 (Debian 15.18-1)"), Some("UTF8"), true), None);
        assert_eq!(after_login(Some("17.2"), Some("LATIN1"), false).unwrap(), "set transaction_timeout = 0");
        assert_eq!(
            after_login(Some("16.2"), Some("LATIN1"), true).unwrap(),
            "set client_encoding = 'LATIN1'"
        );
        assert_eq!(after_login(Some("18devel"), None, false).unwrap(), "set transaction_timeout = 0");
        let both = after_login(Some("18.0"), Some("SQL_ASCII"), false).unwrap();
        assert_eq!(both, "set transaction_timeout = 0; set client_encoding = 'SQL_ASCII'");
        assert_eq!(after_login(None, None, true), None);
        assert_eq!(after_login(None, Some("x'y"), true), None);
    }
}
