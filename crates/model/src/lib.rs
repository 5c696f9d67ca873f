//! The dual encoder: image tower, text tower, two projections and a temperature, equal to Hugging Face's
//! `VisionTextDualEncoder`. This crate computes and loads; it does not train, and it writes no file.
//!
//! A directory that `VisionTextDualEncoderModel.save_pretrained` or `dualenc export` wrote, or that of a whole CLIP or
//! SigLIP, is read by one call:
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
//! Tokenizer and image processing are the crate `dualenc-data`'s, which knows nothing of this one. Which of two captions
//! describes an image:
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
//! A text tower that attends to padding ([`TextTowerConfig::pad_to`], SigLIP's) wants a tokenizer `with_padding_to` that
//! length. Tensors are Burn's, which this crate passes on as [`burn`]; the features `flex`, `wgpu`, `vulkan` and `cuda`
//! choose the devices.
//!
//! Shapes: `batch` images or captions, `rows` tokens of all sequences laid end to end, `width` of a tower, `dim` of the
//! shared space, `heads` of attention, `seq` tokens of one sequence.

mod adapters;
mod attention;
mod composite;
mod conv;
mod conv_net;
mod depth;
mod disentangled;
mod dual_encoder;
mod dual_encoder_config;
mod encoder;
mod error;
mod family;
mod headers;
mod image_tower;
mod inference;
mod layers;
mod lock;
mod names;
mod open_clip;
mod outline;
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

pub use adapters::{ADAPTABLE, Adapter, AdapterConfig};
/// The tensor library whose types stand in this interface.
pub use burn;
pub use composite::DUAL_ENCODER_TYPE;
pub use conv_net::{ConvNet, ConvNetConfig, ConvNetKind};
pub use depth::{Depths, Layer};
pub use disentangled::DisentangledConfig;
pub use dual_encoder::{DualEncoder, HeadConfig, LOGIT_SCALE_INIT, logits_per_text, normalize};
pub use dual_encoder_config::DualEncoderConfig;
pub use encoder::{EncoderConfig, NormOrder, RelativeTable};
pub use error::ModelError;
pub use headers::{WeightHeader, weight_headers};
pub use image_tower::{ImageTower, ImageTowerConfig, ReferencePooling, TowerOutput};
pub use inference::{DualEncoderOutput, clip_loss};
pub use layers::{Activation, Dropout, LayerNorm, Linear};
pub use lock::{Lock, LockError, TowerLock, TowerTraining, Training};
pub use outline::{HeadOutline, Outline, TowerOutline, outline};
pub use params::Audit;
pub use pool::{Pool, Pooling};
pub use pretrained::{
    BuildOptions, Built, StoredNames, TowerOptions, build_from_dual_encoder, build_from_towers, dual_encoder_types,
    image_tower_from, is_dual_encoder_dir, is_of_pooler, text_tower_from,
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
