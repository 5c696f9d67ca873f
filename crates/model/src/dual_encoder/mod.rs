//! The dual encoder: both towers, their projections and the temperature, and which of it trains.
//!
//! It computes features, logits and the reference's loss. It does not read files (`pretrained`) and does not train.
//!
//! - `model`: [`DualEncoder`](model::DualEncoder), its features and logits.
//! - `config`: `config.json` of the whole model, and the initial values of its head.
//! - `inference`: the reference's forward pass under the reference's names.
//! - `lock`: LiT's two letters (`LU`), and which parameters train.
//! - `layer_depth`: how deep in its tower a parameter is.
//! - `lora`: adding adapters to a model and merging them.

pub(crate) mod config;
pub(crate) mod inference;
pub(crate) mod layer_depth;
pub(crate) mod lock;
pub(crate) mod lora;
pub(crate) mod model;
