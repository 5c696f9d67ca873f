//! What `checkpoint.best` names: a figure of one of the evaluations.

use crate::config::schema::RunConfig;
use crate::config::schema::eval::CheckpointSection;

/// The figure by which the best checkpoint is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The evaluation's name.
    pub evaluation: String,
    /// The name of its figure.
    pub metric: String,
    /// Of a loss, less is better; of every other figure, more.
    pub lower_is_better: bool,
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.evaluation, self.metric)
    }
}

impl CheckpointSection {
    /// What `best` names; a loaded configuration names an evaluation and one of its figures.
    pub fn goal(&self) -> Option<Goal> {
        let (evaluation, metric) = self.best.as_deref()?.split_once('.')?;
        let (evaluation, metric) = (evaluation.to_owned(), metric.to_owned());
        Some(Goal { lower_is_better: metric == "loss", evaluation, metric })
    }
}

impl RunConfig {
    /// Every figure that `checkpoint.best` may name.
    pub(crate) fn goals(&self) -> Vec<String> {
        let evaluations = self.eval.iter();
        evaluations
            .flat_map(|(name, eval)| eval.task.figures().iter().map(move |figure| format!("{name}.{figure}")))
            .collect()
    }
}
