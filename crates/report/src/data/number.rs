//! Numbers that may be missing or not finite. JSON has neither NaN nor infinities: both are `null` there.

use serde::{Deserialize, Deserializer, Serialize};

/// A figure with its 95 % interval. Values that are not finite show as such, never as a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The value, in the unit of its metric: fractions are from 0 to 1.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// The lower and upper end of the interval, if there is one.
    #[serde(default)]
    pub interval: Option<[f64; 2]>,
}

impl Figure {
    /// A figure without an interval.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self { value, interval: None }
    }

    /// A figure with a 95 % interval.
    #[must_use]
    pub fn with_interval(value: f64, low: f64, high: f64) -> Self {
        Self { value, interval: Some([low, high]) }
    }

    /// The interval, if both ends are finite and in order.
    pub(crate) fn finite_interval(&self) -> Option<[f64; 2]> {
        self.interval.filter(|[low, high]| low.is_finite() && high.is_finite() && low <= high)
    }
}

/// Reads a number; `null` is NaN.
pub(crate) fn number<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(input)?.unwrap_or(f64::NAN))
}

/// What a number that no JSON names is: NaN.
pub(crate) fn nan() -> f64 {
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_not_a_number() {
        let figure: Figure = serde_json::from_str(r#"{"value": null}"#).unwrap();
        assert!(figure.value.is_nan());
        assert_eq!(serde_json::to_string(&Figure::new(f64::INFINITY)).unwrap(), r#"{"value":null,"interval":null}"#);
    }

    #[test]
    fn intervals_without_ends_are_none() {
        assert_eq!(Figure::with_interval(0.5, 0.4, f64::NAN).finite_interval(), None);
        assert_eq!(Figure::with_interval(0.5, 0.6, 0.4).finite_interval(), None);
        assert_eq!(Figure::with_interval(0.5, 0.4, 0.6).finite_interval(), Some([0.4, 0.6]));
    }
}
