//! The pooled output of each layer: the last is that of the tower, an inner one that of a tower with fewer blocks.

use std::fs;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use dualenc_model::{
    Dropout, ImageTower, Pool, Pooling, TextTower, TokenSequences, TowerLock, TowerOptions, image_tower_from,
    parameters, text_tower_from,
};
use serde_json::Value;

use crate::support::{device, goldens};

/// Towers with the key of their number of layers.
const IMAGE_TOWERS: [(&str, &str); 4] = [
    ("towers/vit", "num_hidden_layers"),
    ("towers/dinov2", "num_hidden_layers"),
    ("image_families/clip", "num_hidden_layers"),
    ("image_families/dinov3", "num_hidden_layers"),
];
/// Without ALBERT of several groups: which group a layer belongs to depends on the number of layers.
const TEXT_TOWERS: [(&str, &str); 5] = [
    ("towers/bert", "num_hidden_layers"),
    ("text_families/mpnet", "num_hidden_layers"),
    ("text_families/distilbert", "n_layers"),
    ("text_decoders/llama", "num_hidden_layers"),
    ("text_decoders/t5", "num_layers"),
];
const SIDE: usize = 32;

fn pixels() -> Tensor<4> {
    let values: Vec<f32> = (0..2 * 3 * SIDE * SIDE).map(|at| ((at as f32) * 0.7).sin()).collect();
    Tensor::from_data(TensorData::new(values, [2, 3, SIDE, SIDE]), &device())
}

fn tokens() -> TokenSequences {
    TokenSequences::new(vec![vec![2, 7, 3], vec![2, 9, 8, 5, 3]], vec![vec![0; 3], vec![0; 5]])
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    parameters::host(tensor).unwrap().values
}

/// Copies a tower to `target` with this number of layers.
fn truncated(tower: &str, target: &Path, key: &str, layers: usize) {
    for entry in fs::read_dir(goldens(tower)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
    }
    let path = target.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let config_of_vision = config.get("vision_config").is_some();
    let holder = if config_of_vision { &mut config["vision_config"] } else { &mut config };
    holder[key] = layers.into();
    fs::write(&path, config.to_string()).unwrap();
}

fn pool(pooling: Pooling) -> Pool {
    match pooling {
        Pooling::Cls => Pool::Cls,
        Pooling::Mean => Pool::Mean,
        Pooling::ClsMean => Pool::ClsMean,
        Pooling::Last => Pool::Last,
        Pooling::Pooler => Pool::Pooler,
        Pooling::Tokens => Pool::Tokens,
    }
}

fn image_tower(dir: &Path, pool: Pool) -> ImageTower {
    image_tower_from(dir, TowerLock::Locked, TowerOptions { pool, ..TowerOptions::default() }, &device()).unwrap().0
}

fn text_tower(dir: &Path, pool: Pool) -> TextTower {
    text_tower_from(dir, TowerLock::Locked, TowerOptions { pool, ..TowerOptions::default() }, &device()).unwrap().0
}

#[test]
fn image_layers_equal_shorter_towers() {
    for (name, key) in IMAGE_TOWERS {
        let tower = image_tower(&goldens(name), Pool::Auto);
        let poolings = tower.poolings();
        let layers = tower.forward_layers(pixels(), &poolings, |_| true);
        assert!(layers.len() == tower.num_layers() && layers.len() > 1, "{name}");
        for (layer, pooled) in (1..).zip(layers) {
            let dir = tempfile::tempdir().unwrap();
            truncated(name, dir.path(), key, layer);
            for (&pooling, found) in poolings.iter().zip(pooled) {
                let shorter = image_tower(dir.path(), pool(pooling));
                let expected = shorter.forward(pixels(), &Dropout::off()).pooled;
                assert_eq!(values(found), values(expected), "{name}, layer {layer}, {pooling:?}");
            }
        }
    }
}

#[test]
fn text_layers_equal_shorter_towers() {
    for (name, key) in TEXT_TOWERS {
        let tower = text_tower(&goldens(name), Pool::Auto);
        let poolings = tower.poolings();
        let layers = tower.forward_layers(&tokens(), &poolings, |_| true).unwrap();
        assert!(layers.len() == tower.num_layers() && layers.len() > 1, "{name}");
        for (layer, pooled) in (1..).zip(layers) {
            let dir = tempfile::tempdir().unwrap();
            truncated(name, dir.path(), key, layer);
            for (&pooling, found) in poolings.iter().zip(pooled) {
                let shorter = text_tower(dir.path(), pool(pooling));
                let expected = shorter.forward(&tokens(), &Dropout::off()).unwrap().pooled;
                assert_eq!(values(found), values(expected), "{name}, layer {layer}, {pooling:?}");
            }
        }
    }
}

#[test]
fn towers_without_blocks_have_one_layer() {
    for name in ["image_families/convnext", "image_families/swin"] {
        let tower = image_tower(&goldens(name), Pool::Auto);
        let layers = tower.forward_layers(pixels(), &tower.poolings(), |_| true);
        assert_eq!((tower.num_layers(), layers.len(), layers[0].len()), (1, 1, 1), "{name}");
        let expected = tower.forward(pixels(), &Dropout::off()).pooled;
        assert_eq!(values(layers[0][0].clone()), values(expected), "{name}");
    }
}

#[test]
fn unwanted_layers_are_empty() {
    let tower = image_tower(&goldens("towers/vit"), Pool::Auto);
    let layers = tower.forward_layers(pixels(), &[Pooling::Cls], |layer| layer == 2);
    assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0]);
}
