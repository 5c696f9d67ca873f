//! Fixtures, comparisons and options, shared by all tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::{
    BuildOptions, DualEncoder, HeadConfig, HostTensor, Lock, Pool, PositionCount, TokenSequences, TowerOptions,
    parameters, read_safetensors,
};
use safetensors::SafeTensors;

/// The largest difference from the outputs of the reference, which are of order 1.
pub const TOLERANCE: f32 = 1e-4;

pub fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

/// The device that `DUALENC_TEST_DEVICE` names, by default the CPU.
#[cfg_attr(feature = "ndarray", expect(deprecated, reason = "Burn's older CPU backend is tested too"))]
pub fn device() -> Device {
    match std::env::var("DUALENC_TEST_DEVICE").as_deref() {
        Err(_) => Device::flex(),
        #[cfg(feature = "ndarray")]
        Ok("ndarray") => Device::ndarray(),
        #[cfg(feature = "wgpu-untuned")]
        Ok("wgpu") => {
            // With the kernels that add up by planes, which software Vulkan does not report.
            dualenc_kernels::assume_plane_operations();
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
        }
        #[cfg(feature = "cubecl-cpu")]
        Ok("cubecl-cpu") => Device::cpu(),
        Ok(name) => panic!("`DUALENC_TEST_DEVICE` is `{name}`, which these tests or this build do not have"),
    }
}

pub fn cls() -> TowerOptions {
    TowerOptions { pool: Pool::Cls, ..TowerOptions::default() }
}

/// The output of the reference for one fixture: `expected.safetensors`.
pub struct Expected {
    pub floats: BTreeMap<String, HostTensor>,
    pub ints: BTreeMap<String, Vec<Vec<u32>>>,
}

impl Expected {
    pub fn read(dir: &Path) -> Self {
        Self::of_file(&dir.join("expected.safetensors"))
    }

    pub fn of_file(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut ints = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            if view.dtype() == safetensors::Dtype::I64 {
                let values: Vec<u32> =
                    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
                ints.insert(name.to_owned(), values.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect());
            }
        }
        Self { floats: read_safetensors(path).unwrap(), ints }
    }

    /// The captions of one case, without their padding, and the attention mask.
    pub fn tokens(&self, case: &str, count: PositionCount) -> Option<(TokenSequences, &[Vec<u32>])> {
        let ids = self.ints.get(&format!("input_ids{case}"))?;
        let mask = &self.ints[&format!("attention_mask{case}")];
        let zeros = vec![vec![0; ids[0].len()]; ids.len()];
        let types = self.ints.get(&format!("token_type_ids{case}")).unwrap_or(&zeros);
        Some((TokenSequences::from_padded(ids, types, mask, count), mask))
    }

    pub fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        let tensor = &self.floats[name];
        Tensor::from_data(TensorData::new(tensor.values.clone(), tensor.shape.clone()), &device())
    }
}

#[track_caller]
pub fn assert_close<const D: usize>(name: &str, found: Tensor<D>, expected: &[f32]) {
    let found = parameters::host(found).unwrap().values;
    assert_eq!(found.len(), expected.len(), "{name}: number of values");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = expected.iter().map(|v| v.abs()).fold(0.0, f32::max);
    assert!(largest > 0.05, "{name}: expected values are too small ({largest}) to compare");
    assert!(worst <= TOLERANCE, "{name}: differs by {worst}");
}

/// Compares every output of the forward pass with the reference; the loss only if it is stored.
#[track_caller]
pub fn assert_dual_encoder(name: &str, model: &DualEncoder, expected: &Expected) {
    let (tokens, _) = expected.tokens("", model.text_tower.config().position_count()).unwrap();
    let pixels: Tensor<4> = expected.tensor("pixel_values");
    let output = model.forward(pixels.clone(), &tokens, true).unwrap();
    for (part, found) in [
        ("image_features", model.get_image_features(pixels)),
        ("text_features", model.get_text_features(&tokens).unwrap()),
        ("image_embeds", output.image_embeds),
        ("text_embeds", output.text_embeds),
        ("logits_per_image", output.logits_per_image.transpose()),
        ("logits_per_text", output.logits_per_text),
    ] {
        let stored = if part == "logits_per_image" { "logits_per_text" } else { part };
        assert_close(&format!("{name} {part}"), found, &expected.floats[stored].values);
    }
    if let Some(loss) = expected.floats.get("loss") {
        assert_close(&format!("{name} loss"), output.loss.unwrap(), &loss.values);
    }
}

/// The rows of a padded `[batch, seq, width]` tensor where the mask is 1.
pub fn real_rows(padded: &HostTensor, mask: &[Vec<u32>]) -> Vec<f32> {
    let width = padded.shape[2];
    let rows = padded.values.chunks_exact(width).zip(mask.iter().flatten());
    rows.filter(|(_, mask)| **mask == 1).flat_map(|(row, _)| row.to_vec()).collect()
}

pub fn options(lock: &str) -> BuildOptions {
    BuildOptions {
        lock: lock.parse::<Lock>().unwrap(),
        image: TowerOptions::default(),
        text: TowerOptions::default(),
        image_projection_locked: false,
        text_projection_locked: false,
        head: HeadConfig::linear(7, 0.0),
        seed: 1,
    }
}

/// Asserts that the norm of the difference is below a tenth of that of the reference, as in half precision.
#[track_caller]
pub fn assert_near<const D: usize>(name: &str, found: Tensor<D>, expected: &[f32]) {
    let found = parameters::host(found).unwrap().values;
    assert_eq!(found.len(), expected.len(), "{name}");
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    let size = norm(&mut expected.iter().copied());
    assert!(difference < 0.1 * size, "{name}: {difference} of {size}");
}
