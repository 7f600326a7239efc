//! From COMMIT to client: what was sent when, and who had it when.

use crate::statistics::percentile;
use anyhow::{Result, ensure};
use std::collections::HashMap;

/// Milliseconds from each COMMIT to each arrival of its event.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    /// Every event must have come so many times, once for each who listens.
    pub(crate) fn of(sent: &[(u32, i64)], came: &[(u32, i64)], listeners: usize) -> Result<Self> {
        let sent_at: HashMap<u32, i64> = sent.iter().copied().collect();
        let mut times: HashMap<u32, usize> = HashMap::new();
        let mut all = Vec::with_capacity(came.len());
        for (number, at) in came {
            let Some(sent) = sent_at.get(number) else { continue };
            *times.entry(*number).or_default() += 1;
            all.push((at - sent) as f64 / 1e3);
        }
        let wrong = sent_at.keys().filter(|number| times.get(number) != Some(&listeners)).count();
        ensure!(
            wrong == 0,
            "{wrong} of {} events did not come exactly once to each of {listeners}",
            sent_at.len()
        );
        Ok(Self(all))
    }

    pub(crate) fn p50(&self) -> f64 {
        percentile(&self.0, 0.5)
    }

    pub(crate) fn p99(&self) -> f64 {
        percentile(&self.0, 0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_counted_for_each_listener() {
        let sent = [(1, 1_000), (2, 5_000)];
        let came = [(1, 2_000), (2, 7_000), (1, 4_000), (2, 9_000), (9, 1)];
        let latencies = Latencies::of(&sent, &came, 2).unwrap();
        assert_eq!(latencies.p50(), 2.5);
        assert!((latencies.p99() - 3.97).abs() < 1e-9);
        assert!(Latencies::of(&sent, &came[1..], 2).is_err(), "one is missing");
        assert!(Latencies::of(&sent, &came, 1).is_err(), "each came twice");
    }
}
