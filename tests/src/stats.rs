//! Medians, ranges and percentiles.

use std::fmt;
use std::time::Duration;

/// Middle and ends of a set of measurements.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// All zero when there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let least = values.first().copied().unwrap_or_default();
        let most = values.last().copied().unwrap_or_default();
        Self { median: percentile(&values, 50.0), least, most }
    }
}

/// `median (least-most)`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}-{})", number(self.median), number(self.least), number(self.most))
    }
}

/// Nearest rank. `sorted` is.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Milliseconds, sorted.
pub fn milliseconds(times: &[Duration]) -> Vec<f64> {
    let mut values: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Three digits, and all before the point.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
