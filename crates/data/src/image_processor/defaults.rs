//! Defaults of the image processor types of transformers, and the type that each tower type uses.

use crate::image_processor::steps::{Description, Order, Statistics, Steps};
use crate::images::filter::Filter;
use crate::images::resize_geometry::{CenterCrop, Resize};

/// `IMAGENET_DEFAULT_MEAN` and `IMAGENET_DEFAULT_STD` of transformers (`image_utils.py`, also the next two).
pub(crate) const IMAGENET_DEFAULT: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
pub(crate) const IMAGENET_STANDARD: Statistics = ([0.5; 3], [0.5; 3]);
pub(crate) const OPENAI_CLIP: Statistics = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]);

/// Supported processor types, without the suffix `ImageProcessor`; `TimmWrapper` is read from timm's own file.
pub(crate) const KNOWN: [&str; 10] =
    ["ViT", "DeiT", "Beit", "CLIP", "Bit", "Siglip", "ChineseCLIP", "ConvNext", "EfficientNet", "DINOv3ViT"];

/// A processor type for people. Most are named as their towers; `Bit` is a tower that few know, and DINOv2's processor.
pub(crate) fn shown_name(family: &'static str) -> &'static str {
    match family {
        "Bit" => "BitImageProcessor (that of DINOv2)",
        "TimmWrapper" => "timm's transform",
        family => family,
    }
}

/// Sides from which ConvNext resizes without a crop (`image_processing_pil_convnext.py`).
const CONVNEXT_WARP_FROM: u32 = 384;

/// ConvNext's default `crop_pct`.
pub(crate) const CONVNEXT_CROP_FRACTION: f64 = 224.0 / 256.0;

/// Default `crop_size` of classes that do not crop by default.
pub(crate) const CROP_SIDE: u32 = 224;

const VIT: Steps = Steps::usual(Resize::Exact { height: 224, width: 224 }, Filter::Bilinear, None, IMAGENET_STANDARD);

/// The class attributes of a processor type (`image_processing_pil_*.py` of transformers 5.23); ViT's for unknown
/// types.
pub(crate) fn class_defaults(family: &str) -> Steps {
    let exact = |side| Some(Resize::Exact { height: side, width: side });
    let crop = Some(CenterCrop::new(224, 224));
    let bicubic = Steps { filter: Filter::Bicubic, ..VIT };
    match family {
        "DeiT" => Steps { resize: exact(256), crop, ..bicubic },
        "Beit" | "Siglip" => bicubic,
        "CLIP" | "Bit" | "ChineseCLIP" => {
            let resize = Some(Resize::ShortestEdge { edge: 224, longest: None });
            Steps { resize, crop, normalize: Some(OPENAI_CLIP), ..bicubic }
        }
        "ConvNext" => Steps { resize: exact(384), ..bicubic },
        "EfficientNet" => Steps { resize: exact(346), std_again: Some(IMAGENET_STANDARD.1), ..bicubic },
        "DINOv3ViT" => Steps { order: Order::RescaleFirst, normalize: Some(IMAGENET_DEFAULT), ..VIT },
        _ => VIT,
    }
}

/// ConvNext's rule: resize so that a centre crop of `side` keeps `crop_fraction`; for large sides, no crop.
pub(crate) fn convnext(side: u32, crop_fraction: f64) -> (Resize, Option<CenterCrop>) {
    if side >= CONVNEXT_WARP_FROM {
        return (Resize::Exact { height: side, width: side }, None);
    }
    let edge = (f64::from(side) / crop_fraction) as u32;
    (Resize::ShortestEdge { edge, longest: None }, Some(CenterCrop::new(side, side)))
}

/// Whether a single number as `size` means both sides (`default_to_square`).
pub(crate) fn defaults_to_square(family: &str) -> bool {
    !matches!(family, "CLIP" | "Bit" | "ChineseCLIP" | "Siglip" | "ConvNext")
}

/// The processor type for a tower's `model_type` (`image_processing_auto.py`).
pub(crate) fn of_model_type(model_type: &str) -> &'static str {
    match model_type {
        "deit" => "DeiT",
        "beit" | "data2vec-vision" => "Beit",
        "clip" | "clip_vision_model" => "CLIP",
        "chinese_clip" | "chinese_clip_vision_model" => "ChineseCLIP",
        "siglip" | "siglip_vision_model" => "Siglip",
        "bit" | "dinov2" | "dinov2_with_registers" | "hiera" | "focalnet" => "Bit",
        "dinov3_vit" | "dinov3_convnext" => "DINOv3ViT",
        "convnext" | "convnextv2" | "resnet" | "regnet" | "cvt" => "ConvNext",
        "efficientnet" | "align" => "EfficientNet",
        _ => "ViT",
    }
}

/// The processing of a tower without a processor file: that of the published checkpoints of its type.
///
/// DINOv2: shortest edge 256, crop 224, ImageNet statistics. DeiT and Swin: ImageNet statistics. ConvNeXt, ResNet and
/// RegNet: crop 224 of a shortest edge of 256. Others: the class attributes.
pub(crate) fn standard(model_type: &str) -> Description {
    let family = of_model_type(model_type);
    let class = class_defaults(family);
    let imagenet = Steps { normalize: Some(IMAGENET_DEFAULT), ..class };
    let steps = match model_type {
        "dinov2" | "dinov2_with_registers" => {
            Steps { resize: Some(Resize::ShortestEdge { edge: 256, longest: None }), ..imagenet }
        }
        "deit" => imagenet,
        "swin" | "swinv2" => Steps { filter: Filter::Bicubic, ..imagenet },
        "convnext" | "convnextv2" | "resnet" | "regnet" => {
            let (resize, crop) = convnext(224, CONVNEXT_CROP_FRACTION);
            Steps { resize: Some(resize), crop, ..imagenet }
        }
        _ => class,
    };
    Description { family, steps, is_default: true }
}
