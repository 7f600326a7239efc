//! Medians, percentiles, and the exponent by which something grows.

use serde::Serialize;

/// What several runs gave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Sample(pub(crate) Vec<f64>);

impl Sample {
    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 0.5)
    }

    pub(crate) fn least(&self) -> f64 {
        percentile(&self.0, 0.0)
    }

    pub(crate) fn most(&self) -> f64 {
        percentile(&self.0, 1.0)
    }

    /// This one's runs, each with the other's of the same number: they were taken one after the other, on a machine
    /// in the same mood.
    pub(crate) fn paired(&self, other: &Self, with: impl Fn(f64, f64) -> f64) -> Self {
        if self.0.len() == other.0.len() {
            Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| with(*ours, *theirs)).collect())
        } else {
            Self(vec![with(self.median(), other.median())])
        }
    }
}

/// The value below which this part of the values lies, between two neighbours in proportion; NaN without values.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part.clamp(0.0, 1.0) * last as f64;
    // Within the indexes of the slice.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// The exponent k of y = c·xᵏ that fits best (least squares of the logarithms); NaN with fewer than two points.
pub(crate) fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let (sum_x, sum_y) = logs.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = logs.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        (over + (x - mean_x) * (y - mean_y), under + (x - mean_x).powi(2))
    });
    over / under
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 0.5), 2.5);
        assert_eq!(percentile(&values, 1.0), 4.0);
        assert!(percentile(&[], 0.5).is_nan());
        let sample = Sample(vec![2.0, 9.0, 4.0]);
        assert_eq!((sample.least(), sample.median(), sample.most()), (2.0, 4.0, 9.0));
    }

    #[test]
    fn runs_are_compared_one_by_one() {
        let (ours, theirs) = (Sample(vec![2.0, 9.0]), Sample(vec![1.0, 3.0]));
        assert_eq!(ours.paired(&theirs, |ours, theirs| ours / theirs), Sample(vec![2.0, 3.0]));
        assert_eq!(ours.paired(&Sample(vec![2.0]), |ours, theirs| ours / theirs), Sample(vec![2.75]));
    }

    #[test]
    fn the_exponent_of_a_power_is_that_power() {
        let points: Vec<_> = [1.0, 10.0, 100.0].map(|x: f64| (x, 3.0 * x.powf(1.5))).into();
        assert!((exponent(&points) - 1.5).abs() < 1e-9);
        assert!(exponent(&points[..1]).is_nan());
    }
}
