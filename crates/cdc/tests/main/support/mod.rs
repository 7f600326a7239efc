//! What the tests share: servers, a sink that remembers, and a layout of one table.

mod cluster;
mod follower;

pub(crate) use cluster::{Cluster, Stop, database, versions};
pub(crate) use follower::{Follower, Journal};

use std::future::Future;
use std::time::Duration;

/// Longer than anything here takes, even on a machine that does ten other things.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, asking).await.unwrap_or_else(|_| panic!("never came: {what}"))
}
