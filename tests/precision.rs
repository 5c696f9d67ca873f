//! Training in `bf16` and locked towers in half precision: close to `f32`, and refused where unsupported.

use crate::support::{Session, column, tensors};

fn losses(sets: &[&str]) -> Vec<f64> {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 6\n");
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    // Checkpoints are in `f32`, whatever the precision of the run.
    for file in ["model", "optimizer"] {
        let saved = tensors(&session.path(&format!("run/checkpoints/step-000012/{file}.safetensors")));
        assert!(saved.values().all(|(dtype, ..)| dtype == "F32"));
    }
    column(&session.metrics("run", "train"), "loss")
}

/// The largest difference between two curves.
fn max_difference(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold(0.0, |most, (found, expected)| most.max((found - expected).abs()))
}

#[test]
fn locked_towers_in_half_precision() {
    let expected = losses(&["model.lock=LL"]);
    for (precision, limit) in [("f16", 5e-3), ("bf16", 4e-2)] {
        let found = losses(&["model.lock=LL", &format!("run.locked_precision={precision}")]);
        let difference = max_difference(&found, &expected);
        assert!(difference > 0.0 && difference < limit, "{precision}: {difference}");
    }
}

#[test]
fn bf16_training_saves_f32() {
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let (expected, found) = (losses(&[lock]), losses(&[lock, "run.precision=bf16", "train.micro_batch_size=3"]));
        let difference = max_difference(&found, &expected);
        assert!(difference > 0.0 && difference < 4e-2, "{lock}: {difference}");
        assert!(found[11] < found[0] - 0.1, "{found:?}");
    }
}

#[test]
fn rejects_unsupported_precision() {
    let session = Session::new();
    session.write_config("");
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.precision=f16"]);
    assert!(text.contains("`run.precision` is `f16`, expected `f32` or `bf16`"), "{text}");
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.locked_precision=int8"]);
    assert!(text.contains("`run.locked_precision` is `int8`"), "{text}");
}
