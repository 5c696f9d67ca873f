//! The losses with several captions of an image, against PyTorch.

use burn::tensor::{Device, Tensor, TensorData};
use dualenc_kernels::with_plain_forms;
use dualenc_model::parameters;
use serde_json::Value;

use crate::config::{Duplicates, Loss};
use crate::loss::contrastive::{BatchLoss, Objective, PairIds};
use crate::loss::targets::contrastive_loss;

/// Relative to the largest value of a tensor; float32 sums of 24 terms round by less.
const TOLERANCE: f32 = 2.5e-6;

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

fn host(tensor: Tensor<1>) -> Vec<f32> {
    parameters::host(tensor).unwrap().values
}

/// The loss, and its gradients by image, text, scale and bias.
fn found(objective: Objective, golden: &Value, slots: &Value, pairs: &PairIds) -> [Vec<f32>; 5] {
    let device = Device::flex().autodiff();
    let [batch, dim]: [usize; 2] = serde_json::from_value(slots["shape"].clone()).unwrap();
    let leaf = |side: &str, rows: usize| {
        let values = TensorData::new(numbers(&slots[side]), [rows, dim]);
        Tensor::<2>::from_data(values, &device).require_grad()
    };
    let [image, text] = [leaf("image", batch), leaf("text", pairs.captions.len())];
    let [scale, bias] = ["logit_scale", "logit_bias"]
        .map(|name| Tensor::<1>::from_data([number(&golden[name])], &device).require_grad());
    let embeds = (image.clone(), text.clone());
    let loss = contrastive_loss(objective, embeds, scale.clone(), Some(bias.clone()), pairs).loss;
    let mut gradients = loss.backward();
    let by = |leaf: Tensor<2>, gradients: &mut _| {
        let gradient = leaf.grad_remove(gradients).unwrap();
        let count = gradient.dims().iter().product::<usize>();
        host(gradient.reshape([count]))
    };
    let by_embeds = [by(image, &mut gradients), by(text, &mut gradients)];
    let by_scalars = [scale, bias].map(|leaf| leaf.grad_remove(&mut gradients).map_or(vec![0.0], host));
    let ([by_image, by_text], [by_scale, by_bias]) = (by_embeds, by_scalars);
    [host(loss.without_autodiff()), by_image, by_text, by_scale, by_bias]
}

#[test]
fn slots_match_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/losses/slots.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut compared = 0;
    for slots in golden["slots"].as_array().unwrap() {
        let count = slots["count"].as_u64().unwrap() as usize;
        let related: Vec<(usize, usize)> = serde_json::from_value(slots["related"].clone()).unwrap();
        let batch = slots["shape"][0].as_u64().unwrap() as usize;
        let known = |row: usize| {
            let others = related.iter().filter(move |pair| pair.0 == row).map(|pair| pair.1 as u64);
            others.chain((row * count..(row + 1) * count).map(|own| own as u64)).collect()
        };
        let captions = (0..(batch * count) as u64).collect();
        let pairs = PairIds { captions, known: (0..batch).map(known).collect() };
        for expected in slots["cases"].as_array().unwrap() {
            let objective = Objective {
                loss: serde_json::from_value(expected["loss"].clone()).unwrap(),
                duplicates: serde_json::from_value(expected["duplicates"].clone()).unwrap(),
                label_smoothing: expected["label_smoothing"].as_f64().unwrap(),
            };
            let values = ["image", "text"].map(|side| numbers(&expected[side]));
            let [value, scale, bias] = ["value", "logit_scale", "logit_bias"].map(|name| vec![number(&expected[name])]);
            let [image, text] = values;
            let expected = [value, image, text, scale, bias];
            let kernel = found(objective, &golden, slots, &pairs);
            let tiled = with_plain_forms(|| found(objective, &golden, slots, &pairs));
            for (form, found) in [("kernel", &kernel), ("tiles", &tiled)] {
                let names = ["loss", "image", "text", "logit_scale", "logit_bias"];
                for (name, (found, expected)) in names.iter().zip(found.iter().zip(&expected)) {
                    assert_eq!(found.len(), expected.len());
                    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                    for (found, expected) in found.iter().zip(expected) {
                        let close = (found - expected).abs() <= TOLERANCE * largest;
                        assert!(close, "{form}, {count} slots, {objective:?} {name}: {found} instead of {expected}");
                    }
                }
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 24);
}

/// The loss of embeddings `[4, 2]` and `[rows, 2]` with these captions; every image knows its own, and the second also
/// `99`.
fn loss_of(objective: Objective, text: &[[f32; 2]], captions: &[u64], bias: f32) -> BatchLoss {
    let device = Device::flex();
    let image = Tensor::<2>::from_data([[1.0f32, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, -0.6]], &device);
    let text: Vec<f32> = text.iter().flatten().copied().collect();
    let text = Tensor::<2>::from_data(TensorData::new(text, [captions.len(), 2]), &device);
    let scale = Tensor::from_data([1.0f32], &device);
    let known = captions.chunks(captions.len() / 4).map(<[u64]>::to_vec).enumerate();
    let known = known.map(|(row, own)| if row == 1 { [own, vec![99]].concat() } else { own });
    let pairs = PairIds { captions: captions.to_vec(), known: known.collect() };
    contrastive_loss(objective, (image, text), scale, Some(Tensor::from_data([bias], &device)), &pairs)
}

fn value(loss: BatchLoss) -> f64 {
    f64::from(loss.loss.into_scalar::<f32>())
}

const TEXTS: [[f32; 2]; 4] = [[0.8, 0.6], [0.0, 1.0], [0.28, 0.96], [1.0, 0.0]];

#[test]
fn repeated_captions_have_the_loss_of_one() {
    for kind in [Loss::Softmax, Loss::Sigmoid] {
        let objective = Objective { label_smoothing: 0.1, ..Objective::new(kind, Duplicates::Positives) };
        let one = loss_of(objective, &TEXTS, &[1, 2, 3, 4], -0.5);
        let twice: Vec<[f32; 2]> = TEXTS.iter().flat_map(|text| [*text; 2]).collect();
        let two = loss_of(objective, &twice, &[1, 1, 2, 2, 3, 3, 4, 4], -0.5);
        assert!((two.chance - one.chance).abs() < 1e-9, "{} {}", two.chance, one.chance);
        assert_eq!((one.num_duplicates, two.num_duplicates), (0, 0), "no other pair matches");
        let [one, two] = [one, two].map(value);
        assert!((one - two).abs() < 1e-6, "{kind:?}: {two} instead of {one}");
    }
}

#[test]
fn equal_captions_match_across_slots() {
    let twice: Vec<[f32; 2]> = TEXTS.iter().flat_map(|text| [*text, [text[1], text[0]]]).collect();
    // The first caption of the first image is the second of the third; 99 is known to the second image alone.
    let captions = [1, 10, 2, 20, 3, 1, 4, 99];
    for kind in [Loss::Softmax, Loss::Sigmoid] {
        let of = |duplicates| loss_of(Objective::new(kind, duplicates), &twice, &captions, -0.5);
        assert_eq!(of(Duplicates::Mask).num_duplicates, 3);
        let [ignore, positives, mask] =
            [Duplicates::Ignore, Duplicates::Positives, Duplicates::Mask].map(of).map(value);
        assert!((ignore - positives).abs() > 1e-2 && (ignore - mask).abs() > 1e-2 && (mask - positives).abs() > 1e-2);
    }
}

#[test]
fn chance_is_the_lowest_loss_of_equal_texts() {
    // With equal texts, each image has one logit for all of them; with equal images too, all logits are equal.
    let captions = [1, 10, 2, 20, 3, 1, 4, 99];
    let device = Device::flex();
    let equal = |rows: usize| Tensor::<2>::from_data(TensorData::new([0.6f32, 0.8].repeat(rows), [rows, 2]), &device);
    for kind in [Loss::Softmax, Loss::Sigmoid] {
        for duplicates in [Duplicates::Ignore, Duplicates::Positives, Duplicates::Mask] {
            let known = captions.chunks(2).map(<[u64]>::to_vec).collect();
            let pairs = PairIds { captions: captions.to_vec(), known };
            let loss = |bias: f32| {
                let [scale, bias] = [0.0, bias].map(|value| Tensor::from_data([value], &device));
                let embeds = (equal(4), equal(8));
                contrastive_loss(Objective::new(kind, duplicates), embeds, scale, Some(bias), &pairs)
            };
            let lowest = (-400..200).map(|bias| value(loss(bias as f32 / 100.0))).fold(f64::MAX, f64::min);
            let chance = loss(0.0).chance;
            assert!((lowest - chance).abs() < 1e-4, "{kind:?} {duplicates:?}: {lowest}, not {chance}");
        }
    }
}
