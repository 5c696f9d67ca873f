//! `[eval.NAME]` and `[checkpoint]`: what is measured, and what is saved.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::default;

/// `[checkpoint]`: when the state of the run is saved, which states stay, and when there is no use in going on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Steps between two checkpoints; one more is written at the end and on a signal. Default 500
    /// (`TrainingArguments.save_steps` of the reference).
    pub every_steps: u64,
    /// How many of the newest checkpoints stay on disk; the best one stays besides. Default 3.
    pub keep: usize,
    /// The figure by which the best checkpoint is told, such as `held-out.acc1`: an evaluation's name and one of zero-shot's
    /// `acc1`, `acc5`, `mean_per_class_recall`, of retrieval's `image_retrieval_recall@1`, `@5`, `@10` and
    /// `text_retrieval_recall@1`, `@5`, `@10`, or of a loss evaluation's `loss` (less is better), `image_acc1`, `text_acc1`. A
    /// checkpoint is written whenever it improves. Default: none is the best.
    pub best: Option<String>,
    /// Evaluations of `best` without improvement after which the run ends early. Default: it does not.
    pub patience: Option<u64>,
    /// By how much more than this a figure must be better than the best to count as improvement. Default 0.
    pub min_delta: f64,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3, best: None, patience: None, min_delta: 0.0 }
    }
}

/// `[eval.NAME]`: one evaluation, run while training and by `dualenc eval`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// What is measured. Required.
    pub task: Task,
    /// Zero-shot: a folder that holds one folder of images a class. Required for it.
    pub images: Option<PathBuf>,
    /// Zero-shot: a file with one class name a line, in the sorted order of the folders. Default: the folders' names, `_`
    /// read as a space.
    pub classnames: Option<PathBuf>,
    /// Zero-shot: a file with one prompt template a line, `{c}` standing for the class name (CLIP_benchmark's form).
    /// Default: the class name alone.
    pub templates: Option<PathBuf>,
    /// Retrieval and loss: a csv, tsv or jsonl of image and caption; rows with one image are its several captions. Required
    /// for them.
    pub data: Option<PathBuf>,
    /// Loss: pairs in a pool, each the others' negative; at least 2. The figures compare between runs of any batch size as long
    /// as this is the same. Default 256.
    pub pool_size: Option<usize>,
    /// Epochs between two evaluations; 0: only when training ends. Default 1, unless `every_steps` is given.
    pub every_epochs: Option<u64>,
    /// Steps between two evaluations, instead of `every_epochs`.
    pub every_steps: Option<u64>,
    /// Images or texts encoded at once; no figure depends on it. Default 64.
    #[serde(default = "default::eval_batch_size")]
    pub batch_size: usize,
}

impl EvalSection {
    /// Number of pairs in a pool of a loss evaluation.
    pub fn pool_size(&self) -> usize {
        self.pool_size.unwrap_or(default::POOL_SIZE)
    }
}

/// What an evaluation measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Classification of images by the names of their classes.
    ZeroShot,
    /// Recall of the true captions of an image and of the true image of a caption.
    Retrieval,
    /// The run's own contrastive loss over pools of a fixed number of pairs.
    Loss,
}

impl Task {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroShot => "zero-shot",
            Self::Retrieval => "retrieval",
            Self::Loss => "loss",
        }
    }

    /// The names of its figures, counts aside.
    pub fn figures(self) -> &'static [&'static str] {
        match self {
            Self::ZeroShot => &["acc1", "acc5", "mean_per_class_recall"],
            Self::Retrieval => &[
                "image_retrieval_recall@1",
                "image_retrieval_recall@5",
                "image_retrieval_recall@10",
                "text_retrieval_recall@1",
                "text_retrieval_recall@5",
                "text_retrieval_recall@10",
            ],
            Self::Loss => &["loss", "image_acc1", "text_acc1"],
        }
    }
}
