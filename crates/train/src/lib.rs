//! Training and evaluating a dual encoder: from a configuration to checkpoints, figures and exported models.
//!
//! Start at [`trainer`]: it holds the loop. This crate prints nothing; it tells an [`Observer`].

mod assemble;
mod check;
pub mod checkpoint;
mod chunked;
pub mod config;
mod device;
mod embed;
mod encode;
mod error;
mod evaluate;
mod export;
mod feature_index;
mod feature_store;
mod features;
mod files;
mod fill;
pub mod hub;
mod image_features;
mod image_set;
mod inspect;
mod loss;
mod metrics;
mod observer;
mod optim;
mod retrieval;
mod run;
mod run_dir;
mod schedule;
mod stop;
mod text_features;
mod trainer;
mod whitening;
mod zero_shot;

pub use assemble::{Assembly, param_groups};
pub use check::{Findings, check};
pub use chunked::one_thread;
pub use device::{Compute, available as available_devices};
pub use embed::{EmbedRequest, Embedded, embed};
pub use encode::{Embeddings, Encoder};
pub use error::{Fault, TrainError};
pub use evaluate::Evaluation;
pub use export::export;
pub use features::{Counts, LockedFingerprints, LockedTowers, cache_of};
pub use fill::{Filled, fill};
pub use image_features::ImageFeatures;
pub use image_set::{ImageList, ImageSet, Views};
pub use inspect::{HeadReport, Inspection, Kind, RunReport, TowerReport, WeightsReport, inspect};
pub use loss::{BatchLoss, PairIds, contrastive_loss};
pub use metrics::{EvalRecord, TrainRecord};
pub use observer::{Event, Observer, ParamGroup};
pub use optim::{AdamW, ParamGradients, RowsRead};
pub use stop::StopFlag;
pub use text_features::TextFeatures;
pub use trainer::{Outcome, train};
