//! Training on a device of wgpu, such as Mesa's software Vulkan (`CUBECL_WGPU_DEFAULT_DEVICE=Cpu`), or in builds
//! without wgpu on CubeCL's CPU runtime: it computes what the CPU computes. Run by `scripts/check_backends.sh`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dualenc_kernels::assume_plane_operations;
use serde_json::Value;

use super::tests::{assert_divergence_changes_nothing, assert_resumes, run};
use super::*;
use crate::config::Precision;
use crate::device::{Compute, dtype};

#[cfg(feature = "wgpu-untuned")]
mod limits;

const DEVICE: &str = if cfg!(feature = "wgpu-untuned") { "wgpu" } else { "cubecl-cpu" };

/// Counts are those of the whole process, so that no test may run beside another one.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    assume_plane_operations();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Losses may differ as sums in another order do, over 20 updates.
const TOLERANCE: f64 = 1e-3;

/// Trains on both devices and compares the losses.
fn assert_agrees(sets: &[&str]) {
    let [cpu, device] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let expected = run(cpu.path(), "cpu", sets, Start::New, None);
    let found = run(device.path(), DEVICE, sets, Start::New, None);
    assert_eq!((found.len(), expected.len()), (20, 20));
    let worst = found.iter().zip(&expected).map(|([found, _], [expected, _])| (found / expected - 1.0).abs());
    let worst = worst.fold(0.0, f64::max);
    eprintln!("{sets:?}: 20 losses, largest relative difference from cpu {worst:.1e}");
    assert!(worst <= TOLERANCE, "{sets:?}: {found:?}, expected {expected:?}");
}

#[test]
fn losses_agree() {
    let _alone = alone();
    assert_agrees(&["model.lock=LU"]);
    assert_agrees(&["model.lock=UU", "train.loss=sigmoid"]);
    assert_agrees(&["model.lock=UL", "train.duplicates=positives", "train.label_smoothing=0.1"]);
    assert_agrees(&["model.lock=LU", "train.loss=sigmoid", "train.duplicates=mask"]);
}

/// A step of the others takes minutes on CubeCL's CPU runtime with two cores: the threads of a product wait for each
/// other without giving way.
#[test]
fn losses_of_small_batches_agree() {
    let _alone = alone();
    assert_agrees(&["model.lock=LU", "train.batch_size=2"]);
}

#[test]
fn optimisers_agree() {
    let _alone = alone();
    for optimizer in ["adamw", "adafactor", "lion", "sgd"] {
        let rate = if optimizer == "lion" { "train.learning_rate=1e-4" } else { "train.learning_rate=1e-3" };
        let optimizer = format!("train.optimizer={optimizer}");
        assert_agrees(&["model.lock=UU", &optimizer, rate, "train.weight_decay=0.1", "train.ema_decay=0.9"]);
    }
}

#[test]
fn rates_by_layer_agree() {
    let _alone = alone();
    // Parameters with other constants, and a parameter that is updated less often than others.
    let stages = "train.stage=[{from_step=6, lock='UU'}]";
    assert_agrees(&["model.lock=LU", "train.text_layer_decay=0.7", "train.projection_learning_rate=3e-3", stages]);
}

#[test]
fn parts_of_batches_agree() {
    let _alone = alone();
    assert_agrees(&["model.lock=LU", "train.micro_batch_size=3", "model.text_dropout=0.2"]);
    assert_agrees(&["model.lock=UU", "train.micro_batch_size=4", "train.loss=sigmoid"]);
}

#[test]
fn adapters_agree() {
    let _alone = alone();
    assert_agrees(&["model.lock=LL", "model.text_lora={rank=2}", "model.image_lora={rank=1}"]);
}

#[test]
fn stages_agree() {
    let _alone = alone();
    let stages = "train.stage=[{from_step=5, lock='LU', learning_rate=5e-4}, {from_step=12, lock='UU'}]";
    assert_agrees(&["model.lock=LL", stages, "model.text_dropout=0.1"]);
}

#[test]
fn half_precision_agrees() {
    let _alone = alone();
    for precision in [Precision::F16, Precision::Bf16] {
        let name = precision.name();
        if Compute::select(DEVICE, None).unwrap().device.supports_dtype(dtype(precision)) {
            assert_agrees(&["model.lock=LL", &format!("run.locked_precision={name}")]);
        } else {
            eprintln!("{name}: the device lacks it; not compared");
        }
    }
}

#[test]
fn divergence_changes_nothing() {
    let _alone = alone();
    for optimizer in ["adamw", "lion"] {
        assert_divergence_changes_nothing(DEVICE, &[&format!("train.optimizer={optimizer}")]);
    }
}

#[test]
fn resumed_run_goes_on_with_the_same_bits() {
    let _alone = alone();
    assert_resumes(DEVICE, &["model.lock=LU", "model.text_dropout=0.3"]);
    let stages = "train.stage=[{from_step=5, lock='UU'}]";
    assert_resumes(DEVICE, &["model.lock=LL", stages, "train.micro_batch_size=3", "train.ema_decay=0.9"]);
}

#[test]
fn evaluations_agree() {
    let _alone = alone();
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train");
    let pairs = format!("eval.pairs={{task='retrieval', data='{}'}}", goldens.join("train.csv").display());
    let [expected, found] = ["cpu", DEVICE].map(|device| {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), device, &["model.lock=LU", &pairs], Start::New, None);
        let log = std::fs::read_to_string(dir.path().join(device).join("metrics.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let numbers = |line: Value| -> BTreeMap<String, f64> {
            let Value::Object(line) = line else { panic!("{line}") };
            line.into_iter().filter_map(|(key, value)| value.as_f64().map(|value| (key, value))).collect()
        };
        lines.filter(|line| line["kind"] == "eval").map(numbers).collect::<Vec<_>>()
    });
    assert!(!expected.is_empty() && expected[0].keys().any(|key| key.contains("recall")), "{expected:?}");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for (key, expected) in expected.iter().filter(|(key, _)| !key.contains("time") && !key.contains("seconds")) {
            assert!(
                (found[key] - expected).abs() <= TOLERANCE * expected.abs().max(1.0),
                "{key}: {found:?} {expected}"
            );
        }
    }
}
