//! The metric that selects the best checkpoint, `checkpoint.best`.

use crate::config::schema::RunConfig;
use crate::config::schema::eval::CheckpointSection;

/// The metric that selects the best checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestMetric {
    /// The name of the evaluation.
    pub evaluation: String,
    /// The name of the metric.
    pub name: String,
    /// Whether a lower value is better: true for a loss, false for every other metric.
    pub lower_is_better: bool,
}

impl std::fmt::Display for BestMetric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.evaluation, self.name)
    }
}

impl CheckpointSection {
    /// The metric that `best` names. In a loaded configuration, it exists.
    pub fn best_metric(&self) -> Option<BestMetric> {
        let (evaluation, metric) = self.best.as_deref()?.split_once('.')?;
        let (evaluation, name) = (evaluation.to_owned(), metric.to_owned());
        Some(BestMetric { lower_is_better: name == "loss", evaluation, name })
    }
}

impl RunConfig {
    /// Every metric that `checkpoint.best` may name.
    pub(crate) fn known_metrics(&self) -> Vec<String> {
        let evaluations = self.eval.iter();
        evaluations
            .flat_map(|(name, eval)| eval.task.metric_names().iter().map(move |metric| format!("{name}.{metric}")))
            .collect()
    }
}
