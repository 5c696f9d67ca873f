//! The metric that selects the best checkpoint, `checkpoint.best`.

use crate::config::schema::RunConfig;
use crate::config::schema::eval::{CheckpointSection, Task};

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
        let widths = &self.train.matryoshka;
        let of_task = |task: Task| {
            // Whole embeddings first. Those of other tasks have one width.
            let is_measured = matches!(task, Task::ZeroShot | Task::Retrieval);
            let narrower = widths.iter().filter(move |&&width| is_measured && Some(width) != self.model.embed_dim);
            let narrower = narrower
                .flat_map(move |&width| task.metric_names().iter().map(move |metric| narrower_metric(metric, width)));
            task.metric_names().iter().map(|&metric| metric.to_owned()).chain(narrower)
        };
        let evaluations = self.eval.iter();
        evaluations.flat_map(|(name, eval)| of_task(eval.task).map(move |metric| format!("{name}.{metric}"))).collect()
    }
}

/// The name of a figure of the first `width` values of embeddings; that of whole embeddings is `metric`.
pub(crate) fn narrower_metric(metric: &str, width: usize) -> String {
    format!("{metric}_dim{width}")
}
