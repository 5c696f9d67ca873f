//! `[eval.NAME]` and `[checkpoint]`: evaluations, checkpoints and early stopping.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data_docs::EvalDataDoc;
use super::default;
use super::sources::EvalData;

/// When checkpoints are written, which ones are retained, and when the run stops early.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Interval between checkpoints, in steps. A checkpoint is also written at the end of training and on a signal.
    ///
    /// Default: `500` (`TrainingArguments.save_steps` of the reference).
    pub every_steps: u64,
    /// Number of newest checkpoints to retain. The best checkpoint is retained in addition.
    ///
    /// Default: `3`.
    pub keep: usize,
    /// Metric that selects the best checkpoint, as `NAME.METRIC`, such as `held-out.acc1`. A checkpoint is written
    /// whenever the metric improves. Metrics of a zero-shot evaluation: `acc1`, `acc5`, `mean_per_class_recall`. Of
    /// `knn` and `linear-probe`: these, and with `_embeds` after the name. Of a retrieval evaluation:
    /// `image_retrieval_recall@1`, `@5` and `@10`, `text_retrieval_recall@1`, `@5` and `@10`. Of a loss evaluation:
    /// `loss` (lower is better), `image_acc1`, `text_acc1`.
    ///
    /// Default: none; no checkpoint is selected.
    pub best: Option<String>,
    /// Number of evaluations of `best` without improvement after which the run stops early.
    ///
    /// Default: none; the run does not stop early.
    pub patience: Option<u64>,
    /// Margin by which the metric must beat its best value to count as an improvement.
    ///
    /// Default: `0.0`.
    pub min_delta: f64,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self { every_steps: 500, keep: 3, best: None, patience: None, min_delta: 0.0 }
    }
}

/// One evaluation, run during training and by `dualenc eval`. Its name consists of `a-z`, `0-9`, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalSection {
    /// What is measured.
    pub task: Task,
    /// Zero-shot, knn and linear-probe: directory that holds one folder of images per class.
    ///
    /// Required for these, unless `data` or `data.validation_fraction` is set.
    pub images: Option<PathBuf>,
    /// Zero-shot, knn and linear-probe: features of the images, instead of `images` and `data`, for a model without an
    /// image tower: a `.safetensors`, `.npy` or parquet file as in `data.train.features.images`.
    ///
    /// Default: none.
    pub image_features: Option<PathBuf>,
    /// With `image_features`: the number of the class of each row, 0-based. An `.npy` file of whole numbers, a
    /// safetensors file with the tensor `labels`, or a text file with one number per line.
    ///
    /// Default: the tensor `labels` in the file of `image_features`.
    pub labels: Option<PathBuf>,
    /// Zero-shot only: features of the prompts of the classes, instead of texts, for a model without a text tower. The
    /// embeddings of the prompts of a class are averaged.
    ///
    /// Default: none.
    pub class_features: Option<PathBuf>,
    /// With `class_features`: the number of the class of each row, 0-based, in the forms of `labels`.
    ///
    /// Default: the tensor `class_of` in the file of `class_features`, otherwise one row per class in order.
    pub class_of: Option<PathBuf>,
    /// Zero-shot, knn and linear-probe: file with one class name per line, in the sorted order of the class folders, or
    /// in the order of the numbers that are labels. A JSON list of names, or a JSON object from indices to names (or
    /// the reverse), is read too. An entry of a JSON list may be a list of the names of one class, which are averaged.
    ///
    /// Default: the folder names, with `_` read as a space; for shards and tables, `classnames.txt` in their folder or
    /// the one above it, or the labels themselves.
    pub classnames: Option<PathBuf>,
    /// Zero-shot only: file with one prompt template per line, where `{c}` stands for the class name (CLIP_benchmark's
    /// format). A single `{}` is read as `{c}`. Also read: a JSON list of templates, a JSON object that leads to one
    /// list, and open_clip's lines `lambda c: f"a photo of a {c}.",`. Other placeholders and braces are errors.
    /// `builtin:photo`, `builtin:photos` and `builtin:pictures` are sets of 1, 8 and 8 templates of this program.
    ///
    /// Default: for shards and tables, `zeroshot_classification_templates.txt` in their folder or the one above it, and
    /// else the class name alone.
    pub templates: Option<PathBuf>,
    /// Images and captions; for zero-shot, knn and linear-probe, images and the names or numbers of their classes. An
    /// image with several classes makes it a multi-label evaluation. A string is a file or folder, recognised by its
    /// name and content; a table is a source as in `[data.train]`. Rows that name the same image are its captions.
    ///
    /// Required for retrieval and loss, and for zero-shot without `images`, unless `data.validation_fraction` is set.
    #[schemars(with = "Option<EvalDataDoc>")]
    pub data: Option<EvalData>,
    /// Knn and linear-probe only: directory that holds one folder of images per class, to learn from. The classes have
    /// the names of those that are tested. Images whose bytes equal those of a tested image are left out.
    ///
    /// Default: none; without `train_data`, half of the images of each class are learned from and the others are
    /// tested.
    pub train_images: Option<PathBuf>,
    /// Knn and linear-probe only: images and the names or numbers of their classes, to learn from, in the forms of
    /// `data`, instead of `train_images`.
    ///
    /// Default: none.
    #[schemars(with = "Option<EvalDataDoc>")]
    pub train_data: Option<EvalData>,
    /// Knn only: number of nearest images that vote.
    ///
    /// Default: `20` (`--nb_knn` of DINO's `eval_knn.py`, whose best is usually 20).
    pub neighbors: Option<usize>,
    /// Loss only: number of pairs in a pool, at least 2. Each pair's negatives are the other pairs of its pool. Values
    /// of runs with different batch sizes are comparable at the same pool size.
    ///
    /// Default: `256`.
    pub pool_size: Option<usize>,
    /// Interval between evaluations, in epochs. `0`: only at the end of training.
    ///
    /// Default: `1`, unless `every_steps` is given.
    pub every_epochs: Option<u64>,
    /// Interval between evaluations, in steps, instead of `every_epochs`.
    ///
    /// Default: none.
    pub every_steps: Option<u64>,
    /// Whether the evaluation also runs before the first step, as the baseline of the later figures. It selects no
    /// checkpoint.
    ///
    /// Default: `true`.
    #[serde(default = "default::at_start")]
    pub at_start: bool,
    /// Number of images or texts encoded at once. The results do not depend on it.
    ///
    /// Default: `64`.
    #[serde(default = "default::eval_batch_size")]
    pub batch_size: usize,
}

impl EvalSection {
    /// Retrieval on the validation split of the training data.
    pub(crate) fn validation() -> Self {
        Self {
            task: Task::Retrieval,
            images: None,
            image_features: None,
            labels: None,
            class_features: None,
            class_of: None,
            classnames: None,
            templates: None,
            data: None,
            train_images: None,
            train_data: None,
            neighbors: None,
            pool_size: None,
            every_epochs: None,
            every_steps: None,
            at_start: default::at_start(),
            batch_size: default::eval_batch_size(),
        }
    }

    /// Whether it uses the validation split of the training data: it names no data of its own.
    pub fn uses_split(&self) -> bool {
        self.images.is_none() && self.data.is_none() && self.image_features.is_none()
    }

    /// Number of images that vote in a k-NN evaluation.
    pub fn neighbors(&self) -> usize {
        self.neighbors.unwrap_or(default::NEIGHBORS)
    }

    /// Number of pairs in a pool of a loss evaluation.
    pub fn pool_size(&self) -> usize {
        self.pool_size.unwrap_or(default::POOL_SIZE)
    }
}

/// What an evaluation measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Accuracy of classifying images by the names of their classes.
    ZeroShot,
    /// Accuracy of classifying images by the nearest of other labelled images, by features of the image tower.
    Knn,
    /// Accuracy of a linear classifier of the features of the image tower, fitted to other labelled images.
    LinearProbe,
    /// Recall of an image's captions and of a caption's image.
    Retrieval,
    /// The run's own contrastive loss, over pools of a fixed number of pairs.
    Loss,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 5] = [Self::ZeroShot, Self::Knn, Self::LinearProbe, Self::Retrieval, Self::Loss];

    /// The value in the TOML.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroShot => "zero-shot",
            Self::Knn => "knn",
            Self::LinearProbe => "linear-probe",
            Self::Retrieval => "retrieval",
            Self::Loss => "loss",
        }
    }

    /// The names of its metrics, counts aside.
    pub fn metric_names(self) -> &'static [&'static str] {
        match self {
            Self::ZeroShot => &["acc1", "acc5", "mean_per_class_recall"],
            Self::Knn | Self::LinearProbe => {
                &["acc1", "acc5", "mean_per_class_recall", "acc1_embeds", "acc5_embeds", "mean_per_class_recall_embeds"]
            }
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
