//! The judge: compares what one subscriber heard, over all its connections, with what was committed and with what the
//! tables hold in the end.
//!
//! It knows no more of the service than its contract says: what was stamped after `transactionTime` comes once, whole and
//! in the order of the commits; what was stamped before comes in its newest version; nothing comes twice, no resource goes
//! back to an earlier version.

use crate::{Entry, Heard, History, Key, Table, What, micros};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{HashMap, HashSet};

#[cfg(test)]
mod tests;

/// What a subscriber should have heard.
#[derive(Clone, Copy, Debug)]
pub struct Expect<'a> {
    /// What was committed.
    pub history: &'a History,
    /// What the tables hold, after the last commit.
    pub table: &'a Table,
    /// The types that were asked for; none: all.
    pub types: &'a [&'a str],
    /// `_since`, microseconds since 1970.
    pub since: Option<i64>,
    /// Whether a `reset` is in order (the service lost its journal, say).
    pub resets: bool,
}

/// Judges a subscriber that has heard everything up to the last commit.
pub fn check(heard: &[Heard], expect: Expect<'_>) -> Result<()> {
    let mut placed = Vec::with_capacity(heard.len());
    for (at, heard) in heard.iter().enumerate() {
        let describe = || format!("event {at}: {heard:?}");
        ensure!(
            (1..256).contains(&heard.event_id.len()),
            "an id of {} bytes: {}",
            heard.event_id.len(),
            describe()
        );
        placed.push(place(&heard.what, expect.history).with_context(describe)?);
    }
    let w = transaction_time(heard)?;
    filtered(heard, &placed, w, expect)?;
    rising(heard, &placed, expect)?;
    in_commit_order_when_live(heard, &placed)?;
    whole_after_transaction_time(heard, &placed, w, expect)?;
    ends_as_the_table(&placed, expect)
}

/// A change's place in the history; a notice has none.
type Placed<'a> = Option<(usize, &'a Entry)>;

fn place<'a>(what: &What, history: &'a History) -> Result<Placed<'a>> {
    let at = match what {
        What::Notice { .. } => return Ok(None),
        What::Resource { version, .. } => history.version(*version),
        What::Deletion { key, stamp } => history.deletion(key, *stamp),
    };
    let at = at.context("this was never committed")?;
    let entry = &history.entries[at];
    let same = match what {
        What::Resource { key, stamp, n, .. } => *key == entry.key && *stamp == entry.stamp && *n == entry.n,
        What::Deletion { .. } | What::Notice { .. } => true,
    };
    ensure!(same, "what was committed is {entry:?}");
    Ok(Some((at, entry)))
}

impl Expect<'_> {
    fn wants_type(&self, key: &Key) -> bool {
        self.types.is_empty() || self.types.contains(&key.resource_type.as_str())
    }

    fn wants(&self, key: &Key, stamp: i64) -> bool {
        self.wants_type(key) && self.since.is_none_or(|since| stamp > since)
    }
}

/// Nothing that was not asked for. (A `_since` beyond transactionTime: what commits from then on comes too, though it was
/// stamped before. And `reset-all` is followed by everything.)
fn filtered(heard: &[Heard], placed: &[Placed<'_>], w: i64, expect: Expect<'_>) -> Result<()> {
    let everything = expect.resets && heard.iter().any(|heard| heard.what.code() == Some("reset-all"));
    let since = expect.since.filter(|_| !everything).map(|since| since.min(w));
    for (_, entry) in placed.iter().flatten() {
        let asked = expect.wants_type(&entry.key) && since.is_none_or(|since| entry.stamp > since);
        ensure!(asked, "this was not asked for: {entry:?}");
    }
    Ok(())
}

/// Of each resource, later versions only; the same once more only after a reset.
fn rising(heard: &[Heard], placed: &[Placed<'_>], expect: Expect<'_>) -> Result<()> {
    let mut newest: HashMap<&Key, (usize, u32)> = HashMap::new();
    let mut resets = 0;
    for (at, (heard, placed)) in heard.iter().zip(placed).enumerate() {
        if let Some("reset" | "reset-all") = heard.what.code() {
            ensure!(expect.resets, "event {at} is a reset, and there was no reason for it: {heard:?}");
            resets += 1;
        }
        let Some((index, entry)) = placed else { continue };
        if let Some((before, then)) = newest.insert(&entry.key, (*index, resets)) {
            let fine = if then == resets { before < *index } else { before <= *index };
            ensure!(
                fine,
                "event {at} in connection {} takes {} from entry {before} of the history to entry {index} ({}): {heard:?}",
                heard.connection,
                entry.key,
                if before == *index { "twice" } else { "backwards" },
            );
        }
    }
    Ok(())
}

/// What comes after the (last) replay comes in the order of the commits, whatever its stamps.
fn in_commit_order_when_live(heard: &[Heard], placed: &[Placed<'_>]) -> Result<()> {
    let from = last_replay(heard).1;
    let mut before = None;
    for (at, placed) in placed.iter().enumerate().skip(from) {
        let Some((index, entry)) = placed else { continue };
        ensure!(before < Some(*index), "event {at} is entry {index}, after entry {before:?}: {entry:?}");
        before = Some(*index);
    }
    Ok(())
}

/// Where the last replay begins, and where it ends: with the first `live` after the last reset.
fn last_replay(heard: &[Heard]) -> (usize, usize) {
    let is = |heard: &Heard, codes: &[&str]| heard.what.code().is_some_and(|code| codes.contains(&code));
    let begin = heard.iter().rposition(|heard| is(heard, &["reset", "reset-all"])).unwrap_or(0);
    let end = heard.iter().skip(begin).position(|heard| is(heard, &["live"]));
    (begin, end.map_or(heard.len(), |end| begin + end))
}

/// The safe time of the last replay.
fn transaction_time(heard: &[Heard]) -> Result<i64> {
    let (_, live) = last_replay(heard);
    let Some(What::Notice { transaction_time, .. }) = heard.get(live).map(|heard| &heard.what) else {
        bail!("it was never live");
    };
    micros(transaction_time.as_deref().context("live without a transactionTime")?)
}

/// Everything stamped after the replay's transactionTime, once and in the order of the commits.
fn whole_after_transaction_time(
    heard: &[Heard],
    placed: &[Placed<'_>],
    w: i64,
    expect: Expect<'_>,
) -> Result<()> {
    // The replay that ended with `live` may have begun in an earlier connection, and nothing after the safe time came before it.
    let (begin, _) = last_replay(heard);
    let w = expect.since.map_or(w, |since| since.max(w));
    let changes = placed[begin..].iter().flatten();
    let got: Vec<usize> = changes.filter(|(_, entry)| entry.stamp > w).map(|(index, _)| *index).collect();
    let entries = expect.history.entries.iter().enumerate();
    let wanted: Vec<usize> = entries
        .filter(|(_, entry)| entry.stamp > w && expect.wants(&entry.key, entry.stamp))
        .map(|(index, _)| index)
        .collect();
    if got == wanted {
        return Ok(());
    }
    let at = got.iter().zip(&wanted).take_while(|(got, wanted)| got == wanted).count();
    let entry = |index: Option<&usize>| index.map(|&index| (index, &expect.history.entries[index]));
    let heard: HashSet<usize> = got.iter().copied().collect();
    let missing: Vec<usize> = wanted.iter().copied().filter(|index| !heard.contains(index)).collect();
    bail!(
        "after transactionTime {w} it heard {} of {} changes; the {at}th was {:?} instead of {:?}; missing {}, the first: {:?}",
        got.len(),
        wanted.len(),
        entry(got.get(at)),
        entry(wanted.get(at)),
        missing.len(),
        entry(missing.first()),
    )
}

fn ends_as_the_table(placed: &[Placed<'_>], expect: Expect<'_>) -> Result<()> {
    let mut state: HashMap<&Key, &Entry> = HashMap::new();
    for (_, entry) in placed.iter().flatten() {
        state.insert(&entry.key, entry);
    }
    let table = expect.table;
    for (key, entry) in &state {
        let same = match table.resources.get(key) {
            Some((version, _)) => !entry.deleted && entry.version == *version,
            None => entry.deleted,
        };
        let now = table.resources.get(key);
        ensure!(same, "of {key} the table has {now:?}, and the last that was heard is {entry:?}");
    }
    for (key, (version, stamp)) in &table.resources {
        ensure!(
            !expect.wants(key, *stamp) || state.contains_key(key),
            "{key} {version}, {stamp}, is missing"
        );
    }
    // Without `_since` nobody has to be told of what was deleted before.
    for (key, stamp) in table.tombstones.iter().filter(|_| expect.since.is_some()) {
        let known = !expect.wants(key, *stamp) || state.contains_key(key);
        ensure!(known, "it does not know that {key} was deleted at {stamp}");
    }
    Ok(())
}
