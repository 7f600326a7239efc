//! What the service knows of the database at a moment. Whoever reads the database's log fills it in;
//! metrics and readiness show it.

use feed::Lsn;
use fhir::ResourceType;
use std::sync::Arc;

/// The database at a moment. What is not known is `None` and is not shown, rather than shown as 0.
#[derive(Clone, Debug, Default)]
pub struct SourceSnapshot {
    /// The log is being read.
    pub connected: bool,
    /// What the connection is doing, in a sentence for people: no password, no content.
    pub detail: String,
    /// The facts on which a complete replay depends.
    pub facts: Vec<Fact>,
    /// Why no replay can begin now, in a sentence for people.
    pub obstacle: Option<String>,
    /// How far our slot is behind what the database has on its disk.
    pub slot_lag_bytes: Option<u64>,
    /// How much log the database keeps for our slot.
    pub wal_held_bytes: Option<u64>,
    /// Beyond how much of it the slot is given up.
    pub wal_limit_bytes: Option<u64>,
    /// For how many seconds the service may be away, at today's rate, before its slot is given up.
    pub service_may_be_away: Option<u64>,
    /// For how many seconds a client may be away, at today's rate, before the journal has dropped what it needs.
    pub client_may_be_away: Option<u64>,
    /// What somebody should see to, in sentences for people: no password, no content.
    pub warnings: Vec<String>,
    /// The last place that was acknowledged to the database.
    pub acked_lsn: Option<Lsn>,
    /// The last place that was received.
    pub received_lsn: Option<Lsn>,
    /// Changes received, by type.
    pub received: Vec<(ResourceType, u64)>,
    /// Rows that could not be streamed.
    pub rows_skipped: u64,
    /// How often the database's clock was seen to step back.
    pub clock_steps: u64,
    /// How often the connection was made again.
    pub reconnects: u64,
    /// Who keeps replays from beginning, in a sentence for people.
    pub holding_back: Option<String>,
}

/// A fact on which a complete replay depends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// What it is called.
    pub name: &'static str,
    /// Why it fails and what mends it, in a sentence for people.
    pub fails: Option<String>,
}

/// Gives the snapshot of this moment. Called for each scrape, each probe and each new stream, so it must
/// not wait.
pub type SourceProbe = Arc<dyn Fn() -> SourceSnapshot + Send + Sync>;
