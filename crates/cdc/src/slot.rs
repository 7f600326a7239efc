//! The replication slot: its name, and how it stands.

use feed::Lsn;
use std::fmt;
use std::str::FromStr;
use tokio_postgres::Client;

/// The name of a replication slot, as the server allows it: one to 63 of `a-z`, `0-9` and `_`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SlotName(String);

/// The text is not the name of a slot.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' cannot name a replication slot: use 1 to 63 lower-case letters, digits and underscores")]
pub struct InvalidSlotName(String);

impl SlotName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = InvalidSlotName;

    fn from_str(text: &str) -> Result<Self, InvalidSlotName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSlotName(text.to_owned()))
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A slot as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// The output plugin; `None` for a physical slot.
    pub(crate) plugin: Option<String>,
    /// The database that it belongs to.
    pub(crate) database: Option<String>,
    /// Up to where the server was told that all is safe: nothing before it is sent again.
    pub(crate) confirmed: Lsn,
    /// The server has thrown away what the slot needs.
    pub(crate) lost: bool,
    /// The server's process that serves whoever reads from it.
    pub(crate) reader: Option<i32>,
}

impl Slot {
    /// Whose it is, if it is not one that we can use for this database.
    pub(crate) fn other_owner(&self, dbname: &str) -> Option<String> {
        match (&self.plugin, &self.database) {
            (None, _) => Some("a physical standby".to_owned()),
            (Some(plugin), _) if plugin != "pgoutput" => Some(format!("the output plugin {plugin}")),
            (Some(_), Some(database)) if database != dbname => Some(format!("the database {database}")),
            _ => None,
        }
    }
}

/// How far the slot is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lag {
    /// Bytes of log that are on the server's disk and not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Bytes of log that the server keeps for the slot.
    pub(crate) held: u64,
}

/// How the slot stands; `None` if there is none.
pub(crate) async fn find(client: &Client, name: &SlotName) -> Result<Option<Slot>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select plugin::text, database::text, confirmed_flush_lsn::text, \
                    coalesce(wal_status = 'lost', false), active_pid \
             from pg_replication_slots where slot_name = $1::text",
            &[&name.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Slot {
        plugin: row.try_get(0)?,
        database: row.try_get(1)?,
        confirmed: lsn(row.try_get(2)?),
        lost: row.try_get(3)?,
        reader: row.try_get(4)?,
    }))
}

/// How far the slot is behind. Measured by the server's disk, not by what it has sent: what it sends
/// stands still while a standby is away that the slot waits for.
pub(crate) async fn lag(client: &Client, name: &SlotName) -> Result<Lag, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "select greatest(pg_current_wal_flush_lsn() - confirmed_flush_lsn, 0)::int8, \
                    greatest(pg_current_wal_flush_lsn() - restart_lsn, 0)::int8 \
             from pg_replication_slots where slot_name = $1::text",
            &[&name.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(Lag::default()) };
    let bytes = |value: Option<i64>| value.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
    Ok(Lag { unacknowledged: bytes(row.try_get(0)?), held: bytes(row.try_get(1)?) })
}

/// The log that the server keeps for a slot at most (`max_slot_wal_keep_size`); `None`: all that it needs.
pub(crate) async fn keep_size(client: &Client) -> Result<Option<u64>, tokio_postgres::Error> {
    let row = client
        .query_one("select setting::int8 from pg_settings where name = 'max_slot_wal_keep_size'", &[])
        .await?;
    // In megabytes; -1 is no limit.
    let megabytes = u64::try_from(row.try_get::<_, i64>(0)?).ok();
    Ok(megabytes.map(|megabytes| megabytes.saturating_mul(1 << 20)))
}

/// Whether the server waits for standbys that keep copies of its slots (`synchronized_standby_slots`, from 17 on): then
/// ours is to be one of those.
pub(crate) async fn is_kept_by_standbys(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let sql = "select coalesce(current_setting('synchronized_standby_slots', true), '') <> ''";
    client.query_one(sql, &[]).await?.try_get(0)
}

/// An LSN that the server wrote as text.
pub(crate) fn lsn(text: Option<&str>) -> Lsn {
    text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_server_allows() {
        let longest = "a".repeat(63);
        for good in ["fhir_tail", "0", &longest] {
            assert_eq!(good.parse::<SlotName>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "Fhir", "a-b", "é", "a b", &too_long] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad}");
        }
    }
}
