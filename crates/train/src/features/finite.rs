//! What a tower computes must be finite: a NaN would be cached for good, and compares with nothing.

use dualenc_model::Tower;

use crate::config::Precision;
use crate::error::TrainError;

/// The first row of `values`, shape `[rows, width]`, flat, that is not finite, and the first such value in it.
pub(crate) fn first_not_finite(values: &[f32], width: usize) -> Option<(usize, f32)> {
    let at = values.iter().position(|value| !value.is_finite())?;
    Some((at / width.max(1), values[at]))
}

/// Refuses outputs of `tower`, shape `[inputs, width]`, flat, that are not finite. `input` names an input by its row.
///
/// # Errors
/// [`TrainError::NotFiniteOutput`].
pub(crate) fn check_outputs(
    tower: Tower,
    precision: Precision,
    values: &[f32],
    width: usize,
    input: impl FnOnce(usize) -> String,
) -> Result<(), TrainError> {
    let Some((row, value)) = first_not_finite(values, width) else { return Ok(()) };
    let advice = match precision {
        Precision::F32 => format!("the weights of the {tower} are damaged or too large: use others"),
        Precision::F16 | Precision::Bf16 => format!(
            "`run.locked_precision` is `{}`: set it to `f32`, or use other weights for the {tower}",
            precision.name()
        ),
    };
    let what = format!("the output of the {tower} for {}", input(row));
    Err(TrainError::NotFiniteOutput { what, value: value.into(), advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_first_bad_row() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let values = [1.0, 2.0, 3.0, 4.0, 5.0, wrong, wrong, 8.0];
            let check = |precision| {
                let error = check_outputs(Tower::Image, precision, &values, 2, |row| format!("image {row}"));
                error.unwrap_err().to_string()
            };
            let single = check(Precision::F32);
            assert!(single.starts_with("the output of the image tower for image 2 is not finite"), "{single}");
            assert!(single.contains("weights") && !single.contains("locked_precision"), "{single}");
            assert!(check(Precision::F16).contains("`run.locked_precision` is `f16`: set it to `f32`"));
        }
        assert!(check_outputs(Tower::Text, Precision::F32, &[f32::MAX, f32::MIN], 2, |_| String::new()).is_ok());
    }
}
