//! Writes the steps as a `preprocessor_config.json`, and says where the reference would then process differently.

use serde_json::{Value, json};

use crate::image_processor::steps::Steps;
use crate::images::resize_geometry::{CenterCrop, CropStyle, Resize};

/// See [`crate::ImageProcessor::to_preprocessor_json`].
pub(crate) fn preprocessor_json(family: &str, steps: &Steps) -> Value {
    let (height, width) = steps.output_size();
    let size = match steps.resize {
        Some(Resize::ShortestEdge { edge, longest: None }) => json!({"shortest_edge": edge}),
        Some(Resize::ShortestEdge { edge, longest: Some(longest) }) => {
            json!({"shortest_edge": edge, "longest_edge": longest})
        }
        Some(Resize::Exact { height, width }) => json!({"height": height, "width": width}),
        Some(Resize::KeepRatio { height, width, inside }) => {
            json!({"shortest_edge": if inside { height.min(width) } else { height.max(width) }})
        }
        None => json!({"height": height, "width": width}),
    };
    let family = match family {
        "ConvNext" | "TimmWrapper" if steps.crop.is_some() => "CLIP",
        "ConvNext" | "TimmWrapper" => "ViT",
        family => family,
    };
    let (mean, std) = steps.normalize.unwrap_or(([0.0; 3], steps.std_again.unwrap_or([1.0; 3])));
    let mut file = json!({
        "image_processor_type": format!("{family}ImageProcessor"),
        "do_convert_rgb": true,
        "do_resize": steps.resize.is_some(),
        "size": size,
        "resample": steps.filter.code(),
        "do_center_crop": steps.crop.is_some(),
        "crop_size": {"height": height, "width": width},
        "do_rescale": steps.rescale.is_some(),
        "rescale_factor": steps.rescale.unwrap_or(1.0 / 255.0),
        "do_normalize": steps.normalize.is_some(),
        "image_mean": mean,
        "image_std": std,
    });
    if family == "EfficientNet" {
        file["rescale_offset"] = json!(steps.minus_one);
        file["include_top"] = json!(steps.std_again.is_some());
    }
    file
}

/// See [`crate::ImageProcessor::export_difference`].
pub(crate) fn difference(steps: &Steps) -> Option<&'static str> {
    match (steps.resize, steps.crop) {
        (Some(Resize::KeepRatio { .. }), _) => {
            Some("timm's resize to a rectangle is written as a resize of the shorter side, its borders as a crop")
        }
        (_, Some(CenterCrop { style: CropStyle::Torchvision { .. }, .. })) => {
            Some("where the centre falls between two pixels, transformers may crop one pixel off")
        }
        _ => None,
    }
}
