//! The teacher's term against PyTorch.

use burn::tensor::{Device, Tensor};
use dualenc_kernels::{TeacherLoss, with_plain_forms};
use serde_json::Value;

use crate::config::Loss;
use crate::loss::contrastive::{Objective, PairIds};
use crate::loss::teacher::TeacherTerm;
use crate::loss::term_tests::{expected, host, matrix, numbers, read};
use crate::loss::terms::{LossInputs, LossTerms};

/// Relative to the largest value of a tensor.
const TOLERANCE: f32 = 5e-6;

fn golden() -> Value {
    expected("teacher")
}

/// The three values of a case, and the gradients by the features of both sides, `logit_scale` and `logit_bias`.
fn found(golden: &Value, case: &Value) -> Vec<Vec<f32>> {
    let inputs = &golden["inputs"];
    let slots: usize = read(&case["slots"]);
    let [batch, _]: [usize; 2] = read(&inputs["shape"]);
    let related: Vec<(usize, usize)> = read(&inputs["related"]);
    // The captions of an image follow each other; a match with an image is one with all of its captions.
    let known = |row: usize| {
        let others = related.iter().filter(move |pair| pair.0 == row).map(|pair| pair.1);
        others.chain([row]).flat_map(|image| (0..slots).map(move |slot| (image * slots + slot) as u64)).collect()
    };
    let captions = (0..(batch * slots) as u64).collect();
    let pairs = PairIds { captions, known: (0..batch).map(known).collect() };
    (0..slots).for_each(|slot| assert_eq!(pairs.matches(slot), related));
    let loss: Loss = read(&case["loss"]);
    let terms = LossTerms {
        objective: Objective {
            loss,
            duplicates: read(&case["duplicates"]),
            label_smoothing: read(&case["label_smoothing"]),
        },
        narrower: Vec::new(),
        structure: None,
        teacher: Some(TeacherTerm {
            weight: read(&inputs["weight"]),
            scale: read(&inputs["scale"]),
            loss: match loss {
                Loss::Softmax => TeacherLoss::Softmax,
                Loss::Sigmoid => TeacherLoss::Sigmoid { bias: read(&inputs["bias"]) },
            },
        }),
        mixup_alpha: None,
    };
    let (plain, device) = (Device::flex(), Device::flex().autodiff());
    let of_slots = &inputs[slots.to_string()];
    let rows = |side: &str| if side.ends_with("text") { batch * slots } else { batch };
    let teacher = ["teacher_image", "teacher_text"].map(|side| matrix(&of_slots[side], rows(side), &plain));
    let features = ["image", "text"].map(|side| matrix(&of_slots[side], rows(side), &device).require_grad());
    let [scale, bias] = ["logit_scale", "logit_bias"]
        .map(|name| Tensor::<1>::from_data([numbers(&inputs[name])[0]], &device).require_grad());
    let loss = terms.loss(LossInputs {
        step: 0,
        pairs: &pairs,
        mixing: None,
        locked: [None, None],
        teacher: Some(&teacher),
        features: features.clone(),
        logit_scale: scale.clone(),
        logit_bias: Some(bias.clone()),
    });
    let values = [loss.total.clone(), loss.contrastive.loss.clone(), loss.teacher.clone().unwrap()];
    let mut found: Vec<Vec<f32>> = values.into_iter().map(host).collect();
    let mut gradients = loss.total.backward();
    found.extend(features.map(|features| host(features.grad_remove(&mut gradients).unwrap())));
    found.push(host(scale.grad_remove(&mut gradients).unwrap()));
    found.push(bias.grad_remove(&mut gradients).map_or_else(|| vec![0.0], host));
    found
}

#[test]
fn teacher_term_matches_pytorch() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let names = ["total", "contrastive", "term", "by_image", "by_text", "by_logit_scale", "by_logit_bias"];
        let expected = names.map(|name| numbers(&case[name]));
        let forms = [("kernel", found(&golden, case)), ("tiles", with_plain_forms(|| found(&golden, case)))];
        for (form, found) in forms {
            assert_eq!(found.len(), expected.len());
            for (name, (found, expected)) in names.iter().zip(found.iter().zip(&expected)) {
                let what = format!("{form}: {} {} {} slots: {name}", case["loss"], case["duplicates"], case["slots"]);
                assert_eq!(found.len(), expected.len(), "{what}");
                let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
                assert!(worst <= TOLERANCE * largest, "{what}: {worst} off, of {largest}");
            }
        }
    }
}
