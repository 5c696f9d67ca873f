//! The result of `dualenc plan`. Times are in seconds, sizes in bytes.

use serde::Serialize;

use crate::optim::part_summary::PartSummary;

/// What a run will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the device.
    pub device: String,
    /// Threads of the CPU thread pool.
    pub threads: usize,
    /// Trainable and locked parameters of each part, in the first stage.
    pub parameters: Vec<PartSummary>,
    /// Numbers of images, pairs and steps.
    pub data: DataPlan,
    /// The stages in order: at least one.
    pub stages: Vec<StagePlan>,
    /// The fit of the heads before the first step (`model.head_init`); `None`: heads start random.
    pub fit: Option<FitPlan>,
    /// Reading and decoding images.
    pub images: LoadingPlan,
    /// Every evaluation of the config.
    pub evaluations: Vec<EvaluationPlan>,
    /// Checkpoints.
    pub checkpoints: CheckpointPlan,
    /// Memory of the process.
    pub memory: MemoryPlan,
    /// The feature cache, one entry for each tower with cached features.
    pub cache: Vec<CachePlan>,
    /// Free space of the disk that holds the cache; `None`: unknown, or nothing is cached.
    pub cache_disk_free: Option<u64>,
    /// Time of epochs and of the run.
    pub time: TimePlan,
    /// What to change first.
    pub advice: Advice,
    /// What the figures leave out.
    pub notes: Vec<String>,
}

/// Numbers of images, pairs and steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataPlan {
    /// Images of the training data.
    pub images: usize,
    /// Captions of the training data.
    pub captions: usize,
    /// Pairs per epoch.
    pub pairs: usize,
    /// Pairs per step.
    pub batch_size: usize,
    /// Captions of each pair, all of which the text tower runs over.
    pub captions_per_pair: usize,
    /// Pairs per part of a step; `None`: a step is computed whole.
    pub micro_batch_size: Option<usize>,
    /// Steps per epoch.
    pub steps_per_epoch: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Epochs of the run.
    pub epochs: f64,
}

/// A stage of the run, measured at its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    /// Lock of the towers, image then text.
    pub lock: String,
    /// Steps before the stage.
    pub from_step: u64,
    /// Steps of the stage.
    pub steps: u64,
    /// A step. Where features are cached: one that computes them.
    pub step: StepPlan,
    /// A step that reads all features from the cache; `None`: nothing is cached.
    pub cached_step: Option<StepPlan>,
    /// Time of the stage.
    pub seconds: f64,
}

/// A measured step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepPlan {
    /// Steps that were measured, after the warm-up.
    pub measured: usize,
    /// Median time of a step.
    pub seconds: f64,
    /// Pairs per second.
    pub pairs_per_second: f64,
    /// Where the time goes: adds up to `seconds`.
    pub parts: Vec<Share>,
}

/// A part of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// `waiting for images`, `locked image tower`, `locked text tower`, `image tower`, `text tower`,
    /// `projections and loss`, `optimiser` or `other`.
    pub part: &'static str,
    /// Time in each step.
    pub seconds: f64,
    /// Fraction of the step, from 0 to 1.
    pub share: f64,
}

/// The fit of the heads: an estimate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitPlan {
    /// Images of the training data.
    pub images: usize,
    /// Distinct texts of the training data.
    pub texts: usize,
    /// Time to compute the features that the cache of the run lacks.
    pub features_seconds: f64,
    /// Time of the closed form for all ridges and powers that are tried, recall on held-out pairs left out.
    pub closed_form_seconds: f64,
}

/// Reading and decoding images, measured one by one on one thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadingPlan {
    /// Images that were measured.
    pub measured: usize,
    /// Of these, images that cannot be used.
    pub unusable: usize,
    /// Mean time to read an image.
    pub read_seconds: f64,
    /// Mean time to decode, augment and resize an image.
    pub decode_seconds: f64,
    /// Loader threads.
    pub workers: usize,
    /// Images per second that the loader can deliver, if the model leaves its threads alone; `None`: nothing was
    /// measured.
    pub images_per_second: Option<f64>,
    /// Images per second that a step takes, its waiting left out.
    pub needed_per_second: f64,
    /// Fraction of a step that waits for images, from 0 to 1.
    pub waiting: f64,
    /// Whether waiting is at most a tenth of a step.
    pub keeps_up: bool,
}

/// An evaluation, estimated from a sample of its images and texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationPlan {
    /// Its name in the config.
    pub name: String,
    /// Images that it embeds.
    pub images: usize,
    /// Texts that it embeds.
    pub texts: usize,
    /// How often it runs.
    pub runs: u64,
    /// Estimated time of the first run. Features of locked towers that the cache of the run holds, and those of images
    /// and texts that the training data or an earlier evaluation have too, are read.
    pub first_seconds: f64,
    /// Estimated time of a later run, which reads the features of locked towers.
    pub later_seconds: f64,
}

/// Checkpoints of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointPlan {
    /// How many are written.
    pub count: u64,
    /// Size of one.
    pub bytes: u64,
    /// Time to write one to the system's temporary directory; `None`: not measured, too large for it.
    pub seconds: Option<f64>,
}

/// Memory of the process. `None`: unknown on this system or device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryPlan {
    /// All parameters.
    pub parameters: u64,
    /// Gradients of what trains.
    pub gradients: u64,
    /// State of the optimiser, and averaged weights.
    pub optimizer: u64,
    /// All parameters of the teacher; 0 without one.
    pub teacher: u64,
    /// The process after everything is loaded, before the first step.
    pub loaded: Option<u64>,
    /// Activations of a step, or of one part of a step that is computed in parts.
    pub activations: Option<u64>,
    /// Activations per pair: the slope between the two measured sizes.
    pub activations_per_pair: Option<u64>,
    /// The two numbers of pairs that activations were measured at.
    pub measured_pairs: [usize; 2],
    /// Peak of the process while steps were measured: a prediction of the run's, evaluations left out.
    pub peak: Option<u64>,
    /// What this process can have: its own memory and what the system has available.
    pub available: Option<u64>,
    /// Largest `train.batch_size` that is predicted to fit, computed whole. At most the number of pairs.
    pub batch_that_fits: Option<usize>,
}

/// The cached features of one tower, or what its locked layers compute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CachePlan {
    /// `images` or `captions`: features of a locked tower. `states of images` or `states of captions`: what the locked
    /// layers of a tower compute that trains in part. `images of the teacher` or `captions of the teacher`: features of
    /// `[train.teacher]`.
    pub what: &'static str,
    /// Features of the training data and all evaluations: one for each distinct file and view, or each distinct text.
    pub rows: u64,
    /// Rows that the cache of the run holds already, of whatever data: read instead of computed.
    pub present: u64,
    /// Size on disk when all rows are there.
    pub bytes: u64,
}

/// Time of epochs and of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimePlan {
    /// Loading config, towers and data.
    pub start: f64,
    /// The fit of the heads: an estimate; 0 without one.
    pub fit: f64,
    /// What `dualenc fit` takes: `start`, `fit`, each evaluation once and a checkpoint; `None`: heads start random.
    pub fit_alone: Option<f64>,
    /// First epoch of the first stage: features are computed, unless a fit has computed them.
    pub first_epoch: f64,
    /// An epoch with all features cached; equal to `first_epoch` if nothing is cached.
    pub later_epoch: f64,
    /// All steps.
    pub training: f64,
    /// Of `training`, the time that computes features for the cache.
    pub filling_cache: f64,
    /// Of `training`, the time that computes features of the teacher: an estimate.
    pub teacher: f64,
    /// All evaluations: an estimate.
    pub evaluations: f64,
    /// All checkpoints; 0 if their time is unknown.
    pub checkpoints: f64,
    /// The sum: an estimate.
    pub run: f64,
}

/// The key to change first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// The key, such as `data.workers`; `None`: nothing stands out.
    pub key: Option<&'static str>,
    /// What to do, and the figure that speaks for it.
    pub text: String,
    /// Time that it saves in the whole run, at most; `None`: it saves memory, or nothing.
    pub saves_seconds: Option<f64>,
}
