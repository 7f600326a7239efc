//! Every state of every scenario is visited, and every seeded mistake is found.
//!
//! `cargo test -p model -- --nocapture` shows the tables.

// A test may stop at the first surprise, and the tables are its output.
#![allow(clippy::panic, clippy::print_stdout)]

use model::{Bug, Outcome, check, delivery, facts, find, history, membership, restore};
use std::fmt::Write as _;

/// One line for each scenario; fails when one is violated or shows nothing.
fn table(title: &str, outcomes: impl Iterator<Item = (&'static str, Outcome)>) {
    let mut table =
        format!("\n{title:52} {:>10} {:>10} {:>6} {:>8}\n", "states", "unique", "depth", "seconds");
    let mut failures = String::new();
    for (name, outcome) in outcomes {
        let Outcome { states, unique, depth, took, violated, missed, complete } = outcome;
        let _ = writeln!(table, "{name:52} {states:>10} {unique:>10} {depth:>6} {:>8.1}", took.as_secs_f64());
        for (property, steps) in violated {
            let _ = writeln!(failures, "{name}: not '{property}' after\n    {}", steps.join("\n    "));
        }
        for situation in missed {
            let _ = writeln!(failures, "{name}: never met '{situation}', so it shows nothing of it");
        }
        if !complete {
            let _ = writeln!(failures, "{name}: not every state was visited");
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{failures}");
}

/// One line for each mistake; fails when one is not found, or violates something else than it should.
fn mistakes(title: &str, found: impl Iterator<Item = (Option<Bug>, &'static str, Outcome)>) {
    let mut table = format!("\n{title:30} {:>8} {:>10}  violates\n", "steps", "unique");
    let mut failures = String::new();
    for (bug, expected, outcome) in found {
        let name = bug.map(|bug| format!("{bug:?}")).unwrap_or_default();
        let steps = outcome.violated.get(expected).map(Vec::len);
        let violated: Vec<_> = outcome.violated.keys().copied().collect();
        let length = steps.map_or_else(|| "-".into(), |steps| steps.to_string());
        let _ = writeln!(table, "{name:30} {length:>8} {:>10}  {}", outcome.unique, violated.join(", "));
        if steps.is_none() {
            let _ = writeln!(failures, "{name}: '{expected}' was not violated, but {violated:?}");
        }
        if std::env::var_os("MODEL_TRACES").is_some() {
            for steps in outcome.violated.values() {
                let _ = writeln!(table, "    {}", steps.join("\n    "));
            }
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{failures}");
}

/// Checkers have threads of their own; the two tables together are to keep two cores busy.
const THREADS: usize = 1;

#[test]
fn every_history_is_told_exactly() {
    let scenarios = history::scenarios::all().into_iter();
    table("history", scenarios.map(|scenario| (scenario.name, check(scenario, THREADS))));
}

#[test]
fn every_delivery_is_exact() {
    let scenarios = delivery::scenarios::all().into_iter();
    table("delivery", scenarios.map(|scenario| (scenario.name, check(scenario, THREADS))));
}

#[test]
fn every_mistake_in_a_history_is_found() {
    let scenarios = history::scenarios::mistakes().into_iter();
    mistakes("mistake", scenarios.map(|(expected, scenario)| (scenario.bug, expected, find(scenario))));
}

#[test]
fn every_mistake_in_a_delivery_is_found() {
    let scenarios = delivery::scenarios::mistakes().into_iter();
    mistakes("mistake", scenarios.map(|(expected, scenario)| (scenario.bug, expected, find(scenario))));
}

#[test]
fn every_stream_of_a_group_is_exact() {
    let scenarios = membership::scenarios::all().into_iter();
    table("membership", scenarios.map(|scenario| (scenario.name, check(scenario, THREADS))));
}

#[test]
fn every_mistake_in_a_membership_is_found() {
    let scenarios = membership::scenarios::mistakes().into_iter();
    mistakes("mistake", scenarios.map(|(expected, scenario)| (scenario.bug, expected, find(scenario))));
}

#[test]
fn every_restore_is_told() {
    let scenarios = restore::scenarios::all().into_iter();
    table("restore", scenarios.map(|scenario| (scenario.name, check(scenario, THREADS))));
}

#[test]
fn every_mistake_about_a_restore_is_found() {
    let scenarios = restore::scenarios::mistakes().into_iter();
    mistakes("mistake", scenarios.map(|(expected, scenario)| (scenario.bug, expected, find(scenario))));
}

#[test]
fn every_failing_fact_is_told() {
    let scenarios = facts::scenarios::all().into_iter();
    table("facts", scenarios.map(|scenario| (scenario.name, check(scenario, THREADS))));
}

#[test]
fn every_mistake_about_a_fact_is_found() {
    let scenarios = facts::scenarios::mistakes().into_iter();
    mistakes("mistake", scenarios.map(|(expected, scenario)| (scenario.bug, expected, find(scenario))));
}
