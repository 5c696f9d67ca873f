//! Default values. The source of each is documented at its key.

use dualenc_data::Limits;
use dualenc_model::{Lock, TowerLock};

use super::optimizer::OptimizerKind;

/// MobileCLIP, arXiv:2311.17049, sec. 3: the real caption and a synthetic one.
pub const CAPTION_SLOTS: usize = 2;
pub const EMBED_DIM: usize = 512;
pub const SIGMOID_LOGIT_SCALE_INIT: f64 = std::f64::consts::LN_10;
pub const STRUCTURE_WARMUP_STEPS: u64 = 1000;
pub const STRUCTURE_TEMPERATURE: f64 = 0.05;
pub const EPS: f64 = 1e-8;
pub const MOMENTUM: f64 = 0.9;
pub const ADAMW_BETAS: [f64; 2] = [0.9, 0.999];
pub const LION_BETAS: [f64; 2] = [0.9, 0.99];
pub const RSQRT_TIMESCALE: f64 = 10_000.0;
pub const EVAL_EVERY_EPOCHS: u64 = 1;
pub const POOL_SIZE: usize = 256;
pub const NEIGHBORS: usize = 20;

pub fn lock() -> Lock {
    Lock { image: TowerLock::Locked, text: TowerLock::Unlocked }
}
pub fn lora_targets() -> Vec<String> {
    ["query", "value"].map(str::to_owned).into()
}
pub fn seed() -> u64 {
    42
}
pub fn at_start() -> bool {
    true
}

pub fn log_every_steps() -> u64 {
    10
}
pub fn max_tokens() -> usize {
    64
}
pub fn yes() -> bool {
    true
}
/// The evaluation that is added for a validation split.
pub const VALIDATION: &str = "validation";

pub fn max_bad_fraction() -> f64 {
    0.01
}
pub fn max_pixels() -> u64 {
    Limits::DEFAULT_MAX_PIXELS
}
pub fn weight_decay() -> f64 {
    0.1
}
pub fn betas(optimizer: OptimizerKind) -> Option<[f64; 2]> {
    match optimizer {
        OptimizerKind::AdamW => Some(ADAMW_BETAS),
        OptimizerKind::Lion => Some(LION_BETAS),
        OptimizerKind::Adafactor | OptimizerKind::Sgd => None,
    }
}
pub fn same_for_all_layers() -> f64 {
    1.0
}
pub const TEACHER_SCALE: f64 = 60.0;
pub fn teacher_weight() -> f64 {
    0.5
}
pub fn clip_grad_norm() -> f64 {
    1.0
}
pub fn logit_scale_max() -> f64 {
    2.0 * std::f64::consts::LN_10
}
pub fn eval_batch_size() -> usize {
    64
}
