//! The tests' own tools, against a real Postgres: what the others are judged by must itself be right.

use anyhow::{Result, ensure};
use std::collections::HashMap;
use std::time::Duration;
use tests::{Case, Context, History, Key, Load, Site, Table, Writers, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![each the_history_leads_to_the_tables]
}

/// Writers at work, a crash of Postgres among it: the last that the history knows of each resource is what the tables hold.
async fn the_history_leads_to_the_tables(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    History::begin(&site.sql).await?;
    let load = Load { writers: 6, pause: Duration::from_millis(2), restarts: true };
    let writers = Writers::start(&site.cluster.config("postgres"), 1, &load);
    writers.reach(300).await?;
    site.cluster.stop_immediate().await?;
    site.cluster.start_again().await?;
    writers.reach(600).await?;
    writers.stop().await?;
    site.sql = site.cluster.connect().await?;
    let history = History::read(&site.sql).await?;
    let table = Table::read(&site.sql).await?;
    let last: HashMap<&Key, _> = history.entries.iter().map(|entry| (&entry.key, entry)).collect();
    let keys = (last.len(), table.resources.len(), table.tombstones.len());
    ensure!(keys.0 == keys.1 + keys.2, "history, resources and tombstones have so many keys: {keys:?}");
    for (key, entry) in last {
        match table.resources.get(key) {
            Some(now) => {
                ensure!(!entry.deleted && *now == (entry.version, entry.stamp), "{now:?}, {entry:?}");
            }
            None => {
                let gone = table.tombstones.get(key);
                ensure!(entry.deleted && gone == Some(&entry.stamp), "{gone:?}, {entry:?}");
            }
        }
    }
    ensure!(history.entries.len() > 600, "only {} changes", history.entries.len());
    ensure!(!table.tombstones.is_empty(), "nothing was deleted");
    Ok(())
}
