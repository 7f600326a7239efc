//! Waiting for something to become true: asked again and again, with a deadline that fails by name.

use anyhow::{Context, Result, bail};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Asks until the answer is `Some`, and gives up after `limit`, naming what was waited for.
pub async fn until<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await.with_context(|| format!("while waiting for {what}"))? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what}");
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Gives up on one future after `limit`, naming what was waited for.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(limit, future).await {
        Ok(answer) => answer.with_context(|| format!("while waiting for {what}")),
        Err(_) => bail!("waited {limit:?} for {what}"),
    }
}
