//! The tensors of a model under the names of the reference, part by part, and how they are written.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use dualenc_model::{DualEncoder, HostTensor, StoredNames, Tower, parameters};
use parameters::ParamFilter;
use serde_json::Value;

use crate::commands::export::head_part::HeadPart;
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::run_dir::atomic_file::write_whole;
use crate::run_dir::checkpoint::tensors::serialize;
use crate::stop_flag::StopFlag;

/// The prefixes of the towers' tensors in a VisionTextDualEncoder.
const TOWER_PREFIXES: [&str; 2] = ["vision_model.", "text_model."];

/// Bytes of the weights that are written between two checks of the stop flag: 16 MiB.
const BYTES_PER_CHECK: usize = 1 << 24;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, HostTensor>;

/// The tensors of a model.
pub(crate) struct ModelParts {
    /// The image tower, as transformers names its tensors when it is loaded by itself.
    pub image: Tensors,
    /// The text tower.
    pub text: Tensors,
    pub image_head: HeadPart,
    pub text_head: HeadPart,
    /// A logarithm.
    pub logit_scale: f32,
    /// Of models that were trained with the sigmoid loss.
    pub logit_bias: Option<f32>,
}

impl ModelParts {
    /// The tensors of `loaded`, with low-rank adapters added to the weights.
    ///
    /// # Errors
    /// [`TrainError::Model`] if a tensor has no name there; [`TrainError::Internal`] if the head is incomplete.
    pub fn new(loaded: &LoadedModel) -> Result<Self, TrainError> {
        let names = StoredNames::new(&loaded.image_config, &loaded.text_config)?;
        let model: DualEncoder = loaded.model.clone().with_adapters_merged();
        let mut parameters = parameters::collect(&model, ParamFilter::All)?;
        let logit_bias = match parameters.remove("logit_bias") {
            Some(bias) => Some(single(&bias, "logit_bias")?),
            None => None,
        };
        let mut head = |tower, head| HeadPart::take_from(&mut parameters, tower, head).with_matrix();
        let image_head = head(Tower::Image, &model.image_projection);
        let text_head = head(Tower::Text, &model.text_projection);
        let mut rest = names.stored(parameters)?;
        let [image, text] = TOWER_PREFIXES.map(|prefix| {
            let in_tower = rest.extract_if(.., |name, _| name.starts_with(prefix));
            in_tower.map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
        });
        let scale = rest.remove("logit_scale");
        let scale = scale.ok_or_else(|| TrainError::Internal("the model has no `logit_scale` to export".to_owned()))?;
        let logit_scale = single(&scale, "logit_scale")?;
        if let Some(name) = rest.keys().next() {
            return Err(TrainError::Internal(format!("the export has no place for the tensor `{name}`")));
        }
        Ok(Self { image, text, image_head, text_head, logit_scale, logit_bias })
    }

    /// The tensors as one VisionTextDualEncoder stores them. Its heads are matrices (`head_limits::check_heads`).
    ///
    /// # Errors
    /// [`TrainError::Internal`] when a head has no matrix.
    pub fn into_dual_encoder(mut self) -> Result<Tensors, TrainError> {
        let mut tensors = Tensors::new();
        for (prefix, tower) in TOWER_PREFIXES.into_iter().zip([self.image, self.text]) {
            tensors.extend(tower.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        tensors.insert("visual_projection.weight".to_owned(), self.image_head.take("weight")?);
        tensors.insert("text_projection.weight".to_owned(), self.text_head.take("weight")?);
        let scale = HostTensor { shape: Vec::new(), values: vec![self.logit_scale] };
        tensors.insert("logit_scale".to_owned(), scale);
        Ok(tensors)
    }
}

fn single(tensor: &HostTensor, name: &str) -> Result<f32, TrainError> {
    tensor.values.first().copied().ok_or_else(|| TrainError::Internal(format!("`{name}` holds no value")))
}

/// Writes `tensors` to `path` until `stop` is set.
///
/// # Errors
/// [`TrainError::Write`]; [`TrainError::Stopped`] when `stop` is set.
pub(crate) fn write_tensors(path: &Path, tensors: Tensors, stop: &StopFlag) -> Result<(), TrainError> {
    let weights = serialize(tensors.into_iter().map(|(name, tensor)| (name, tensor.into())), path)?;
    let written = write_whole(path, |file| write_parts(file, &weights, stop));
    stop.signal().map_or(written, |signal| Err(TrainError::Stopped { signal }))
}

/// Writes `weights` until `stop` is set, which is an error then.
fn write_parts(file: &mut dyn Write, weights: &[u8], stop: &StopFlag) -> io::Result<()> {
    for part in weights.chunks(BYTES_PER_CHECK) {
        if stop.signal().is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.write_all(part)?;
    }
    Ok(())
}

/// A tower's config without the dtype it was saved in, to which transformers 5 would round the weights.
pub(crate) fn without_dtype(mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.remove("torch_dtype");
        config.remove("dtype");
    }
    config
}
