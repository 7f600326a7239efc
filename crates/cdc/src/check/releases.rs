//! Minor releases with bugs in logical decoding that can cost us changes or bring the stream to a halt.
//!
//! From the release notes, <https://www.postgresql.org/docs/release/>, and only what we could meet: one slot, `pgoutput`,
//! whole transactions, ordinary tables. A bug that fails loudly and passes with the next attempt is not here.

/// A bug.
struct Bug {
    /// What it does, after "PostgreSQL 15.1 ".
    does: &'static str,
    /// The releases that brought it, by major version; a major that is not named had it from its beginning.
    since: &'static [(i32, i32)],
    /// The releases that have it no more. A major that is not named never had it.
    fixed: &'static [(i32, i32)],
}

const BUGS: [Bug; 5] = [
    // 14.13, 15.8, 16.4: "Prevent incorrect initialization of logical replication slots".
    Bug {
        does: "may begin a new slot within a transaction, whose first changes are then missing",
        since: &[],
        fixed: &[(14, 13), (15, 8), (16, 4)],
    },
    // 14.15, 15.10, 16.6, 17.2: "Fix cases where a logical replication slot's restart_lsn could go backwards".
    Bug {
        does: "may remove log that a slot still needs after a restart",
        since: &[],
        fixed: &[(14, 15), (15, 10), (16, 6), (17, 2)],
    },
    // 14.18, 15.13, 16.9, 17.5: "Avoid data loss when DDL operations that don't take a strong lock affect tables that
    // are being logically replicated". ALTER PUBLICATION is one of them.
    Bug {
        does: "may lose changes of transactions that are open while the publication is altered",
        since: &[],
        fixed: &[(14, 18), (15, 13), (16, 9), (17, 5)],
    },
    // 14.19, 15.14, 16.10, 17.6: "Avoid re-distributing cache invalidation messages from other transactions".
    Bug {
        does: "may run out of memory when tables are altered while transactions are open",
        since: &[(14, 18), (15, 13), (16, 9), (17, 5)],
        fixed: &[(14, 19), (15, 14), (16, 10), (17, 6)],
    },
    // The same releases: "Avoid infinite wait in logical decoding when reading a partially-written WAL record".
    Bug {
        does: "may stop decoding after a crash until something else is written",
        since: &[],
        fixed: &[(14, 19), (15, 14), (16, 10), (17, 6)],
    },
];

/// What this release does wrong, and which one does not; `None` if nothing is known.
pub(super) fn bugs(major: i32, minor: i32) -> Option<String> {
    let of = |list: &[(i32, i32)]| list.iter().find(|(of, _)| *of == major).map(|(_, minor)| *minor);
    let met: Vec<(&str, i32)> = BUGS
        .iter()
        .filter(|bug| of(bug.since).is_none_or(|since| minor >= since))
        .filter_map(|bug| of(bug.fixed).filter(|fixed| minor < *fixed).map(|fixed| (bug.does, fixed)))
        .collect();
    let best = met.iter().map(|(_, fixed)| *fixed).max()?;
    let does: Vec<&str> = met.iter().map(|(does, _)| *does).collect();
    Some(format!("{}: update the server to {major}.{best} or later", does.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_charged_with_what_it_does_and_no_more() {
        let count = |major, minor| bugs(major, minor).map_or(0, |text| text.matches("may ").count());
        for (major, minor, expected) in [
            (14, 0, 4),
            (15, 7, 4),
            (15, 8, 3),
            (15, 12, 2),
            // It brought one in place of the one that it mended.
            (15, 13, 2),
            (15, 14, 0),
            (17, 0, 3),
            (17, 6, 0),
            (18, 0, 0),
        ] {
            assert_eq!(count(major, minor), expected, "{major}.{minor}: {:?}", bugs(major, minor));
        }
        assert!(bugs(16, 3).unwrap().ends_with("update the server to 16.10 or later"));
    }
}
