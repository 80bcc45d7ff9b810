//! Medians and spreads.

use serde::Serialize;

/// Where the values of several rounds lie.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// A quarter is below it.
    pub q1: f64,
    /// A quarter is above it.
    pub q3: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of values, in any order. Of none, all is 0.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Self { median: at(0.5), min: at(0.0), q1: at(0.25), q3: at(0.75), max: at(1.0) }
    }
}

/// The value below which this share of the others is, linear between neighbours; 0 of none.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_spread_is_taken_from_sorted_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!([spread.min, spread.q1, spread.median, spread.q3, spread.max], [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((Spread::of([1.0, 2.0]).median - 1.5).abs() < 1e-9);
        assert!(Spread::of([]).max.abs() < 1e-9);
    }
}
