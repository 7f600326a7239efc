//! Runs of the checker, and what is to be told of them.

use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// States generated, those that were met before included.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// Violated properties, with the steps that lead there.
    pub violated: BTreeMap<&'static str, Vec<String>>,
    /// Situations that were never met.
    pub missed: Vec<&'static str>,
    /// Whether every state was visited.
    pub complete: bool,
}

/// Visits every state there is. Nothing cuts it short but a violation.
pub fn check<M>(model: M, threads: usize) -> Outcome
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    run(model, threads, None)
}

/// Looks for a violation, and for the shortest way to it.
pub fn find<M>(model: M) -> Outcome
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let mut found = run(model.clone(), 1, None);
    // What is reported is the last that was met before the search ended, which may be a little deeper than the first.
    while let Some(length) = found.violated.values().map(Vec::len).min() {
        let shorter = run(model.clone(), 1, Some(length));
        if shorter.violated.is_empty() {
            break;
        }
        found.violated = shorter.violated;
    }
    found
}

fn run<M>(model: M, threads: usize, below: Option<usize>) -> Outcome
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    // How long a run takes is only shown.
    #[allow(clippy::disallowed_methods)]
    let begun = Instant::now();
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = match below {
        // The state that a way of n steps leads to is at depth n + 1.
        Some(steps) => checker.target_max_depth(steps + 1),
        None => checker,
    };
    let checker = checker.spawn_bfs().join();
    let discoveries = checker.discoveries();
    let (mut violated, mut missed) = (BTreeMap::new(), Vec::new());
    for property in checker.model().properties() {
        let found = discoveries.get(property.name);
        if property.expectation.discovery_is_failure() {
            if let Some(path) = found {
                let steps = path.clone().into_actions();
                violated.insert(property.name, steps.iter().map(|step| format!("{step:?}")).collect());
            }
        } else if found.is_none() {
            missed.push(property.name);
        }
    }
    Outcome {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        complete: below.is_none() && violated.is_empty() && checker.is_done(),
        violated,
        missed,
    }
}
