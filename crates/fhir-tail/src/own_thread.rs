//! A task that has a thread of its own, with a runtime of its own.

use anyhow::Context as _;
use std::future::Future;
use tokio::runtime;
use tokio::sync::oneshot;

/// Runs a task where the others of the service cannot delay it, nor it them. When this is dropped, the task goes on until
/// the process ends.
pub(crate) async fn on_own_thread<F>(name: &'static str, task: F) -> anyhow::Result<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let (done, output) = oneshot::channel();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .with_context(|| format!("the runtime of thread {name} cannot be made"))?;
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            // Nobody waits any more when the service ends without it.
            let _ = done.send(runtime.block_on(task));
        })
        .with_context(|| format!("thread {name} cannot be started"))?;
    output.await.with_context(|| format!("thread {name} has panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_runs_on_its_own_thread_and_a_panic_is_an_error() {
        let name = on_own_thread("apart", async {
            tokio::task::yield_now().await;
            std::thread::current().name().map(str::to_owned)
        });
        assert_eq!(name.await.unwrap().as_deref(), Some("apart"));
        let error = on_own_thread("broken", async { assert!(std::env::args().count() == 0, "on purpose") });
        assert_eq!(error.await.unwrap_err().to_string(), "thread broken has panicked");
    }
}
