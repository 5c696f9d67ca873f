//! ResNet (He et al., 2016), ConvNeXt (Liu et al., 2022) and ConvNeXt V2 (Woo et al., 2023). Their configs have no
//! `hidden_size`: the width is that of the last stage.

use dualenc_kernels::Activation;

use crate::error::ModelError;
use crate::families::config_reader::Keys;
use crate::families::family::Family;
use crate::vision::conv_net::{ConvNetConfig, ConvNetKind};
use crate::vision::image_tower::ImageTowerConfig;
use crate::weights::layout::Layout::{Leading, Same};
use crate::weights::name_table::Kind::{BatchNorm, Linear, Norm, Tensor};
use crate::weights::name_table::{Names, Row};

pub(super) const RESNET: Family<ImageTowerConfig> = Family {
    model_types: &["resnet"],
    flag: None,
    names: Names { rows: RESNET_ROWS, prefixes: &["", "resnet."], probe: "embedder.embedder" },
    config: resnet,
};

pub(super) const CONVNEXT: Family<ImageTowerConfig> = Family {
    model_types: &["convnext"],
    flag: None,
    names: Names {
        rows: CONVNEXT_ROWS,
        prefixes: &["", "convnext.", "convnextv2."],
        probe: "embeddings.patch_embeddings",
    },
    config: |keys| convnext(keys, false),
};

pub(super) const CONVNEXT_V2: Family<ImageTowerConfig> =
    Family { model_types: &["convnextv2"], config: |keys| convnext(keys, true), ..CONVNEXT };

const RESNET_ROWS: &[Row] = &[
    ("stem.conv", "embedder.embedder.convolution", Norm),
    ("stem.norm", "embedder.embedder.normalization", BatchNorm),
    ("stages.{n}.blocks.{n}.shortcut.conv", "encoder.stages.{n}.layers.{n}.shortcut.convolution", Norm),
    ("stages.{n}.blocks.{n}.shortcut.norm", "encoder.stages.{n}.layers.{n}.shortcut.normalization", BatchNorm),
    ("stages.{n}.blocks.{n}.layers.{n}.conv", "encoder.stages.{n}.layers.{n}.layer.{n}.convolution", Norm),
    ("stages.{n}.blocks.{n}.layers.{n}.norm", "encoder.stages.{n}.layers.{n}.layer.{n}.normalization", BatchNorm),
];

const CONVNEXT_ROWS: &[Row] = &[
    ("stem.conv", "embeddings.patch_embeddings", Norm),
    ("stem.norm", "embeddings.layernorm", Norm),
    ("stages.{n}.halving.norm", "encoder.stages.{n}.downsampling_layer.0", Norm),
    ("stages.{n}.halving.conv", "encoder.stages.{n}.downsampling_layer.1", Norm),
    ("stages.{n}.blocks.{n}.conv", "encoder.stages.{n}.layers.{n}.dwconv", Norm),
    ("stages.{n}.blocks.{n}.norm", "encoder.stages.{n}.layers.{n}.layernorm", Norm),
    ("stages.{n}.blocks.{n}.up", "encoder.stages.{n}.layers.{n}.pwconv1", Linear),
    ("stages.{n}.blocks.{n}.response_norm.weight", "encoder.stages.{n}.layers.{n}.grn.weight", Tensor(Leading(3))),
    ("stages.{n}.blocks.{n}.response_norm.bias", "encoder.stages.{n}.layers.{n}.grn.bias", Tensor(Leading(3))),
    ("stages.{n}.blocks.{n}.down", "encoder.stages.{n}.layers.{n}.pwconv2", Linear),
    ("stages.{n}.blocks.{n}.scale", "encoder.stages.{n}.layers.{n}.layer_scale_parameter", Tensor(Same)),
    ("final_norm", "layernorm", Norm),
];

fn resnet(keys: &Keys<'_>) -> Result<ImageTowerConfig, ModelError> {
    let (widths, depths) = stages(keys, [256, 512, 1024, 2048], [3, 4, 6, 3])?;
    let bottleneck = match keys.text("layer_type", "bottleneck")? {
        "bottleneck" => true,
        "basic" => false,
        other => return Err(keys.problem(format!("`layer_type` is `{other}`; supported: bottleneck, basic"))),
    };
    Ok(ImageTowerConfig::Convolutional(ConvNetConfig {
        widths,
        depths,
        activation: keys.activation("hidden_act", Activation::Relu)?,
        kind: ConvNetKind::Residual {
            stem_width: keys.or("embedding_size", 64)?,
            bottleneck,
            halve_first: keys.or("downsample_in_first_stage", false)?,
            halve_early: keys.or("downsample_in_bottleneck", false)?,
        },
    }))
}

fn convnext(keys: &Keys<'_>, response_norm: bool) -> Result<ImageTowerConfig, ModelError> {
    let (widths, depths) = stages(keys, [96, 192, 384, 768], [3, 3, 9, 3])?;
    let layer_scale: f64 = keys.or("layer_scale_init_value", 1e-6)?;
    let (_, patch_size) = keys.image_and_patch(224, 4)?;
    Ok(ImageTowerConfig::Convolutional(ConvNetConfig {
        widths,
        depths,
        activation: keys.activation("hidden_act", Activation::Gelu)?,
        kind: ConvNetKind::Next {
            patch_size,
            layer_scale: (!response_norm && layer_scale > 0.0).then_some(layer_scale),
            response_norm,
            norm_epsilon: keys.or("layer_norm_eps", 1e-12)?,
            init_std: keys.or("initializer_range", 0.02)?,
        },
    }))
}

/// Widths and depths of the stages.
fn stages(keys: &Keys<'_>, widths: [usize; 4], depths: [usize; 4]) -> Result<(Vec<usize>, Vec<usize>), ModelError> {
    let (widths, depths) = (keys.or("hidden_sizes", widths.to_vec())?, keys.or("depths", depths.to_vec())?);
    if widths.is_empty() || widths.len() != depths.len() || widths.contains(&0) {
        return Err(keys.problem(format!(
            "`hidden_sizes` {widths:?} and `depths` {depths:?} must name the same number of stages, at least one"
        )));
    }
    match keys.or("num_channels", 3)? {
        3 => Ok((widths, depths)),
        other => Err(keys.problem(format!("`num_channels` is {other}; images have 3"))),
    }
}
