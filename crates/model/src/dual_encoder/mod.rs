//! The dual encoder: both towers, their projections and the temperature, and which of its parameters train.
//!
//! It computes features, logits and the reference's loss. It reads no files (`pretrained`), and it does not train.
//!
//! - `config`: the config of a whole model.
//! - `heads`: what maps the output of a tower into the shared space.
//! - `inference`: the forward pass under the reference's names.
//! - `layer_depth`: how deep in its tower a parameter is.
//! - `lock`: LiT's two letters (`LU`), and which parameters train.
//! - `lora`: adding adapters to a model, and merging them.
//! - `model`: the model.
//! - `token_heads`: what makes one vector of all tokens of an image, before its head.

pub(crate) mod config;
pub(crate) mod heads;
pub(crate) mod inference;
pub(crate) mod layer_depth;
pub(crate) mod lock;
pub(crate) mod lora;
pub(crate) mod model;
pub(crate) mod token_heads;
