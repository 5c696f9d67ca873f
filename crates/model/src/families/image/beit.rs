//! BEiT (Bao et al., 2022) and Data2VecVision (Baevski et al., 2022), which has the same architecture: relative
//! position bias, LayerScale, and a mean of patches as its `pooler_output`.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::transformer::config::{EncoderConfig, NormOrder, RelativeTable};
use crate::vision::image_tower::ImageTowerConfig;
use crate::vision::position_interpolation::Interpolation;
use crate::vision::relative_offsets::beit_table_rows;
use crate::vision::vit_config::{FinalNorm, Pooler, Positions, VisionTransformerConfig};
use crate::weights::layout::Layout::{Leading, LeadingVector, Patches, Same};
use crate::weights::name_table::Kind::{Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const BEIT: Family<ImageTowerConfig> = Family {
    model_types: &["beit", "data2vec-vision"],
    flag: None,
    names: Names { rows: ROWS, prefixes: &["", "beit.", "data2vec_vision."], probe: "embeddings.patch_embeddings" },
    config,
};

const ROWS: &[Row] = &[
    ("patch.weight", "embeddings.patch_embeddings.projection.weight", Tensor(Patches)),
    ("patch.bias", "embeddings.patch_embeddings.projection.bias", Tensor(Same)),
    ("class_token", "embeddings.cls_token", Tensor(LeadingVector(2))),
    ("mask_token", "embeddings.mask_token", Tensor(LeadingVector(2))),
    ("positions", "embeddings.position_embeddings", Tensor(Leading(1))),
    ("encoder.relative_bias.table", "encoder.relative_position_bias.relative_position_bias_table", Tensor(Same)),
    ("encoder.blocks.{n}.attention_norm", "encoder.layer.{n}.layernorm_before", Norm),
    ("encoder.blocks.{n}.attention.query", "encoder.layer.{n}.attention.attention.query", Linear),
    ("encoder.blocks.{n}.attention.key", "encoder.layer.{n}.attention.attention.key", Linear),
    ("encoder.blocks.{n}.attention.value", "encoder.layer.{n}.attention.attention.value", Linear),
    (
        "encoder.blocks.{n}.relative_bias.table",
        "encoder.layer.{n}.attention.attention.relative_position_bias.relative_position_bias_table",
        Tensor(Same),
    ),
    ("encoder.blocks.{n}.attention.output", "encoder.layer.{n}.attention.output.dense", Linear),
    ("encoder.blocks.{n}.attention_scale", "encoder.layer.{n}.lambda_1", Tensor(Same)),
    ("encoder.blocks.{n}.mlp_norm", "encoder.layer.{n}.layernorm_after", Norm),
    ("encoder.blocks.{n}.mlp.up", "encoder.layer.{n}.intermediate.dense", Linear),
    ("encoder.blocks.{n}.mlp.down", "encoder.layer.{n}.output.dense", Linear),
    ("encoder.blocks.{n}.mlp_scale", "encoder.layer.{n}.lambda_2", Tensor(Same)),
    ("final_norm", "layernorm", Norm),
    ("pooler_norm", "pooler.layernorm", Norm),
];

fn config(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (width, heads) = keys.width_and_heads("hidden_size", "num_attention_heads")?;
    let (image_size, patch_size) = keys.image_and_patch(224, 16)?;
    let (depth, mlp_width) = (keys.or("num_hidden_layers", 12)?, keys.or("intermediate_size", 3072)?);
    let rows = beit_table_rows([image_size / patch_size; 2]);
    let each = keys.or("use_relative_position_bias", false)?;
    let relative = match (each, keys.or("use_shared_relative_position_bias", false)?) {
        (true, true) => {
            return Err(keys.problem(
                "`use_relative_position_bias` and `use_shared_relative_position_bias` are both set; only one is \
                 supported"
                    .to_owned(),
            ));
        }
        (true, false) => RelativeTable::EachBlock(rows),
        (false, true) => RelativeTable::Shared(rows),
        (false, false) => RelativeTable::None,
    };
    let encoder = EncoderConfig {
        activation: keys.activation("hidden_act", Activation::Gelu)?,
        norm_order: NormOrder::Pre,
        norm_epsilon: keys.or("layer_norm_eps", 1e-12)?,
        layer_scale: Some(keys.or("layer_scale_init_value", 0.1)?).filter(|value| *value > 0.0),
        key_bias: false,
        relative,
        hidden_dropout: keys.or("hidden_dropout_prob", 0.0)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", 0.0)?,
        // Linear in depth (`BeitEncoder` of modeling_beit.py, `Data2VecVisionEncoder` of modeling_data2vec_vision.py).
        drop_path: keys.drop_path(0.1)?,
        drop_path_grows: true,
        init_std: keys.or("initializer_range", 0.02)?,
        ..EncoderConfig::plain(width, depth, heads, mlp_width)
    };
    let (pooler, final_norm) = if keys.or("use_mean_pooling", true)? {
        (Pooler::MeanNorm, FinalNorm::None)
    } else {
        (Pooler::ClassToken, FinalNorm::Tokens)
    };
    let positions = if keys.or("use_absolute_position_embeddings", false)? {
        Positions::Learned(Interpolation::Bicubic)
    } else {
        Positions::None
    };
    Ok(ImageTowerConfig::Transformer(VisionTransformerConfig {
        mask_token: keys.or("use_mask_token", false)?,
        positions,
        pooler,
        final_norm,
        ..VisionTransformerConfig::plain(encoder, image_size, patch_size)
    }))
}
