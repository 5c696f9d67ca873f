//! Training and evaluating a dual encoder: from a configuration to checkpoints, figures and exported models.
//!
//! Start at [`trainer`]: it holds the loop. This crate prints nothing; it tells an [`Observer`].

mod assemble;
mod cache;
mod check;
pub mod checkpoint;
pub mod config;
mod device;
mod embed;
mod encode;
mod error;
mod evaluate;
mod export;
mod features;
mod files;
pub mod hub;
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
mod trainer;
mod whitening;
mod zero_shot;

pub use assemble::{Assembly, param_groups};
pub use check::{Findings, check};
pub use device::{Compute, available as available_devices};
pub use embed::{EmbedRequest, Embedded, embed};
pub use encode::{Embeddings, Encoder};
pub use error::{Fault, TrainError};
pub use evaluate::Evaluation;
pub use export::export;
pub use features::{ImageFeatures, PooledImages, one_thread};
pub use inspect::{HeadReport, Inspection, Kind, RunReport, TowerReport, WeightsReport, inspect};
pub use loss::{BatchLoss, PairIds, contrastive_loss};
pub use metrics::{EvalRecord, TrainRecord};
pub use observer::{Event, Observer, ParamGroup};
pub use optim::{AdamW, ParamGradients};
pub use stop::StopFlag;
pub use trainer::{Outcome, train};
