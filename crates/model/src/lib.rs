//! The dual encoder: image tower, text tower, two projections and a temperature, equal to Hugging Face's
//! `VisionTextDualEncoder`. This crate computes and loads; it does not train, and it writes no file.
//!
//! Shapes: `batch` images or captions, `rows` tokens of all sequences laid end to end, `width` of a tower, `dim` of the
//! shared space, `heads` of attention, `seq` tokens of one sequence.

mod attention;
mod composite;
mod conv;
mod conv_net;
mod disentangled;
mod dual_encoder;
mod encoder;
mod error;
mod family;
mod image_tower;
mod layers;
mod lock;
mod names;
mod open_clip;
pub mod parameters;
mod params;
mod pool;
mod pretrained;
mod random;
mod resample;
mod rotary;
mod sentence_pooling;
mod sequence;
mod swin;
mod text_relations;
mod text_tower;
mod vision_transformer;
mod weights;
mod windows;

pub use composite::DUAL_ENCODER_TYPE;
pub use conv_net::{ConvNet, ConvNetConfig, ConvNetKind};
pub use disentangled::DisentangledConfig;
pub use dual_encoder::{DualEncoder, HeadConfig, LOGIT_SCALE_INIT, logits_per_text, normalize};
pub use encoder::{EncoderConfig, NormOrder, RelativeTable};
pub use error::ModelError;
pub use image_tower::{ImageTower, ImageTowerConfig, ReferencePooling, TowerOutput};
pub use layers::{Activation, Dropout, LayerNorm, Linear};
pub use lock::{Lock, LockError, TowerLock};
pub use params::Audit;
pub use pool::{Pool, Pooling};
pub use pretrained::{
    BuildOptions, Built, StoredNames, TowerOptions, build_from_dual_encoder, build_from_towers, dual_encoder_types,
    image_tower_from, is_dual_encoder_dir, text_tower_from,
};
pub use random::named_seed;
pub use resample::Interpolation;
pub use swin::{Swin, SwinConfig};
pub use text_relations::{RelativeBuckets, TokenRelations};
pub use text_tower::{EndOfText, PositionCount, TextPooler, TextTower, TextTowerConfig, TokenSequences};
pub use vision_transformer::{
    FinalNorm, Pooler, PoolerActivation, Positions, VisionTransformer, VisionTransformerConfig,
};
pub use weights::{HostTensor, WeightFiles, is_count, read_safetensors};
