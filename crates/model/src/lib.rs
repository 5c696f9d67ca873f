//! The dual encoder: an image tower, a text tower, two heads and a temperature, equal to Hugging Face's
//! `VisionTextDualEncoder`. This crate loads and computes. It does not train, and it writes no files.
//!
//! [`DualEncoder::from_pretrained`] reads a directory written by `VisionTextDualEncoderModel.save_pretrained` or by
//! `dualenc export`, or that of a whole CLIP or SigLIP:
//!
//! ```
//! use dualenc_model::burn::tensor::{Device, Tensor};
//! use dualenc_model::{DualEncoder, TokenSequences};
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/dual/vit_bert");
//! let model = DualEncoder::from_pretrained(dir, &Device::flex())?;
//! let pixels = Tensor::zeros([2, 3, 24, 24], &model.device());
//! let tokens = TokenSequences::new(vec![vec![2, 17, 3], vec![2, 31, 8, 3]], vec![vec![0; 3], vec![0; 4]]);
//! let image_features = model.get_image_features(pixels.clone()); // [images, dim], un-normalised
//! let output = model.forward(pixels, &tokens, true)?; // logits both ways, embeds, loss
//! assert_eq!(output.logits_per_image.dims(), [2, 2]);
//! # assert_eq!((image_features.dims(), output.loss.map(|loss| loss.dims())), ([2, model.embed_dim()], Some([1])));
//! # Ok::<(), dualenc_model::ModelError>(())
//! ```
//!
//! Tokenizing and image processing are in the crate `dualenc-data`, which does not depend on this one. To find which of
//! two captions describes an image:
//!
//! ```
//! use dualenc_data::{ImageProcessor, Limits, Tokenizer, decode};
//! use dualenc_model::burn::tensor::{Device, Tensor, TensorData, activation::softmax};
//! use dualenc_model::{DualEncoder, TokenSequences};
//!
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/dual/vit_bert");
//! # let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/train/images/00.png");
//! let model = DualEncoder::from_pretrained(dir, &Device::flex())?;
//! let tokenizer = Tokenizer::from_dir(dir, model.text_tower.config().max_tokens())?;
//! let processor = ImageProcessor::from_dir(dir)?;
//!
//! let image = processor.process(&decode(&std::fs::read(photo)?, &Limits::default())?);
//! let (height, width) = processor.output_size();
//! let pixels = TensorData::new(image, [1, 3, height as usize, width as usize]);
//! let captions = ["a bee", "the sun in the sky"].map(|caption| tokenizer.encode(caption));
//! let captions = captions.into_iter().collect::<Result<Vec<_>, _>>()?;
//! let tokens = captions.into_iter().map(|caption| (caption.ids, caption.type_ids)).collect();
//! let output = model.forward(Tensor::from_data(pixels, &model.device()), &tokens, false)?;
//! let probabilities = softmax(output.logits_per_image, 1); // [1 image, 2 captions]
//! # assert!((probabilities.sum().into_scalar::<f32>() - 1.0).abs() < 1e-5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A text tower that attends to padding ([`TextTowerConfig::pad_to`], SigLIP) needs a tokenizer `with_padding_to` that
//! length.
//!
//! Tensors are Burn's, which this crate re-exports as [`burn`]. The features `flex`, `ndarray`, `wgpu`, `vulkan`,
//! `cuda` and, for tests, `cubecl-cpu` select the devices.
//!
//! In the docs of shapes, `batch` counts images or captions, `rows` the tokens of all sequences, concatenated, `seq`
//! the tokens of one sequence; `width` is that of a tower, `dim` that of the shared space, and `heads` counts attention
//! heads.

mod device_failure;
mod dual_encoder;
mod error;
mod families;
mod foreign_file;
mod form;
mod layers;
mod params;
mod pooled_layers;
mod pooling;
mod pretrained;
mod text;
mod tower;
mod transformer;
mod vision;
mod weights;

/// The tensor library. Its types are part of this crate's API.
pub use burn;
pub use dualenc_kernels::Activation;

pub use device_failure::DeviceFailure;
pub use dual_encoder::config::{DUAL_ENCODER_TYPE, DualEncoderConfig, HeadConfig, LOGIT_SCALE_INIT};
pub use dual_encoder::heads::block_head::{BlockHead, HeadBlock};
pub use dual_encoder::heads::form::{DEFAULT_BLOCKS, DEFAULT_EXPANSION, HeadForm, HeadKind};
pub use dual_encoder::heads::gated_head::GatedHead;
pub use dual_encoder::heads::head::{Head, IdentityHead, LinearPart};
pub use dual_encoder::heads::linear_head::LinearHead;
pub use dual_encoder::heads::residual_head::ResidualHead;
pub use dual_encoder::inference::{DualEncoderOutput, clip_loss};
pub use dual_encoder::layer_depth::{Layer, LayerDepths};
pub use dual_encoder::lock::{Lock, LockError, TowerLock, TowerTraining, Training};
pub use dual_encoder::lora::{ADAPTABLE, AdapterConfig};
pub use dual_encoder::model::{DualEncoder, logits_per_text, normalize};
pub use dual_encoder::token_heads::form::{
    DEFAULT_DROP_PATH, DEFAULT_TOKEN_BLOCKS, DEFAULT_TOKEN_WIDTH, TokenForm, TokenKind,
};
pub use dual_encoder::token_heads::query_head::QueryHead;
pub use dual_encoder::token_heads::token_blocks::TokenBlocks;
pub use dual_encoder::token_heads::token_head::TokenHead;
pub use error::{ModelError, ModelErrorCause};
pub use layers::dropout::Dropout;
pub use layers::layer_norm::LayerNorm;
pub use layers::linear::Linear;
pub use layers::norm::NormKind;
pub use params::audit::Audit;
pub use pooled_layers::{LayerNumbers, TakenLayers};
pub use pooling::{Pool, Pooling};
pub use pretrained::auto_text_pool::auto_text_pool;
pub use pretrained::build::{
    BuildOptions, BuiltModel, TowerOptions, TowerSource, build_from_dual_encoder, build_from_sources,
    build_from_towers, image_tower_from, text_tower_from,
};
pub use pretrained::config_file::{HEADS_TYPE, dual_encoder_types, is_dual_encoder_dir, refuse_heads_alone};
pub use pretrained::dry_load::{HeadSummary, ModelSummary, TowerSummary, dry_load};
pub use pretrained::sentence_transformers::sentence_pooling;
pub use pretrained::stored_names::StoredNames;
pub use pretrained::tower_files::{check_tower_dir, is_pooler_tensor};
pub use text::config::{EndOfText, TextPooler, TextTowerConfig};
pub use text::dense::{DenseActivation, DenseConfig};
pub use text::text_tower::TextTower;
pub use text::token_relations::{RelativeBuckets, TokenRelations};
pub use text::token_sequences::{PositionCount, TokenSequences};
pub use tower::{Tower, TowerOutput};
pub use transformer::config::{DisentangledConfig, EncoderConfig, NormOrder, RelativeTable};
pub use transformer::rotary::RotaryScaling;
pub use vision::conv_net::{ConvNet, ConvNetConfig, ConvNetKind};
pub use vision::image_tower::{ImageTower, ImageTowerConfig, ReferencePooling};
pub use vision::position_interpolation::Interpolation;
pub use vision::swin_transformer::{Swin, SwinConfig};
pub use vision::token_layout::TokenLayout;
pub use vision::vision_transformer::VisionTransformer;
pub use vision::vit_config::{FinalNorm, Pooler, PoolerActivation, Positions, VisionTransformerConfig};
pub use weights::decode::is_count;
pub use weights::header::WeightHeader;
pub use weights::host_tensor::HostTensor;
pub use weights::shard_index::shard_names;
pub use weights::weight_files::read_safetensors;
pub use weights::without_weights::directory_hint;

/// The parameters of a model, by path: listing, reading, replacing, hashing and freezing them.
pub mod parameters {
    pub use crate::params::fingerprint::{fingerprint, fingerprints};
    pub use crate::params::grad::{cast, lock, placeholder, scalar, unlock, untracked};
    pub use crate::params::inventory::{ParamFilter, ParamInfo, count, is_buffer, list};
    pub use crate::params::path::PathStack;
    pub use crate::params::values::{ParamReader, ParamUpdate, collect, host, host_all, readers, restore, update};
}

/// The example of the README, so that it keeps compiling.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
