//! `dualenc export`: writes a model as a directory that transformers loads as VisionTextDualEncoderModel and
//! VisionTextDualEncoderProcessor. It refuses a model that transformers would compute differently.
//!
//! - this file: the directory and its weights.
//! - `reference_limits`: what VisionTextDualEncoder can compute.
//! - `tokenizer_copy`: the files of the tokenizer.
//! - `json_files`: reading and writing JSON files.

use std::io::{self, Write};
use std::path::Path;

use dualenc_model::{DualEncoderConfig, HostTensor, StoredNames, parameters};
use parameters::ParamFilter;
use serde_json::Value;

use crate::commands::export::json_files::write_json;
use crate::commands::export::reference_limits::{check_text_pooling, exported_image_config};
use crate::commands::export::tokenizer_copy::copy_tokenizer;
use crate::commands::staged_output::StagedDir;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::models::load::LoadedModel;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::checkpoint::tensors::serialize;
use crate::stop_flag::StopFlag;

mod json_files;
pub(crate) mod reference_limits;
#[cfg(test)]
mod tests;
mod tokenizer_copy;

/// The file that makes a directory a model: written and moved last.
const CONFIG: &str = "config.json";

/// Bytes of the weights that are written between two checks of the stop flag: 16 MiB.
const BYTES_PER_CHECK: usize = 1 << 24;

/// Writes a model to `dir`, which must be empty or not exist yet, and is untouched until every file is written.
/// `observer` is notified of every way in which the exported model differs.
///
/// # Errors
/// [`TrainError::Usage`] when `dir` is not empty or transformers cannot compute what the model does;
/// [`TrainError::Write`] when a file cannot be written; [`TrainError::Stopped`] when `stop` is set.
pub fn export(
    loaded: &LoadedModel,
    dir: &Path,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let stopped = || stop.signal().map_or(Ok(()), |signal| Err(TrainError::Stopped { signal }));
    let (image_config, needs_identity_pooler) = exported_image_config(&loaded.model.image_tower, &loaded.image_config)?;
    check_text_pooling(&loaded.model.text_tower, &loaded.text_config)?;
    if let Some(difference) = loaded.processor.export_difference() {
        observer.on(Event::Warning(format!(
            "transformers has no image processor that matches this tower's exactly, and will process images a little \
             differently: {difference}"
        )));
    }
    let staged = StagedDir::new(dir)?;
    let names = StoredNames::new(&loaded.image_config, &loaded.text_config)?;
    let model = loaded.model.clone().with_adapters_merged();
    let mut parameters = parameters::collect(&model, ParamFilter::All)?;
    let logit_scale = parameters.get("logit_scale").and_then(|scale| scale.values.first().copied()).unwrap_or_default();
    if let Some(bias) = parameters.remove("logit_bias") {
        observer.on(Event::Note(format!(
            "VisionTextDualEncoder has no `logit_bias`: {} is left out; it shifts all logits alike, so rankings stay \
             the same, but add it to the logits to get SigLIP's probabilities",
            bias.values.first().copied().unwrap_or_default()
        )));
    }
    let mut tensors = names.stored(parameters)?;
    if needs_identity_pooler {
        let width = loaded.model.image_tower.width();
        tensors.insert("vision_model.pooler.dense.weight".to_owned(), HostTensor::identity(width));
        let bias = HostTensor { shape: vec![width], values: vec![0.0; width] };
        tensors.insert("vision_model.pooler.dense.bias".to_owned(), bias);
    }
    let config = DualEncoderConfig {
        projection_dim: loaded.model.embed_dim(),
        logit_scale_init_value: f64::from(logit_scale),
        vision_config: without_dtype(image_config),
        text_config: without_dtype(loaded.text_config.clone()),
    };
    stopped()?;
    let weights = serialize(tensors.into_iter().map(|(name, tensor)| (name, tensor.into())), dir)?;
    let written = write_whole(&staged.path().join("model.safetensors"), |file| write_weights(file, &weights, stop));
    stopped()?;
    written.map_err(|error| as_of(error, dir))?;
    let files = || {
        write_json(&staged.path().join(CONFIG), &config.to_json())?;
        write_json(&staged.path().join("preprocessor_config.json"), &loaded.processor.to_preprocessor_json())?;
        copy_tokenizer(&loaded.text_dir, &loaded.text_config, staged.path())
    };
    files().map_err(|error| as_of(error, dir))?;
    stopped()?;
    staged.commit(CONFIG)
}

/// Writes `weights` until `stop` is set, which is an error then.
fn write_weights(file: &mut dyn Write, weights: &[u8], stop: &StopFlag) -> io::Result<()> {
    for part in weights.chunks(BYTES_PER_CHECK) {
        if stop.signal().is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.write_all(part)?;
    }
    Ok(())
}

/// An error about a temporary file, as one about the same file of `dir`.
fn as_of(error: TrainError, dir: &Path) -> TrainError {
    match error {
        TrainError::Write { path, source } => {
            let path = path.file_name().map_or_else(|| dir.to_owned(), |name| dir.join(name));
            TrainError::Write { path, source }
        }
        other => other,
    }
}

/// A tower's config without the dtype it was saved in, to which transformers 5 would round the weights.
fn without_dtype(mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.remove("torch_dtype");
        config.remove("dtype");
    }
    config
}
