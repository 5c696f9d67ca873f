//! `dualenc embed`: writes embeddings of images and texts to one safetensors file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use dualenc_data::{ImageRef, Skipped, image_files};
use safetensors::tensor::{Dtype, TensorView};

use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::encoder::{Embeddings, Encoder};
use crate::events::{Event, Observer};
use crate::features::locked_towers::LockedTowers;
use crate::models::load::LoadedModel;
use crate::run_dir::atomic_file::write_whole;
use crate::stop_flag::StopFlag;
use crate::text_lines::read_lines;

/// What to embed, and how.
#[derive(Debug, Clone)]
pub struct EmbedRequest<'a> {
    /// An image, or a folder of images with its subfolders.
    pub images: Option<&'a Path>,
    /// A file with one text per line.
    pub texts: Option<&'a Path>,
    /// Whether to also write the projections before normalisation.
    pub raw: bool,
    /// Images or texts per forward pass.
    pub batch_size: usize,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedded {
    /// Rows of `image_embeds`.
    pub num_images: usize,
    /// Rows of `text_embeds`.
    pub num_texts: usize,
    /// Width of both.
    pub dim: usize,
    /// Images that could not be used, which have no row.
    pub skipped: Vec<Skipped>,
}

/// Writes L2-normalised embeddings to `out`: `image_embeds`, shape `[images, dim]`, and `text_embeds`, shape
/// `[texts, dim]`. With `raw`, also writes `image_features` and `text_features`. The metadata entry `image_paths` is a
/// JSON list with one path per row.
///
/// # Errors
/// [`TrainError::Usage`] when there is nothing to embed; [`TrainError::Read`] or [`TrainError::Data`] when a file
/// cannot be read; [`TrainError::Write`] when `out` cannot be written.
pub fn embed(
    loaded: &LoadedModel,
    request: &EmbedRequest<'_>,
    out: &Path,
    compute: &Compute,
    observer: &mut dyn Observer,
) -> Result<Embedded, TrainError> {
    if request.images.is_none() && request.texts.is_none() {
        return Err(TrainError::Usage("there is nothing to embed; give `--images`, `--texts` or both".to_owned()));
    }
    let model = loaded.model.valid();
    let stop = StopFlag::default();
    let encoder = Encoder {
        model: &model,
        tokenizer: &loaded.tokenizer,
        locked: &LockedTowers::new(&model, &loaded.processor, compute, compute.threads, &stop),
        compute,
        workers: compute.threads,
        stop: &stop,
        batch_size: request.batch_size,
    };
    let mut done = Embedded { num_images: 0, num_texts: 0, dim: model.embed_dim(), skipped: Vec::new() };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut metadata = HashMap::new();
    let mut add = |kind: &str, embeddings: &Embeddings| {
        let shape = vec![embeddings.features.len() / embeddings.dim, embeddings.dim];
        tensors.push((format!("{kind}_embeds"), shape.clone(), to_bytes(&embeddings.normalized())));
        if request.raw {
            tensors.push((format!("{kind}_features"), shape, to_bytes(&embeddings.features)));
        }
    };
    if let Some(path) = request.images {
        let files = image_files(path)?;
        let images: Arc<Vec<ImageRef>> = Arc::new(files.into_iter().map(ImageRef::File).collect());
        let total = images.len();
        let (usable, embeddings, skipped) = encoder.images(images.clone(), &loaded.processor, |done| {
            observer.on(Event::Work { name: "images", done, total });
        })?;
        skipped.iter().for_each(|skipped| observer.on(Event::Skipped(skipped)));
        let paths: Vec<String> = usable.iter().map(|&image| images[image].key()).collect();
        metadata.insert("image_paths".to_owned(), serde_json::Value::from(paths).to_string());
        add("image", &embeddings);
        (done.num_images, done.skipped) = (usable.len(), skipped);
    }
    if let Some(path) = request.texts {
        let texts = read_lines(path)?;
        let embeddings = encoder.texts(&texts, |done| {
            observer.on(Event::Work { name: "texts", done, total: texts.len() });
        })?;
        add("text", &embeddings);
        done.num_texts = texts.len();
    }
    let malformed = |error: safetensors::SafeTensorError| {
        TrainError::Usage(format!("cannot serialize `{}`: {error}", out.display()))
    };
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>()
        .map_err(malformed)?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(malformed)?;
    write_whole(out, |file| file.write_all(&bytes))?;
    Ok(done)
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
