//! The table of what trains, part by part, that a run reports before it starts.

use dualenc_model::{DualEncoder, parameters};
use serde::Serialize;

use crate::error::TrainError;
use crate::optim::param_groups::{LearningRate, ParamGroups};

/// A row of the table: one part of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PartSummary {
    /// Name of the part, such as `image tower`.
    pub name: String,
    /// Number of trainable values.
    pub trainable: usize,
    /// Number of locked values.
    pub locked: usize,
    /// Lowest and highest peak learning rate of the trainable parameters.
    pub rates: Option<[f64; 2]>,
    /// Lowest and highest weight decay of the trainable matrices.
    pub decays: Option<[f64; 2]>,
}

/// The part of the model that a parameter belongs to, for people: `image tower` for
/// `image_tower.encoder.blocks.0.norm.weight`.
pub(crate) fn part_of(path: &str) -> String {
    let name = path.split('.').next().unwrap_or(path);
    if name.starts_with("logit") { name.to_owned() } else { name.replace('_', " ") }
}

/// Summarises each part of `model`. `peak`: the peak learning rate of parameters without one of their own.
///
/// # Errors
/// [`TrainError::Internal`] when a trainable parameter is in no group.
pub(crate) fn summarize_parts(
    model: &DualEncoder,
    param_groups: &ParamGroups,
    peak: f64,
) -> Result<Vec<PartSummary>, TrainError> {
    let mut parts: Vec<PartSummary> = Vec::new();
    for info in parameters::list(model) {
        let name = part_of(&info.path);
        if parts.last().is_none_or(|part| part.name != name) {
            parts.push(PartSummary { name, ..PartSummary::default() });
        }
        if let Some(part) = parts.last_mut() {
            let count: usize = info.shape.iter().product();
            if !info.trains {
                part.locked += count;
                continue;
            }
            part.trainable += count;
            let options = param_groups.options(&info.path)?;
            part.rates = widened(part.rates, options.rate(LearningRate { base: peak, schedule: 1.0 }));
            part.decays = options.weight_decay.map_or(part.decays, |decay| widened(part.decays, decay));
        }
    }
    Ok(parts)
}

/// The range that also includes `value`.
fn widened(range: Option<[f64; 2]>, value: f64) -> Option<[f64; 2]> {
    Some(range.map_or([value; 2], |[lowest, highest]| [lowest.min(value), highest.max(value)]))
}
