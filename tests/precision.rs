//! Less than single precision, where it is asked for: near the same result, and refused where it cannot be.

use crate::support::{Session, column, tensors};

fn losses(sets: &[&str]) -> Vec<f64> {
    let session = Session::new();
    session.reference_config("[checkpoint]\nevery_steps = 6\n");
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    // What is saved is in single precision, whatever was computed in.
    for file in ["model", "optimizer"] {
        let saved = tensors(&session.path(&format!("run/checkpoints/step-000012/{file}.safetensors")));
        assert!(saved.values().all(|(dtype, ..)| dtype == "F32"));
    }
    column(&session.metrics("run", "train"), "loss")
}

/// The largest difference of two curves.
fn apart(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |most, (found, expected)| most.max((found - expected).abs()))
}

#[test]
fn locked_towers_compute_in_half_precision() {
    let expected = losses(&["model.lock=LL"]);
    for (precision, limit) in [("f16", 5e-3), ("bf16", 4e-2)] {
        let found = losses(&["model.lock=LL", &format!("run.locked_precision={precision}")]);
        let apart = apart(&found, &expected);
        assert!(apart > 0.0 && apart < limit, "{precision}: {apart}");
    }
}

#[test]
fn training_computes_in_bf16_and_keeps_its_parameters_in_f32() {
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let (expected, found) = (losses(&[lock]), losses(&[lock, "run.precision=bf16", "train.micro_batch_size=3"]));
        let apart = apart(&found, &expected);
        assert!(apart > 0.0 && apart < 4e-2, "{lock}: {apart}");
        assert!(found[11] < found[0] - 0.1, "{found:?}");
    }
}

#[test]
fn what_cannot_be_trained_in_is_refused() {
    let session = Session::new();
    session.reference_config("");
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.precision=f16"]);
    assert!(text.contains("`run.precision` is `f16`, expected `f32` or `bf16`"), "{text}");
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.locked_precision=int8"]);
    assert!(text.contains("`run.locked_precision` is `int8`"), "{text}");
}
