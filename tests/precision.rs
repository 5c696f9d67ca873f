//! Training in `bf16` and locked towers in half precision: close to `f32`, and refused where unsupported.

use std::fs;

use crate::support::{Session, column, copy_run_at, tensors};

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
    let found = losses(&["model.lock=LL", "run.locked_precision=f16"]);
    let difference = max_difference(&found, &expected);
    assert!(difference > 0.0 && difference < 5e-3, "{difference}");
}

/// The error of a processor without instructions for bf16; says that the test ends there.
#[expect(clippy::print_stderr, reason = "says what was not tested")]
fn assert_lacks_instructions(key: &str, text: &str) {
    let expected =
        format!("`{key}` is `bf16`, which the device `cpu` computes with instructions that this processor lacks");
    assert!(text.contains(&expected) && text.contains("set it to `f32`"), "{text}");
    eprintln!("skipped: this processor has neither AMX nor AVX512_BF16");
}

/// Whether this processor computes in bf16; if not, the error is checked.
pub(crate) fn computes_bf16(session: &Session) -> bool {
    let sets = ["run.dir=in-bf16", "run.precision=bf16"];
    let sets = sets.iter().flat_map(|set| ["--set", *set]);
    let output = session.run(&["train", "--config", "lit.toml"].into_iter().chain(sets).collect::<Vec<_>>());
    if !output.status.success() {
        assert_lacks_instructions("run.precision", &String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// Factors of products are rounded, where the processor has instructions for them; an error where it has not.
#[test]
fn locked_towers_in_bf16_on_the_cpu() {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 6\n");
    let train = |name: &str, sets: &[&str]| {
        let dir = format!("run.dir={name}");
        let sets = [&["model.lock=LL", "cache.dir=cache", dir.as_str()], sets].concat();
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        session.run(&["train", "--config", "lit.toml"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    let losses = |name: &str| column(&session.metrics(name, "train"), "loss");
    let files = || fs::read_dir(session.path("cache")).unwrap().count();
    assert!(train("f32", &[]).status.success());
    let before = files();
    let output = train("bf16", &["run.locked_precision=bf16"]);
    let text = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(2) {
        assert_lacks_instructions("run.locked_precision", &text);
        return;
    }
    assert!(output.status.success() && text.contains("products in bf16 by A"), "{text}");
    assert!(!text.contains("the CPU is slower"), "{text}");
    let difference = max_difference(&losses("bf16"), &losses("f32"));
    assert!(difference > 0.0 && difference < 4e-2, "{difference}");
    // Features of their own, one file of values and one index for each tower.
    assert_eq!((before, files()), (4, 8));
    for (name, sets) in [
        ("warm", &["run.locked_precision=bf16"][..]),
        ("off", &["run.locked_precision=bf16", "cache.enabled=false"]),
        ("one-thread", &["run.locked_precision=bf16", "cache.enabled=false", "run.threads=1"]),
    ] {
        assert!(train(name, sets).status.success(), "{name}");
        assert!(losses(name) == losses("bf16"), "{name}");
    }
    assert_eq!(files(), 8);
}

/// Whether `run.precision = "bf16"` works here; where the processor has no instructions for it, checks the error.
fn trains_in_bf16(session: &Session) -> bool {
    let arguments = ["train", "--config", "lit.toml", "--set", "run.precision=bf16", "--set", "run.dir=probe"];
    let output = session.run(&arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(2) {
        assert_lacks_instructions("run.precision", &text);
        return false;
    }
    assert!(output.status.success() && text.contains("training: products in bf16 by A"), "{text}");
    assert!(!text.contains("the CPU is slower"), "{text}");
    true
}

#[test]
fn bf16_training_saves_f32() {
    let session = Session::new();
    session.write_config("");
    if !trains_in_bf16(&session) {
        return;
    }
    for lock in ["model.lock=UU", "model.lock=LU"] {
        let (expected, found) = (losses(&[lock]), losses(&[lock, "run.precision=bf16", "train.micro_batch_size=3"]));
        let difference = max_difference(&found, &expected);
        assert!(difference > 0.0 && difference < 4e-2, "{lock}: {difference}");
        assert!(found[11] < found[0] - 0.1, "{found:?}");
    }
}

/// A run that stops and goes on has the bits of one that does not, whatever is locked, cached and in parts; and locked
/// features are those of a run in `f32`.
#[test]
fn bf16_training_resumes_to_the_bit() {
    let session = Session::new();
    session.write_pairs("pairs.csv");
    session.write_config(
        "[checkpoint]\nevery_steps = 1\nkeep = 100\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\nevery_steps = 3\n",
    );
    if !trains_in_bf16(&session) {
        return;
    }
    let train = |name: &str, sets: &[&str]| {
        let dir = format!("run.dir={name}");
        let sets = [&["cache.dir=cache", "model.text_dropout=0.1", dir.as_str()], sets].concat();
        let sets = sets.iter().flat_map(|set| ["--set", *set]);
        session.succeed(&["train", "--config", "lit.toml", "--resume"].into_iter().chain(sets).collect::<Vec<_>>());
    };
    let files = || fs::read_dir(session.path("cache")).map_or(0, Iterator::count);
    for (name, sets) in [
        ("all", &["model.lock=UU"][..]),
        ("parts", &["model.lock=UU", "train.micro_batch_size=3"]),
        ("locked", &["model.lock=LU"]),
        ("partly", &["model.lock=LL", "model.text_unlock_last=1", "cache.prefix=true"]),
        ("both", &["model.lock=LU", "run.locked_precision=bf16"]),
    ] {
        train(&format!("{name}-f32"), sets);
        let before = files();
        // Without a locked tower, nothing is cached.
        assert_eq!(before > 0, sets[0] != "model.lock=UU", "{name}: {before} files");
        let sets = [sets, &["run.precision=bf16"]].concat();
        let (whole, cut) = (format!("{name}-whole"), format!("{name}-cut"));
        train(&whole, &sets);
        assert_eq!(files(), before, "{name}: the precision of training changes no cached feature");
        copy_run_at(&session.path(&whole), &session.path(&cut), 5);
        train(&cut, &sets);
        session.assert_same_run(&cut, &whole, 12);
        let losses = |name: &str| column(&session.metrics(name, "train"), "loss");
        let difference = max_difference(&losses(&whole), &losses(&format!("{name}-f32")));
        assert!(difference > 0.0 && difference < 4e-2, "{name}: {difference}");
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
