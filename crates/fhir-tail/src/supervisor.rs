//! The tasks of the service, and the order in which they end.
//!
//! Each task belongs to a stage. A stage is told to stop by its token and has a time in which to do so;
//! only then comes the next one, since a later stage is what an earlier one stands on. A task that ends
//! before it was told to is a failure, which ends all of them, in the same order.

use anyhow::{Context as _, anyhow};
use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

type Joined = Result<(Id, anyhow::Result<()>), JoinError>;

struct Stage {
    name: &'static str,
    within: Duration,
    stop: CancellationToken,
}

/// Owns every task of the service. Dropped, it aborts them.
#[derive(Default)]
pub(crate) struct Supervisor {
    tasks: JoinSet<anyhow::Result<()>>,
    /// The name of each task that runs, and its stage.
    running: HashMap<Id, (&'static str, usize)>,
    stages: Vec<Stage>,
    failure: Option<anyhow::Error>,
}

/// A stage of a [`Supervisor`].
#[derive(Clone, Copy)]
pub(crate) struct StageId(usize);

impl Supervisor {
    /// Adds a stage: it ends after those that were added before.
    pub(crate) fn stage(&mut self, name: &'static str, within: Duration) -> StageId {
        self.stages.push(Stage { name, within, stop: CancellationToken::new() });
        StageId(self.stages.len() - 1)
    }

    /// What tells a stage to stop.
    pub(crate) fn token(&self, stage: StageId) -> CancellationToken {
        self.stages[stage.0].stop.clone()
    }

    /// Starts a task of a stage.
    pub(crate) fn spawn(
        &mut self,
        stage: StageId,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.running.insert(id, (name, stage.0));
    }

    /// Runs until `signal` resolves or a task fails; then ends all stages, one after the other. A signal
    /// during that gives up on the rest.
    pub(crate) async fn run(mut self, mut signal: impl AsyncFnMut() -> &'static str) -> anyhow::Result<()> {
        while self.failure.is_none() {
            tokio::select! {
                signal = signal() => {
                    tracing::info!(signal, "stopping");
                    break;
                }
                Some(joined) = self.tasks.join_next_with_id() => self.note(joined),
            }
        }
        let hurried = tokio::select! {
            () = self.end_all() => None,
            signal = signal() => Some(signal),
        };
        if let Some(signal) = hurried {
            let names: Vec<_> = self.running.values().map(|(name, _)| *name).collect();
            return Err(anyhow!("{signal} again: stopped without waiting for {}", names.join(", ")));
        }
        self.failure.map_or(Ok(()), Err)
    }

    async fn end_all(&mut self) {
        for stage in 0..self.stages.len() {
            let Stage { name, within, ref stop } = self.stages[stage];
            stop.cancel();
            if tokio::time::timeout(within, self.ended(stage)).await.is_err() {
                let slow = self.of_stage(stage).map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                tracing::warn!(
                    stage = name,
                    tasks = slow,
                    "a stage of the shutdown takes too long: going on"
                );
            }
        }
    }

    /// Waits until no task of the stage is left.
    async fn ended(&mut self, stage: usize) {
        while self.of_stage(stage).next().is_some() {
            match self.tasks.join_next_with_id().await {
                Some(joined) => self.note(joined),
                None => return,
            }
        }
    }

    fn of_stage(&self, stage: usize) -> impl Iterator<Item = &(&'static str, usize)> {
        self.running.values().filter(move |(_, of)| *of == stage)
    }

    /// A task has ended: rightly, if its stage was told to stop and it reports no error.
    fn note(&mut self, joined: Joined) {
        let (id, result) = match joined {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let Some((name, stage)) = self.running.remove(&id) else { return };
        let stopping = self.stages[stage].stop.is_cancelled();
        let failure = match result {
            Ok(()) if stopping => return,
            Ok(()) => anyhow!("{name} ended by itself"),
            Err(error) => error,
        };
        tracing::error!(task = name, error = format!("{failure:#}"), "a task of the service failed");
        // What fails later is mostly a consequence.
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }
}

/// What a blocking function returns, run where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("a blocking task failed")?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::sync::{Arc, Mutex};

    /// A signal that never comes.
    async fn never() -> &'static str {
        pending().await
    }

    /// A signal that comes at once, and then this many times again.
    fn now_and_again(mut again: usize) -> impl AsyncFnMut() -> &'static str {
        let mut first = true;
        async move || {
            if !std::mem::take(&mut first) {
                match again.checked_sub(1) {
                    Some(left) => again = left,
                    None => pending().await,
                }
            }
            "SIGTEST"
        }
    }

    const LONG: Duration = Duration::from_secs(5);

    type Record = Arc<Mutex<Vec<&'static str>>>;

    /// A task that writes down when it ends, some time after it was told to.
    async fn task(
        name: &'static str,
        stop: CancellationToken,
        takes: Duration,
        record: Record,
    ) -> anyhow::Result<()> {
        stop.cancelled().await;
        tokio::time::sleep(takes).await;
        record.lock().unwrap().push(name);
        Ok(())
    }

    fn three_stages(record: &Record) -> Supervisor {
        let mut supervisor = Supervisor::default();
        for (stage, takes) in [("first", 3), ("second", 2), ("third", 0)] {
            let id = supervisor.stage(stage, LONG);
            let token = supervisor.token(id);
            let record = Arc::clone(record);
            supervisor.spawn(id, stage, task(stage, token, Duration::from_secs(takes), record));
        }
        supervisor
    }

    #[tokio::test(start_paused = true)]
    async fn stages_end_in_their_order() {
        let record = Record::default();
        three_stages(&record).run(now_and_again(0)).await.unwrap();
        assert_eq!(*record.lock().unwrap(), ["first", "second", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_ends_the_others_in_order_and_is_told() {
        let record = Record::default();
        let mut supervisor = three_stages(&record);
        let second = StageId(1);
        supervisor.spawn(second, "broken", async { Err(anyhow!("it broke")) });
        let error = supervisor.run(never).await.unwrap_err();
        assert_eq!(error.to_string(), "it broke");
        assert_eq!(*record.lock().unwrap(), ["first", "second", "third"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_too_early_and_one_that_panics_are_failures() {
        let mut supervisor = Supervisor::default();
        let stage = supervisor.stage("only", LONG);
        supervisor.spawn(stage, "the reader", async { Ok(()) });
        let error = supervisor.run(never).await.unwrap_err();
        assert_eq!(error.to_string(), "the reader ended by itself");

        let mut supervisor = Supervisor::default();
        let stage = supervisor.stage("only", LONG);
        supervisor.spawn(stage, "the reader", async { panic!("a test panics") });
        let error = supervisor.run(never).await.unwrap_err();
        assert!(error.to_string().contains("panic"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_takes_too_long_is_not_waited_for() {
        let record = Record::default();
        let mut supervisor = Supervisor::default();
        let first = supervisor.stage("first", LONG);
        supervisor.spawn(first, "deaf", pending());
        let second = supervisor.stage("second", LONG);
        let token = supervisor.token(second);
        supervisor.spawn(second, "second", task("second", token, Duration::ZERO, Arc::clone(&record)));
        supervisor.run(now_and_again(0)).await.unwrap();
        assert_eq!(*record.lock().unwrap(), ["second"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hurries_does_not_wait() {
        let mut supervisor = Supervisor::default();
        let first = supervisor.stage("first", LONG);
        supervisor.spawn(first, "deaf", pending());
        let error = supervisor.run(now_and_again(1)).await.unwrap_err();
        assert_eq!(error.to_string(), "SIGTEST again: stopped without waiting for deaf");
    }
}
