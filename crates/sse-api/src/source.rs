//! A snapshot of the database's state. The crate that reads the database's log fills it in; metrics and
//! readiness show it.

use feed::Lsn;
use fhir::ResourceType;
use std::sync::Arc;

/// The state of the database. Unknown values are `None`, and are omitted instead of shown as 0.
#[derive(Clone, Debug, Default)]
pub struct SourceSnapshot {
    /// Whether the log is being read.
    pub connected: bool,
    /// What the connection does, in a sentence for operators, without passwords or content.
    pub detail: String,
    /// The facts that complete replays depend on.
    pub facts: Vec<Fact>,
    /// Why no replay can begin now, in a sentence for operators.
    pub obstacle: Option<String>,
    /// Bytes between the slot's position and the end of the log on the database's disk.
    pub slot_lag_bytes: Option<u64>,
    /// Bytes of log that the database keeps for the slot.
    pub wal_held_bytes: Option<u64>,
    /// Limit of `wal_held_bytes`, above which the slot is dropped.
    pub wal_limit_bytes: Option<u64>,
    /// How many seconds the service can be down, at the current rate of change, before its slot is dropped.
    pub service_may_be_away: Option<u64>,
    /// How many seconds a client can be disconnected, at the current rate of change, before the journal
    /// drops what it needs.
    pub client_may_be_away: Option<u64>,
    /// Problems that need an operator, in sentences without passwords or content.
    pub warnings: Vec<String>,
    /// The last LSN acknowledged to the database.
    pub acked_lsn: Option<Lsn>,
    /// The last LSN received.
    pub received_lsn: Option<Lsn>,
    /// Changes received, by type.
    pub received: Vec<(ResourceType, u64)>,
    /// Rows that could not be streamed.
    pub rows_skipped: u64,
    /// Observed backward steps of the database's clock.
    pub clock_steps: u64,
    /// Reconnects to the log.
    pub reconnects: u64,
    /// What holds the safe time back, in a sentence for operators.
    pub holding_back: Option<String>,
}

/// A fact that complete replays depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Its name.
    pub name: &'static str,
    /// Why it fails and how to fix it, in a sentence for operators.
    pub fails: Option<String>,
}

/// Returns the current snapshot. Called for each scrape, probe and new stream, so it must not block.
pub type SourceProbe = Arc<dyn Fn() -> SourceSnapshot + Send + Sync>;
