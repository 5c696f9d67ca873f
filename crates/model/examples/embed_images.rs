//! Embeds two images with a whole model and prints their cosine similarity.
//!
//! ```sh
//! cargo run --release -p dualenc-model --example embed_images -- hf/ first.png second.png
//! ```
//!
//! `hf/` is what `dualenc export` or transformers wrote: a VisionTextDualEncoder, a CLIP or a SigLIP.

#![allow(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::path::Path;

use dualenc_data::{ImageProcessor, Limits, decode};
use dualenc_model::burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::{DualEncoder, normalize};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model_dir, first, second] = &arguments[..] else {
        return Err("usage: embed_images MODEL_DIR FIRST_IMAGE SECOND_IMAGE".into());
    };
    let model = DualEncoder::from_pretrained(Path::new(model_dir), &Device::flex())?;
    let processor = ImageProcessor::from_dir(model_dir)?;

    let (height, width) = processor.output_size();
    let mut pixels = Vec::new();
    for image in [first, second] {
        pixels.extend(processor.process(&decode(&std::fs::read(image)?, &Limits::default())?));
    }
    // [2, 3, height, width]
    let pixels = TensorData::new(pixels, [2, 3, height as usize, width as usize]);
    let pixels = Tensor::from_data(pixels, &model.device());

    // [2, dim], then normalised to length 1.
    let embeds = normalize(model.get_image_features(pixels));
    let cosines = embeds.clone().matmul(embeds.transpose());
    let cosine = cosines.slice([0..1, 1..2]).into_scalar::<f32>();
    println!("{cosine:.4}");
    Ok(())
}
