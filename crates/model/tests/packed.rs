//! Towers with packed linear layers: close to those in f32, and independent of the batch.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use dualenc_model::{
    Dropout, ImageTower, TextTower, TokenSequences, TowerLock, TowerOptions, image_tower_from, parameters,
    text_tower_from,
};

use crate::composition::{IMAGE_TOWERS, TEXT_TOWERS, on_single_thread, pixels};
use crate::support::{device, goldens};

/// The largest error of features of texts, in the L2 norm relative to that of all features of a batch. At most 3.4e-2
/// was measured (EmbeddingGemma).
const TEXT_TOLERANCE: f64 = 6e-2;

/// The same for images.
const IMAGE_TOLERANCE: f64 = 1e-2;

/// Whether this processor has what packed layers need; says so if it has not.
#[expect(clippy::print_stderr, reason = "says what is not tested")]
fn can_pack() -> bool {
    let can = dualenc_kernels::bf16_instructions().is_some();
    if !can {
        eprintln!("skipped: this processor has neither AMX nor AVX512_BF16");
    }
    can
}

fn image_features(tower: &ImageTower, pixels: &[f32], side: usize) -> Vec<f32> {
    let shape = [pixels.len() / (3 * side * side), 3, side, side];
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), shape), &device());
    parameters::host(tower.forward(pixels, &Dropout::off()).pooled).unwrap().values
}

fn text_features(tower: &TextTower, ids: &[Vec<u32>]) -> Vec<f32> {
    let tokens: TokenSequences = ids.iter().map(|ids| (ids.clone(), vec![0; ids.len()])).collect();
    parameters::host(tower.forward(&tokens, &Dropout::off()).unwrap().pooled).unwrap().values
}

fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    let size = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = size(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    let error = difference / size(&mut expected.iter().copied().map(f64::from));
    assert!(error > 1e-5 && error < tolerance, "{name}: {error:e}");
}

#[test]
fn packed_image_towers_are_close_in_any_batch() {
    if !can_pack() {
        return;
    }
    for (section, name) in IMAGE_TOWERS {
        let dir = goldens(section).join(name);
        let (tower, _) = image_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        let side = if ["convnext", "convnextv2"].contains(&name) { 64 } else { 32 };
        let all = pixels(16, side);
        let expected = image_features(&tower, &all, side);
        let (width, form, has_linears) = (tower.width(), tower.form(), tower.has_linears());
        let packed = tower.packed();
        assert_eq!((packed.width(), packed.form()), (width, form), "{name}");
        let whole = on_single_thread(|| image_features(&packed, &all, side));
        if has_linears {
            assert_close(name, &whole, &expected, IMAGE_TOLERANCE);
        } else {
            assert!(name.starts_with("resnet") && whole == expected, "{name}");
        }
        assert!(image_features(&packed, &all, side) == whole, "{name}: threads");
        for size in [1, 2, 3, 7] {
            let chunks = all.chunks(size * 3 * side * side);
            let parts: Vec<f32> =
                chunks.flat_map(|chunk| on_single_thread(|| image_features(&packed, chunk, side))).collect();
            assert!(parts == whole, "{name}: {size} at once");
        }
    }
}

#[test]
fn packed_text_towers_are_close_in_any_batch() {
    if !can_pack() {
        return;
    }
    for (section, name) in TEXT_TOWERS {
        let dir = goldens(section).join(name);
        let (tower, _) = text_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        let (longest, vocabulary) = (tower.config().max_tokens().min(40), tower.config().vocab_size as u32);
        let packed = tower.clone().packed();
        // From 32 tokens on, attention is in bf16 too.
        for len in [1, 7, 40].map(|len: usize| len.min(longest)) {
            let token = |caption: u32, place: u32| (caption * 37 + place * 11 + 5) % vocabulary;
            let all: Vec<Vec<u32>> =
                (0..21).map(|caption| (0..len as u32).map(|place| token(caption, place)).collect()).collect();
            let whole = on_single_thread(|| text_features(&packed, &all));
            assert_close(&format!("{name}, {len} tokens"), &whole, &text_features(&tower, &all), TEXT_TOLERANCE);
            assert!(text_features(&packed, &all) == whole, "{name}: threads");
            for size in [1, 2, 8] {
                let chunks = all.chunks(size);
                let parts: Vec<f32> =
                    chunks.flat_map(|chunk| on_single_thread(|| text_features(&packed, chunk))).collect();
                assert!(parts == whole, "{name}: {size} captions of {len} tokens");
            }
        }
    }
}

/// Adds different numbers to all parameters, so that no two norms or scales are equal.
struct Differ(usize);

impl ModuleMapper for Differ {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, _) = param.consume();
        let numbers: Vec<f32> = (0..value.shape().num_elements()).map(|n| 0.1 * ((n + self.0) as f32).sin()).collect();
        self.0 += numbers.len();
        Param::initialized(
            id,
            value.clone() + Tensor::from_data(TensorData::new(numbers, value.dims()), &value.device()),
        )
    }
}

/// Towers wide enough for whole blocks in one kernel. With more threads than images, the operations run one by one.
#[test]
fn packed_blocks_have_the_bits_of_their_operations() {
    if !can_pack() {
        return;
    }
    let sizes = r#""hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
                   "mlp_ratio": 2, "image_size": 32, "patch_size": 4, "num_channels": 3, "hidden_act": "gelu",
                   "layer_norm_eps": 1e-6, "qkv_bias": true"#;
    for family in [r#""model_type": "vit""#, r#""model_type": "dinov2", "layerscale_value": 1.0"#] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), format!("{{{family}, {sizes}}}")).unwrap();
        let (tower, _) = image_tower_from(dir.path(), TowerLock::Scratch, TowerOptions::default(), &device()).unwrap();
        let tower = tower.map(&mut Differ(0));
        let (count, side) = (5, 32);
        let all = pixels(count, side);
        let expected = image_features(&tower, &all, side);
        let packed = tower.packed();
        let whole = on_single_thread(|| image_features(&packed, &all, side));
        // Parameters like no trained tower's: 3.5e-2 was measured.
        assert_close(family, &whole, &expected, TEXT_TOLERANCE);
        let many = rayon::ThreadPoolBuilder::new().num_threads(count + 1).build().unwrap();
        assert!(many.install(|| image_features(&packed, &all, side)) == whole, "{family}");
    }
}
