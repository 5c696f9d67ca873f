//! The image towers of CLIP (Radford et al., 2021) and of SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al.,
//! 2025) at fixed resolution, by themselves or out of a whole model. CLIP pools its class token, SigLIP has none and
//! pools by attention.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::vit_config::{FinalNorm, Pooler, VisionTransformerConfig};
use crate::weights::layout::Layout::{LeadingVector, Patches, Same};
use crate::weights::matrix::Part;
use crate::weights::name_table::Kind::{Linear, Norm, PackedPart, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const CLIP: Family<ImageTowerConfig> = Family {
    model_types: &["clip_vision_model"],
    flag: None,
    names: Names { rows: ROWS, prefixes: PREFIXES, probe: "embeddings.patch_embedding" },
    config: clip,
};

pub(super) const SIGLIP: Family<ImageTowerConfig> =
    Family { model_types: &["siglip_vision_model"], config: siglip, ..CLIP };

/// Transformers 4 wrote the prefix `vision_model.` for a tower alone, and twice for one in a VisionTextDualEncoder.
const PREFIXES: &[&str] = &["", "vision_model.", "vision_model.vision_model."];

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embedding.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embedding.bias", Tensor(Same)),
    ("class_token", "embeddings.class_embedding", Tensor(LeadingVector(0))),
    ("positions", "embeddings.position_embedding.weight", Tensor(Same)),
    // The reference's spelling.
    ("first_norm", "pre_layrnorm", Norm),
    ("encoder.blocks.{n}.attention_norm", "encoder.layers.{n}.layer_norm1", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layers.{n}.self_attn.q_proj", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layers.{n}.self_attn.k_proj", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layers.{n}.self_attn.v_proj", Linear),
    ("encoder.blocks.{n}.attention.output", "encoder.layers.{n}.self_attn.out_proj", Linear),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layers.{n}.layer_norm2", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layers.{n}.mlp.fc1", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layers.{n}.mlp.fc2", Linear),
    ("final_norm", "post_layernorm", Norm),
    ("head.probe", "head.probe", Tensor(LeadingVector(2))),
    ("head.attention.query", "head.attention.in_proj", PackedPart(Part { index: 0, of: 3 })),
    ("head.attention.key", "head.attention.in_proj", PackedPart(Part { index: 1, of: 3 })),
    ("head.attention.value", "head.attention.in_proj", PackedPart(Part { index: 2, of: 3 })),
    ("head.attention.output", "head.attention.out_proj", Linear),
    ("head.norm", "head.layernorm", Norm),
    ("head.mlp.up", "head.mlp.fc1", Linear),
    ("head.mlp.down", "head.mlp.fc2", Linear),
];

fn clip(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (image_size, patch_size) = keys.image_and_patch(224, 32)?;
    let encoder = encoder(keys, Activation::QuickGelu, 1e-5)?;
    Ok(ImageTowerConfig::Transformer(VisionTransformerConfig {
        patch_bias: false,
        first_norm: true,
        final_norm: FinalNorm::Pooled,
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    }))
}

fn siglip(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (image_size, patch_size) = keys.image_and_patch(224, 16)?;
    let encoder = encoder(keys, Activation::GeluTanh, 1e-6)?;
    Ok(ImageTowerConfig::Transformer(VisionTransformerConfig {
        class_token: false,
        pooler: if keys.or("vision_use_head", true)? { Pooler::Attention } else { Pooler::None },
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    }))
}

fn encoder(keys: &Keys<'_>, activation: Activation, norm_epsilon: f64) -> Result<EncoderConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let depth = keys.or("num_hidden_layers", 12)?;
    let mlp_width = keys.or("intermediate_size", 3072)?;
    Ok(EncoderConfig {
        activation: keys.activation("hidden_act", activation)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", norm_epsilon)?,
        attention_dropout: keys.or("attention_dropout", 0.0)?,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    })
}
