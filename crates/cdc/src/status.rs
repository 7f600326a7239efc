//! How the source of changes is doing, for health and metrics.

use crate::wal_rate::WalWritten;
use feed::{Lsn, Rate};
use pg::Retry;

/// How the source of changes is doing. Given out through a `tokio::sync::watch`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceStatus {
    /// Changes are coming in, or would if there were any.
    pub connected: bool,
    /// What it is doing, in a sentence for people: for `/health/ready`. Names no data.
    pub state: String,
    /// What has to be done before it can go on; `None` while it passes by itself.
    pub needs: Option<Retry>,
    /// Everything before this place has been received.
    pub received_lsn: Lsn,
    /// The server was told that everything before this place is safe.
    pub acked_lsn: Lsn,
    /// Bytes of log that are on the server's disk and not acknowledged; `None`: not known yet.
    pub slot_lag_bytes: Option<u64>,
    /// Bytes of log that the server keeps because of the slot.
    pub wal_held_bytes: Option<u64>,
    /// Beyond so many of them the slot is given up, by us or by the server.
    pub wal_limit_bytes: Option<u64>,
    /// How much log the database writes, of late.
    pub wal_rate: Option<Rate>,
    /// Where the log stood, for that.
    pub(crate) wal_written: WalWritten,
    /// What somebody should see to before the slot is given up, in sentences for people. Names no data.
    pub warnings: Vec<String>,
    /// How often the connection was made again, since the start.
    pub reconnects: u64,
}
