//! A tower in two parts, the layers before a cut and the rest, computes the bits of the whole.

use burn::tensor::{Tensor, TensorData};
use dualenc_model::{
    AdapterConfig, Dropout, DualEncoder, ImageTower, LayerDepths, Pool, TakenLayers, TextTower, TokenSequences,
    TowerLock, TowerOptions, TowerOutput, TowerTraining, Training, image_tower_from, parameters, text_tower_from,
};

use crate::composition::{IMAGE_TOWERS, TEXT_TOWERS, on_single_thread, pixels};
use crate::support::{device, goldens};
use crate::taken_layers::{image, text};

/// Families in which captions round with the longest of their batch: the kernel for packed texts does not cover them.
const ROUNDS_WITH_OTHERS: [&str; 10] = [
    "mpnet",
    "modernbert",
    "deberta_v2",
    "qwen3_lm",
    "llama",
    "mistral",
    "gemma3",
    "embedding_gemma",
    "t5_gated",
    "gte_new",
];

fn bits(tensor: Tensor<2>) -> Vec<u32> {
    parameters::host(tensor).unwrap().values.into_iter().map(f32::to_bits).collect()
}

#[track_caller]
fn assert_same(what: &str, found: TowerOutput, expected: &TowerOutput) {
    assert!(bits(found.hidden) == bits(expected.hidden.clone()), "{what}: hidden");
    assert!(bits(found.pooled) == bits(expected.pooled.clone()), "{what}: pooled");
}

fn images(count: usize, side: usize) -> Tensor<4> {
    Tensor::from_data(TensorData::new(pixels(count, side), [count, 3, side, side]), &device())
}

/// The states after `layers` layers, `[images, tokens * width]`, from batches of two.
fn image_states(tower: &ImageTower, layers: usize, pixels: &Tensor<4>) -> Tensor<2> {
    let [count, _, height, width] = pixels.dims();
    let prefix = tower.ending_after(layers).unwrap().for_images(height, width);
    let of = |at: usize| {
        let two = pixels.clone().slice(at..at + 2);
        let states = on_single_thread(|| prefix.forward(two, &Dropout::off()).pooled);
        assert_eq!(states.dims(), [2, prefix.width()]);
        states
    };
    Tensor::cat((0..count).step_by(2).map(of).collect(), 0)
}

#[test]
fn image_towers_in_two_parts() {
    let mut cut = 0;
    for (section, name) in IMAGE_TOWERS {
        let dir = goldens(section).join(name);
        let (tower, _) = image_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        if tower.ending_after(1).is_none() {
            assert_eq!(tower.locked_layers(), 0, "{name}");
            continue;
        }
        assert_eq!(tower.locked_layers(), tower.num_layers(), "{name}");
        // The size that the tower was trained on, and another.
        for side in [32, 48] {
            let pixels = images(4, side);
            let whole = tower.forward(pixels.clone(), &Dropout::off());
            for layers in 1..=tower.num_layers() {
                let states = image_states(&tower, layers, &pixels);
                let found = tower.forward_after(layers, states, [side, side], &Dropout::off()).unwrap();
                assert_same(&format!("{name}, {side} pixels, after layer {layers}"), found, &whole);
                cut += 1;
            }
        }
    }
    assert!(cut >= 30, "{cut}");
}

/// Captions of several lengths.
fn captions(tower: &TextTower) -> TokenSequences {
    let longest = tower.config().max_tokens().min(24);
    let vocabulary = tower.config().vocab_size as u32;
    let lengths = if let Some(length) = tower.config().pad_to { vec![length; 5] } else { vec![7, 3, longest, 7, 1] };
    let ids = |(caption, length): (u32, &usize)| {
        (0..*length as u32).map(|place| (caption * 37 + place * 11 + 5) % vocabulary).collect::<Vec<u32>>()
    };
    (0..).zip(&lengths).map(ids).map(|ids| (ids.clone(), vec![0; ids.len()])).collect()
}

/// The states after `layers` layers, `[tokens, width]`, of each caption alone. A matrix product with one row takes
/// another kernel, so each is computed twice.
fn text_states(tower: &TextTower, layers: usize, tokens: &TokenSequences) -> Tensor<2> {
    let prefix = tower.ending_after(layers);
    let of = |(ids, types): (&Vec<u32>, &Vec<u32>)| {
        let twice = (0..2).map(|_| (ids.clone(), types.clone())).collect();
        let states = on_single_thread(|| prefix.forward(&twice, &Dropout::off()).unwrap().hidden);
        states.slice(0..ids.len())
    };
    Tensor::cat(tokens.ids.iter().zip(&tokens.type_ids).map(of).collect(), 0)
}

#[test]
fn text_towers_in_two_parts() {
    let mut rounds = Vec::new();
    for (section, name) in TEXT_TOWERS {
        let dir = goldens(section).join(name);
        let (tower, _) = text_tower_from(&dir, TowerLock::Locked, TowerOptions::default(), &device()).unwrap();
        assert_eq!(tower.locked_layers(), tower.num_layers(), "{name}");
        let tokens = captions(&tower);
        let whole = tower.forward(&tokens, &Dropout::off()).unwrap();
        for layers in 1..=tower.num_layers() {
            let what = format!("{name}, after layer {layers}");
            let states = tower.ending_after(layers).forward(&tokens, &Dropout::off()).unwrap().hidden;
            let found = tower.forward_after(layers, states, &tokens, &Dropout::off()).unwrap();
            assert_same(&what, found, &whole);
            // Each caption alone, as a cache computes it.
            let states = text_states(&tower, layers, &tokens);
            let found = tower.forward_after(layers, states, &tokens, &Dropout::off()).unwrap();
            if bits(found.pooled.clone()) != bits(whole.pooled.clone()) {
                rounds.push(name);
            }
            let [found, expected] =
                [found.pooled, whole.pooled.clone()].map(|pooled| parameters::host(pooled).unwrap().values);
            let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let apart = found.iter().zip(&expected).fold(0f32, |apart, (a, b)| apart.max((a - b).abs()));
            assert!(apart <= 2e-6 * largest, "{what}: {apart} of {largest}");
        }
    }
    rounds.dedup();
    assert!(rounds.iter().all(|name| ROUNDS_WITH_OTHERS.contains(name)), "{rounds:?}");
}

/// The cut is not above the lowest layer that is pooled.
#[test]
fn listed_layers_limit_the_cut() {
    let options = |numbers: &[i64]| TowerOptions {
        pool: Pool::Mean,
        layers: TakenLayers { numbers: numbers.to_vec().into(), norm: true },
        ..TowerOptions::default()
    };
    for (numbers, layers) in [(&[3, 1][..], 1), (&[3, 2], 2), (&[2], 2), (&[-1], 3)] {
        let (tower, _) = image(&goldens("towers/vit"), options(numbers)).unwrap();
        assert_eq!(tower.locked_layers(), layers, "{numbers:?}");
        let pixels = images(4, 24);
        let whole = tower.forward(pixels.clone(), &Dropout::off());
        for layers in 1..=layers {
            let states = image_states(&tower, layers, &pixels);
            let found = tower.forward_after(layers, states, [24, 24], &Dropout::off()).unwrap();
            assert_same(&format!("{numbers:?}, after layer {layers}"), found, &whole);
        }
    }
    for (numbers, layers) in [(&[2, 1][..], 1), (&[2], 2), (&[1], 1)] {
        let (tower, _) = text(&goldens("towers/bert"), options(numbers)).unwrap();
        assert_eq!(tower.locked_layers(), layers, "{numbers:?}");
        let tokens = captions(&tower);
        let whole = tower.forward(&tokens, &Dropout::off()).unwrap();
        let states = tower.ending_after(layers).forward(&tokens, &Dropout::off()).unwrap().hidden;
        assert_same(
            &format!("{numbers:?}"),
            tower.forward_after(layers, states, &tokens, &Dropout::off()).unwrap(),
            &whole,
        );
    }
}

/// What is kept of a prefix is keyed by its form and its parameters, which do not depend on later layers.
#[test]
fn prefix_is_a_tower_of_its_own() {
    let (tower, _) = text(&goldens("towers/bert"), TowerOptions::default()).unwrap();
    let (first, _) = text(&goldens("towers/bert"), TowerOptions { pool: Pool::Mean, ..at(1) }).unwrap();
    let key = |tower: &TextTower| (tower.form(), parameters::fingerprint(tower, parameters::ParamFilter::All).unwrap());
    assert_eq!(key(&tower.ending_after(1)), key(&first.ending_after(1)));
    assert_ne!(key(&tower.ending_after(1)), key(&tower.ending_after(2)));
    assert_ne!(key(&tower.ending_after(2)).0, tower.form());
    let paths = |tower: &TextTower| parameters::list(tower).into_iter().map(|info| info.path).collect::<Vec<_>>();
    assert!(paths(&tower.ending_after(1)).iter().all(|path| !path.contains("blocks.1.") && !path.contains("pooler")));
}

fn at(layer: i64) -> TowerOptions {
    TowerOptions { layers: TakenLayers { numbers: layer.into(), norm: true }, ..TowerOptions::default() }
}

/// Blocks that train end the locked layers.
#[test]
fn locked_layers_end_where_training_begins() {
    let whole = DualEncoder::from_pretrained(goldens("dual").join("vit_bert"), &device()).unwrap();
    let blocks = LayerDepths::of(&whole).num_blocks();
    let layers = |trains, last| {
        let tower = TowerTraining { trains, last, adapters: false };
        let training = Training { image: tower, text: tower, image_projection: true, text_projection: true };
        let model = training.of(whole.clone()).unwrap();
        [model.image_tower.locked_layers(), model.text_tower.locked_layers()]
    };
    for last in 0..=blocks[0].min(blocks[1]) {
        assert_eq!(layers(false, last), blocks.map(|blocks| blocks - last));
        assert_eq!(layers(true, last), [0, 0]);
    }
    let adapters = |last_blocks| {
        let config = AdapterConfig { rank: 1, alpha: 1.0, targets: vec!["query".to_owned()], last_blocks };
        let locked = parameters::lock(whole.clone());
        locked.with_adapters([Some(&config), Some(&config)], 1).map_err(|error| error.to_string())
    };
    for (last, locked) in [(None, [0, 0]), (Some(1), blocks.map(|blocks| blocks - 1))] {
        let model = adapters(last).unwrap();
        assert_eq!([model.image_tower.locked_layers(), model.text_tower.locked_layers()], locked);
    }
    let error = adapters(Some(9)).unwrap_err();
    assert!(error.contains("`model.image_lora.last_blocks` is 9, but the image tower has"), "{error}");
}
