//! A directory with the heads alone: what maps features of images and of texts to embeddings. It is all there is of a
//! model without towers.

use std::path::Path;

use dualenc_model::{HostTensor, Tower, parameters};
use parameters::ParamFilter;
use serde_json::json;

use crate::commands::export::json_files::write_json;
use crate::commands::export::parts::{Tensors, write_tensors};
use crate::error::TrainError;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// The file that makes a directory a pair of heads: written and moved last.
pub(crate) const CONFIG: &str = "config.json";

/// The `model_type` in it.
const MODEL_TYPE: &str = "dualenc-heads";

/// Refuses a format that needs towers which the model does not have.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn check_towers(loaded: &LoadedModel, format: &str) -> Result<(), TrainError> {
    let model = &loaded.model;
    let absent = match (model.image_tower.is_absent(), model.text_tower.is_absent()) {
        (false, false) => return Ok(()),
        (true, false) => "no image tower",
        (false, true) => "no text tower",
        (true, true) => "no towers",
    };
    Err(TrainError::Usage(format!(
        "{format} needs a whole model, but this one has {absent}: it was trained on features from files; export \
         what it has with `--format heads`"
    )))
}

/// Fills `dir`: `model.safetensors` with every parameter outside of the towers, matrices as `[output, input]`, and
/// `config.json` with their kinds and widths.
///
/// # Errors
/// [`TrainError::Write`]; [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when
/// `stop` is set.
pub(crate) fn write(loaded: &LoadedModel, dir: &Path, stop: &StopFlag) -> Result<(), TrainError> {
    let model = &loaded.model;
    let all = parameters::collect(model, ParamFilter::All)?;
    let heads = all.into_iter().filter(|(name, _)| Tower::of(name).is_none());
    let tensors: Tensors = heads.map(|(name, tensor)| (name, transposed(tensor))).collect();
    let of_files = |is_absent: bool| if is_absent { "features" } else { "tower" };
    let (image, text) = (model.image_projection.form(), model.text_projection.form());
    let config = json!({
        "model_type": MODEL_TYPE,
        "embed_dim": model.embed_dim(),
        "image": {
            "kind": image.kind.name(),
            "bias": image.bias,
            "width": model.image_tower.width(),
            "input": of_files(model.image_tower.is_absent()),
        },
        "text": {
            "kind": text.kind.name(),
            "bias": text.bias,
            "width": model.text_tower.pooled_width(),
            "input": of_files(model.text_tower.is_absent()),
        },
    });
    write_tensors(&dir.join("model.safetensors"), tensors, stop)?;
    write_json(&dir.join(CONFIG), &config)
}

/// A matrix as `torch.nn.Linear` stores it; other tensors as they are.
fn transposed(tensor: HostTensor) -> HostTensor {
    let &[rows, columns] = &tensor.shape[..] else { return tensor };
    let value = |at: usize| tensor.values[at % rows * columns + at / rows];
    HostTensor { shape: vec![columns, rows], values: (0..rows * columns).map(value).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_transposed() {
        let matrix = HostTensor { shape: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let expected = HostTensor { shape: vec![3, 2], values: vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0] };
        assert_eq!(transposed(matrix), expected);
    }
}
