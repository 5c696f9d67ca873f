//! Figures of narrower embeddings: the first values of each, normalised (Matryoshka, `train.matryoshka`).

use serde_json::{Map, Value};

use crate::config::narrower_metric;
use crate::error::TrainError;
use crate::eval::metrics::bootstrap::INTERVAL;
use crate::eval::metrics::scores::normalize_rows;

/// Adds the figures of embeddings of each of `widths` below `dim`, as `measure` finds them, under their own names.
/// Counts are those of whole embeddings alone.
///
/// # Errors
/// Those of `measure`.
pub(crate) fn add_narrower(
    metrics: &mut Map<String, Value>,
    (widths, dim): (&[usize], usize),
    measure: impl Fn(usize) -> Result<Map<String, Value>, TrainError>,
) -> Result<(), TrainError> {
    for &width in widths.iter().filter(|&&width| width < dim) {
        let found = measure(width)?;
        for (name, value) in found {
            // The interval of a figure has the name of that figure, too.
            match name.strip_suffix(INTERVAL) {
                Some(figure) => metrics.insert(narrower_metric(figure, width) + INTERVAL, value),
                None if value.is_f64() => metrics.insert(narrower_metric(&name, width), value),
                None => None,
            };
        }
    }
    Ok(())
}

/// The first `width` values of each row of `embeds` `[rows, dim]`, normalised.
pub(crate) fn first_values(embeds: &[f32], dim: usize, width: usize) -> Vec<f32> {
    let mut narrow: Vec<f32> = embeds.chunks_exact(dim.max(1)).flat_map(|row| &row[..width]).copied().collect();
    normalize_rows(&mut narrow, width);
    narrow
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn first_values_are_unit_vectors() {
        let narrow = first_values(&[3.0, 4.0, 9.0, 0.0, -2.0, 1.0], 3, 2);
        assert_eq!(narrow, [0.6, 0.8, 0.0, -1.0]);
    }

    #[test]
    fn narrower_figures_have_their_own_names() {
        let measured = |width: usize| {
            let metrics = json!({"acc1": width as f64, "acc1_ci95": [0.1, 0.2], "num_classes": 3});
            Ok(metrics.as_object().cloned().unwrap())
        };
        let mut metrics = measured(24).unwrap();
        // The model may be narrower than a width of the config.
        add_narrower(&mut metrics, (&[24, 8, 3], 24), measured).unwrap();
        let expected = json!({
            "acc1": 24.0, "acc1_ci95": [0.1, 0.2], "num_classes": 3, "acc1_dim8": 8.0, "acc1_dim8_ci95": [0.1, 0.2],
            "acc1_dim3": 3.0, "acc1_dim3_ci95": [0.1, 0.2]
        });
        assert_eq!(Value::from(metrics), expected);
    }
}
