//! The truth: every version that was committed, in the order of the commits, as Postgres' own `test_decoding` tells it
//! from a slot of the test's, and what the tables hold.

use crate::{Key, micros};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::Client;

/// One committed change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which resource.
    pub key: Key,
    /// Its version.
    pub version: i64,
    /// Its stamp, microseconds since 1970.
    pub stamp: i64,
    /// Whether it leaves the resource or takes it away.
    pub deleted: bool,
    /// The member `n` of its content.
    pub n: Option<i64>,
}

/// All that was committed since the slot was made, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The changes.
    pub entries: Vec<Entry>,
    versions: HashMap<i64, usize>,
    deletions: HashMap<(Key, i64), usize>,
}

const SLOT: &str = "truth";

impl History {
    /// Begins to keep the truth. Nothing may have been written before.
    pub async fn begin(client: &Client) -> Result<()> {
        client.execute("select pg_create_logical_replication_slot($1, 'test_decoding')", &[&SLOT]).await?;
        Ok(())
    }

    /// All that was committed until now.
    pub async fn read(client: &Client) -> Result<Self> {
        // What was committed without waiting for the disk is seen, but decoded only once it is there: a commit that waits
        // takes it along.
        client.execute("select pg_logical_emit_message(true, 'test', '')", &[]).await?;
        let sql = "select data from pg_logical_slot_peek_changes($1, null, null, 'include-xids', '0')";
        let mut entries = Vec::new();
        for row in client.query(sql, &[&SLOT]).await? {
            let line: &str = row.try_get(0)?;
            if let Some(entry) =
                Entry::read(line).with_context(|| format!("test_decoding said: {line:.300}"))?
            {
                entries.push(entry);
            }
        }
        Self::new(entries)
    }

    /// From entries in commit order.
    pub fn new(entries: Vec<Entry>) -> Result<Self> {
        let mut history = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let first = if entry.deleted {
                history.deletions.insert((entry.key.clone(), entry.stamp), index)
            } else {
                history.versions.insert(entry.version, index)
            };
            ensure!(first.is_none(), "the history has this twice: {entry:?}");
        }
        history.entries = entries;
        Ok(history)
    }

    /// Where in the history a version is.
    pub fn version(&self, version: i64) -> Option<usize> {
        self.versions.get(&version).copied()
    }

    /// Where in the history a deletion is.
    pub fn deletion(&self, key: &Key, stamp: i64) -> Option<usize> {
        self.deletions.get(&(key.clone(), stamp)).copied()
    }
}

impl Entry {
    /// A line such as `table fhir.resource: INSERT: resource_type[text]:'Patient' id[text]:'1' …`. `D` on either table
    /// means nothing; `I` and `U` on the tombstones are the deletion.
    fn read(line: &str) -> Result<Option<Self>> {
        let Some(rest) = line.strip_prefix("table fhir.") else { return Ok(None) };
        let (table, rest) = rest.split_once(": ").context("no table")?;
        let (operation, mut rest) = rest.split_once(": ").context("no operation")?;
        let deleted = match table {
            "resource" => false,
            "tombstone" => true,
            _ => return Ok(None),
        };
        if !matches!(operation, "INSERT" | "UPDATE") {
            return Ok(None);
        }
        let mut old = "";
        if rest.starts_with("old-key: ") {
            (old, rest) = rest.split_once("new-tuple: ").context("no new-tuple")?;
        }
        let resource_type = quoted(&mut rest, "resource_type[text]:")?;
        let id = quoted(&mut rest, "id[text]:")?;
        let version = value(&mut rest, "version_id[bigint]:")?.parse()?;
        let stamp = micros(&quoted(&mut rest, "last_updated[timestamp with time zone]:")?)?;
        // Content is the last column; the tombstone's is that of the version before.
        // A large one that the statement left alone stands in the old row only.
        let content = if rest.contains("content[json]:unchanged-toast-datum") { old } else { rest };
        let n = (!deleted).then(|| {
            let digits = content.split_once("\"n\":")?.1;
            digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
        });
        Ok(Some(Self { key: Key { resource_type, id }, version, stamp, deleted, n: n.flatten() }))
    }
}

fn value<'a>(rest: &mut &'a str, name: &str) -> Result<&'a str> {
    let from = rest.strip_prefix(name).with_context(|| format!("{name} is not next"))?;
    let (value, after) = from.split_once(' ').unwrap_or((from, ""));
    *rest = after;
    Ok(value)
}

/// Without quotes inside: types, ids and stamps have none.
fn quoted(rest: &mut &str, name: &str) -> Result<String> {
    let from = rest.strip_prefix(name).and_then(|from| from.strip_prefix('\''));
    let (value, after) =
        from.and_then(|from| from.split_once('\'')).with_context(|| format!("{name} is not next"))?;
    let value = value.to_owned();
    *rest = after.trim_start();
    Ok(value)
}

/// What the tables hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Version and stamp of each resource.
    pub resources: BTreeMap<Key, (i64, i64)>,
    /// When each resource that is gone was deleted.
    pub tombstones: BTreeMap<Key, i64>,
}

impl Table {
    /// Reads them in one statement: one state.
    pub async fn read(client: &Client) -> Result<Self> {
        let sql = "select false, resource_type, id, version_id, \
                          (extract(epoch from last_updated) * 1000000)::bigint from fhir.resource \
                   union all \
                   select true, resource_type, id, version_id, \
                          (extract(epoch from last_updated) * 1000000)::bigint from fhir.tombstone t \
                   where not exists (select from fhir.resource r \
                                     where r.resource_type = t.resource_type and r.id = t.id)";
        let mut table = Self::default();
        for row in client.query(sql, &[]).await? {
            let key = Key { resource_type: row.try_get(1)?, id: row.try_get(2)? };
            if row.try_get(0)? {
                table.tombstones.insert(key, row.try_get(4)?);
            } else {
                table.resources.insert(key, (row.try_get(3)?, row.try_get(4)?));
            }
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_test_decoding_writes() {
        let tuple = "resource_type[text]:'Patient' id[text]:'a-1' version_id[bigint]:7 \
                     last_updated[timestamp with time zone]:'2026-11-22 21:00:00.12+00' \
                     content[json]:'{\"resourceType\":\"Patient\",\"n\":42,\"x\":\"it''s\"}'";
        let read = |line: String| Entry::read(&line).unwrap();
        let entry = read(format!("table fhir.resource: INSERT: {tuple}")).unwrap();
        let stamp = micros("2026-11-22T21:00:00.120Z").unwrap();
        let expected =
            Entry { key: Key::new("Patient", "a-1"), version: 7, stamp, deleted: false, n: Some(42) };
        assert_eq!(entry, expected);
        let update = read(format!("table fhir.resource: UPDATE: old-key: id[text]:'b' new-tuple: {tuple}"));
        assert_eq!(update.unwrap(), expected);
        let left_alone = tuple.split_once("content[json]:").unwrap().0;
        let update = format!(
            "table fhir.resource: UPDATE: old-key: {tuple} new-tuple: {left_alone}content[json]:unchanged-toast-datum"
        );
        assert_eq!(read(update).unwrap(), expected);
        let tombstone = read(format!("table fhir.tombstone: UPDATE: {tuple}")).unwrap();
        assert_eq!(tombstone, Entry { deleted: true, n: None, ..expected });
        assert_eq!(
            read("table fhir.resource: DELETE: resource_type[text]:'Patient' id[text]:'b'".into()),
            None
        );
        assert_eq!(read("BEGIN".into()), None);
        assert!(Entry::read("table fhir.resource: INSERT: id[text]:'a'").is_err());
    }
}
