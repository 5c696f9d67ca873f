//! The output for an input does not depend on the rest of the batch, bit for bit, so a feature computed in one batch
//! can be reused in any other, a batch of one included. One thread each, on the CPU.

use burn::tensor::{Tensor, TensorData};
use dualenc_model::{
    Dropout, ImageTower, Pool, TextTower, TokenSequences, TowerLock, TowerOptions, image_tower_from, parameters,
    text_tower_from,
};

use crate::support::{device, goldens};

/// Every kind of image tower.
pub const IMAGE_TOWERS: [(&str, &str); 14] = [
    ("towers", "vit"),
    ("towers", "deit"),
    ("towers", "dinov2"),
    ("image_families", "beit"),
    ("image_families", "clip"),
    ("image_families", "convnext"),
    ("image_families", "convnextv2"),
    ("image_families", "data2vec"),
    ("image_families", "dinov2_registers"),
    ("image_families", "dinov3"),
    ("image_families", "resnet"),
    ("image_families", "resnet_basic"),
    ("image_families", "siglip"),
    ("image_families", "swin"),
];

/// Every kind of text tower.
pub const TEXT_TOWERS: [(&str, &str); 16] = [
    ("text_families", "mpnet"),
    ("text_families", "distilbert"),
    ("text_families", "electra"),
    ("text_families", "albert"),
    ("text_families", "modernbert"),
    ("text_families", "clip_text"),
    ("text_families", "siglip_text"),
    ("text_families", "deberta_v2"),
    ("text_decoders", "qwen3_lm"),
    ("text_decoders", "llama"),
    ("text_decoders", "mistral"),
    ("text_decoders", "gemma3"),
    ("text_decoders", "embedding_gemma"),
    ("text_decoders", "t5_gated"),
    ("text_decoders", "gte_new"),
    ("towers", "bert"),
];

/// Distinct images, `[count, 3, side, side]`.
pub fn pixels(count: usize, side: usize) -> Vec<f32> {
    (0..count * 3 * side * side).map(|at| ((at as f32) * 0.7).sin() + ((at % 977) as f32 * 0.01).cos()).collect()
}

fn image_rows(tower: &ImageTower, pixels: &[f32], side: usize) -> Vec<Vec<u32>> {
    let count = pixels.len() / (3 * side * side);
    let data = TensorData::new(pixels.to_vec(), [count, 3, side, side]);
    let pooled = tower.forward(Tensor::<4>::from_data(data, &device()), &Dropout::off()).pooled;
    bits(pooled, tower.width())
}

pub fn on_single_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

fn text_rows(tower: &TextTower, ids: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let tokens: TokenSequences = ids.iter().map(|ids| (ids.clone(), vec![0; ids.len()])).collect();
    bits(tower.forward(&tokens, &Dropout::off()).unwrap().pooled, tower.pooled_width())
}

fn bits(pooled: Tensor<2>, width: usize) -> Vec<Vec<u32>> {
    let values = parameters::host(pooled).unwrap().values;
    values.chunks_exact(width).map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn image_features_ignore_the_batch() {
    let mut different = Vec::new();
    for (section, name) in IMAGE_TOWERS {
        let dir = goldens(section).join(name);
        for pool in [Pool::Auto, Pool::Mean] {
            let options = TowerOptions { pool, ..TowerOptions::default() };
            let Ok((tower, _)) = image_tower_from(&dir, TowerLock::Locked, options, &device()) else {
                assert_eq!(pool, Pool::Mean, "{name}");
                continue;
            };
            // The smallest size of ConvNeXt; the trained size of the transformers.
            let side = if ["convnext", "convnextv2"].contains(&name) { 64 } else { 32 };
            let all = pixels(16, side);
            let whole = on_single_thread(|| image_rows(&tower, &all, side));
            assert_eq!(image_rows(&tower, &all, side), whole, "{name}: threads");
            for size in [1, 2, 3, 5, 7, 11] {
                let chunks = all.chunks(size * 3 * side * side);
                let rows: Vec<_> =
                    chunks.flat_map(|chunk| on_single_thread(|| image_rows(&tower, chunk, side))).collect();
                if rows != whole {
                    different.push(format!("{name} {pool:?}: {size} at once"));
                }
            }
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn text_features_ignore_the_batch() {
    let mut different = Vec::new();
    for (section, name) in TEXT_TOWERS {
        let dir = goldens(section).join(name);
        for pool in [Pool::Auto, Pool::Mean] {
            let options = TowerOptions { pool, ..TowerOptions::default() };
            let Ok((tower, _)) = text_tower_from(&dir, TowerLock::Locked, options, &device()) else {
                panic!("{name}");
            };
            let longest = tower.config().max_tokens().min(24);
            for len in [1, 2, 7, 8, 9, 13, 24].into_iter().filter(|&len| len <= longest) {
                // 129 rows: kernels work in chunks of 128, so the last row is alone.
                let captions = if len == 1 { 129 } else { 21 };
                let vocabulary = tower.config().vocab_size as u32;
                let token = |caption: u32, place: u32| (caption * 37 + place * 11 + 5) % vocabulary;
                let all: Vec<Vec<u32>> =
                    (0..captions).map(|caption| (0..len as u32).map(|place| token(caption, place)).collect()).collect();
                let whole = on_single_thread(|| text_rows(&tower, &all));
                assert_eq!(text_rows(&tower, &all), whole, "{name}: threads");
                for size in [1, 2, 3, 8] {
                    let chunks = all.chunks(size);
                    let rows: Vec<_> = chunks.flat_map(|chunk| on_single_thread(|| text_rows(&tower, chunk))).collect();
                    if rows != whole {
                        different.push(format!("{name} {pool:?}: {size} captions of {len} tokens"));
                    }
                }
            }
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}
