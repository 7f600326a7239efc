//! Draws that depend on a seed alone.

use fastrand::Rng;

/// A source of random numbers that gives the same ones for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(Rng);

impl Random {
    /// One of many independent sources of a seed: that of its `number`th part.
    pub(crate) fn part(seed: u64, number: u64) -> Self {
        // Seeds that differ by one must not give similar numbers: fastrand mixes its seed little.
        Self(Rng::with_seed(mixed(mixed(seed) ^ number)))
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// One of several; they must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.0.usize(..from.len())]
    }

    /// A number from 0 up to this one, which is not among them and must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    /// A whole number, both ends included.
    pub(crate) fn between(&mut self, least: i32, most: i32) -> i32 {
        self.0.i32(least..=most)
    }

    /// A number in a range.
    pub(crate) fn uniform(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.0.f64()
    }

    /// A number near `mean`, mostly within `spread` of it and never beyond three times that.
    pub(crate) fn near(&mut self, mean: f64, spread: f64) -> f64 {
        // The sum of three evenly distributed numbers in -1..1 has a standard deviation of 1.
        let sum: f64 = (0..3).map(|_| self.uniform(-1.0, 1.0)).sum();
        mean + spread * sum
    }
}

/// The finalizer of SplitMix64: every bit of the input changes every bit of the result.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_part_others() {
        let draw = |seed, part| {
            let mut random = Random::part(seed, part);
            [(); 8].map(|()| random.below(1_000_000))
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn near_stays_near() {
        let mut random = Random::part(7, 0);
        let drawn: Vec<f64> = (0..10_000).map(|_| random.near(100.0, 5.0)).collect();
        assert!(drawn.iter().all(|value| (85.0..=115.0).contains(value)));
        let mean = drawn.iter().sum::<f64>() / 10_000.0;
        assert!((99.5..100.5).contains(&mean), "{mean}");
    }
}
