//! Ranges of axes with round ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::page::format::{fixed, ticks as tick_labels};

/// Values of larger magnitude are not drawn: a range that holds them would overflow.
const LARGEST: f64 = 1e30;

/// Whether a value can be drawn.
pub(crate) fn is_drawable(value: f64) -> bool {
    value.is_finite() && value.abs() <= LARGEST
}

/// An axis. On a logarithmic one, `low` and `high` are logarithms to base 10; ticks and values are not.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    pub labels: Vec<String>,
    pub is_log: bool,
}

impl Axis {
    /// An axis over `values` with about `most` ticks and some space beyond the values.
    pub fn around(values: impl Iterator<Item = f64>, most: usize) -> Option<Self> {
        let (low, high) = range(values)?;
        let space = if high > low { 0.06 * (high - low) } else { (0.1 * low.abs()).max(0.5) };
        Some(Self::linear(low - space, high + space, most))
    }

    /// An axis over whole numbers, such as steps, that starts and ends at them.
    pub fn whole(values: impl Iterator<Item = f64>, most: usize) -> Option<Self> {
        let (low, high) = range(values)?;
        let (low, high) = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
        // With fewer ticks, none stands between two numbers.
        let mut axes = (1..=most).rev().map(|most| Self::linear(low, high, most));
        axes.find(|axis| axis.ticks.iter().all(|tick| (tick - tick.round()).abs() < 1e-9))
    }

    /// An axis from 0 that fractions fit on, in percent.
    pub fn percent(values: impl Iterator<Item = f64>, most: usize) -> Option<Self> {
        let (low, high) = range(values)?;
        let mut axis = Self::linear(low.min(0.0), (1.06 * high).clamp(0.01, high.max(1.0)), most);
        let decimals = if axis.ticks.windows(2).all(|pair| pair[1] - pair[0] > 0.0099) { 0 } else { 1 };
        axis.labels = axis.ticks.iter().map(|tick| format!("{} %", fixed(100.0 * tick, decimals))).collect();
        Some(axis)
    }

    /// A logarithmic axis, if all `values` are positive and span more than two decades.
    pub fn logarithmic(values: impl Iterator<Item = f64> + Clone) -> Option<Self> {
        let (low, high) = range(values)?;
        if low <= 0.0 || high / low < 100.0 {
            return None;
        }
        let (low, high) = (low.log10() - 0.1, high.log10() + 0.1);
        let (first, last) = (low.ceil() as i32, high.floor() as i32);
        let every = ((last - first) / 6 + 1).max(1);
        let decades = (first..=last).filter(|tick| tick.rem_euclid(every) == 0);
        let ticks: Vec<f64> = decades.map(|decade| 10_f64.powi(decade)).collect();
        let labels = ticks.iter().flat_map(|tick| tick_labels(&[*tick])).collect();
        Some(Self { low, high, ticks, labels, is_log: true })
    }

    /// A linear axis from `low` to `high`, which differ.
    pub fn linear(low: f64, high: f64, most: usize) -> Self {
        let step = round_up((high - low) / most.max(1) as f64);
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        let number = (last - first).clamp(0.0, 4.0 * most as f64) as usize;
        let ticks: Vec<f64> = (0..=number).map(|place| (first + place as f64) * step).collect();
        let labels = tick_labels(&ticks);
        Self { low, high, ticks, labels, is_log: false }
    }

    /// How far along the axis a value is, from 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let value = if self.is_log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        start + (f64::from(end - start) * self.share(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        let value = |end: f64| if self.is_log { 10_f64.powf(end) } else { end };
        value(self.low)..value(self.high)
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, tick: &f64) -> String {
        let found = self.ticks.iter().position(|other| other == tick);
        found.and_then(|place| self.labels.get(place).cloned()).unwrap_or(String::new())
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| is_drawable(*value)).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// The next of 1, 2, 2.5, 5 and 10 times a power of ten.
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| step <= factor * power * (1.0 + 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let axis = Axis::linear(0.0, 1000.0, 5);
        assert_eq!(axis.labels, ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(Axis::linear(-0.13, 0.42, 4).labels, ["0", "0.2", "0.4"]);
    }

    #[test]
    fn steps_have_whole_ticks() {
        let labels = |last: f64| Axis::whole([1.0, last].into_iter(), 5).unwrap().labels;
        assert_eq!(
            (labels(3.0), labels(2.0)),
            (vec!["1".to_owned(), "2".to_owned(), "3".to_owned()], vec!["1".to_owned(), "2".to_owned()])
        );
        for last in 2..200 {
            assert!(labels(f64::from(last)).iter().all(|label| !label.contains('.')), "{last}");
        }
    }

    #[test]
    fn one_value_has_a_range() {
        for value in [0.0, 5.0, -1e29, 1e-20] {
            let axis = Axis::around([value].into_iter(), 4).unwrap();
            assert!(axis.low < value && value < axis.high, "{value}");
        }
    }

    #[test]
    fn what_is_not_finite_has_none() {
        assert!(Axis::around([f64::NAN, f64::INFINITY, 1e300].into_iter(), 4).is_none());
        assert!(Axis::around(std::iter::empty(), 4).is_none());
    }

    #[test]
    fn decades_make_a_logarithmic_axis() {
        let axis = Axis::logarithmic([0.01, 5.0, 100.0].into_iter()).unwrap();
        assert_eq!(axis.labels, ["0.01", "0.1", "1", "10", "100"]);
        assert!(Axis::logarithmic([1.0, 10.0].into_iter()).is_none());
        assert!(Axis::logarithmic([0.0, 1000.0].into_iter()).is_none());
    }

    #[test]
    fn fractions_are_percent() {
        let axis = Axis::percent([0.2, 0.71].into_iter(), 4).unwrap();
        assert_eq!(axis.labels, ["0 %", "20 %", "40 %", "60 %"]);
        assert!(Axis::percent([0.0].into_iter(), 4).is_some());
    }
}
