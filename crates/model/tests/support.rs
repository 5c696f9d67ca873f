//! What the tests share: fixtures, comparison, options.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_model::{BuildOptions, HeadConfig, HostTensor, Lock, Pool, TowerOptions, parameters, read_safetensors};
use safetensors::SafeTensors;

/// Largest difference allowed to the reference, whose outputs are of order 1.
pub const TOLERANCE: f32 = 1e-4;

pub fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

pub fn device() -> Device {
    Device::flex()
}

pub fn cls() -> TowerOptions {
    TowerOptions { pool: Pool::Cls, dropout: None }
}

/// What the reference gave for one fixture: `expected.safetensors`.
pub struct Expected {
    pub floats: BTreeMap<String, HostTensor>,
    pub ints: BTreeMap<String, Vec<Vec<u32>>>,
}

impl Expected {
    pub fn read(dir: &Path) -> Self {
        let path = dir.join("expected.safetensors");
        let bytes = fs::read(&path).unwrap();
        let mut ints = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            if view.dtype() == safetensors::Dtype::I64 {
                let values: Vec<u32> =
                    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
                ints.insert(name.to_owned(), values.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect());
            }
        }
        Self { floats: read_safetensors(&path).unwrap(), ints }
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
    assert!(largest > 0.05, "{name}: expected values are too small ({largest}) to tell anything");
    assert!(worst <= TOLERANCE, "{name}: differs by {worst}");
}

/// Rows of a padded `[batch, seq, width]` tensor at which the mask is 1.
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
        head: HeadConfig { embed_dim: 7, logit_scale: 0.0, logit_bias: None },
        seed: 1,
    }
}
