//! A step in micro-batches matches the same step as one batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_model::parameters;

use super::*;
use crate::config::RunConfig;
use crate::events::Silent;
use crate::optim::gradients::Gradient;
use crate::ranks::alone::Alone;
use crate::stop_flag::StopFlag;
use crate::training::position::Start;
use crate::training::run::Run;
use crate::training::step::{self, StepOutcome};

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

/// A run at its first step, of batches of 8 pairs.
fn open(dir: &Path, more: &[&str]) -> Run {
    let text = format!(
        "[run]\ndir = {:?}\n[model]\ninit = {:?}\n[data]\nshuffle = true\n[data.train.csv]\npath = {:?}\n\
         [train]\nsteps = 4\nbatch_size = 8\nlearning_rate = 1e-3\n",
        dir.join(format!("run-{}", blake3::hash(more.join(" ").as_bytes()).to_hex())),
        goldens("train/init"),
        goldens("train/train_repeated.csv"),
    );
    let path = dir.join("lit.toml");
    std::fs::write(&path, text).unwrap();
    let more: Vec<String> = more.iter().map(|set| (*set).to_owned()).collect();
    let config = RunConfig::load(&path, &more).unwrap();
    Run::open(&config, Start::New, Arc::new(Alone), &StopFlag::default(), &mut Silent).unwrap()
}

/// A step as the training loop computes it.
fn forward_backward_of(run: &Run, first: Batch, more: &mut impl Iterator<Item = Result<Batch, DataError>>) -> Step {
    let context = run.step_context();
    let computed = if first.is_last_of_pass {
        step::forward_backward(&context, first)
    } else {
        forward_backward(&context, first, more)
    };
    let Computed { batch, gradients, scalars } = computed.unwrap();
    Step { outcome: scalars.queue_read(None).wait().unwrap(), batch, gradients }
}

struct Step {
    outcome: StepOutcome,
    batch: Batch,
    gradients: ParamGradients,
}

fn first_step(run: &Run) -> Step {
    let mut batches = run.batches().unwrap();
    let first = batches.next().unwrap().unwrap();
    forward_backward_of(run, first, &mut batches)
}

/// The values of all gradients, by parameter path.
fn values(gradients: ParamGradients) -> BTreeMap<String, Vec<f32>> {
    let host = |gradient| match gradient {
        Gradient::Host(values) | Gradient::HostRows { values, .. } => values,
        Gradient::Device(tensor) => parameters::host(*tensor).unwrap().values,
    };
    gradients.by_path.into_iter().map(|(path, gradient)| (path, host(gradient))).collect()
}

/// Every gradient within 1e-5 of the largest of its parameter.
#[track_caller]
fn assert_same(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f32>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let largest = |values: &[f32]| values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for (path, expected) in expected {
        // A key bias shifts all scores of a query alike: its gradient is 0 but for rounding, with no scale of its own.
        let size = if path.ends_with("key.bias") { 1e-1 } else { largest(expected) };
        let limit = 1e-5 * size;
        for (at, (found, expected)) in found[path].iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= limit, "{path}[{at}]: found {found}, expected {expected}");
        }
    }
}

#[test]
fn parts_match_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    for (lock, loss, parameters) in
        [("UU", "softmax", 59), ("LU", "softmax", 38), ("LL", "sigmoid", 4), ("UL", "sigmoid", 24)]
    {
        let (lock, loss) = (format!("model.lock={lock}"), format!("train.loss={loss}"));
        let whole = first_step(&open(dir.path(), &[&lock, &loss]));
        let expected = values(whole.gradients);
        assert!(whole.outcome.num_duplicates > 0 && expected.len() >= parameters, "{lock}: {}", expected.len());
        assert!(expected["logit_scale"][0].abs() > 1e-3);
        for size in [1, 3, 7] {
            let size = format!("train.micro_batch_size={size}");
            let parts = first_step(&open(dir.path(), &[&lock, &loss, &size]));
            assert_eq!(
                (&parts.batch.pairs, parts.outcome.num_duplicates),
                (&whole.batch.pairs, whole.outcome.num_duplicates)
            );
            assert!(
                (parts.outcome.loss / whole.outcome.loss - 1.0).abs() < 1e-6,
                "{} {}",
                parts.outcome.loss,
                whole.outcome.loss
            );
            assert!((parts.outcome.norms.all / whole.outcome.norms.all - 1.0).abs() < 1e-5);
            assert_eq!(parts.outcome.norms.by_part.len(), whole.outcome.norms.by_part.len());
            assert!(
                parts
                    .outcome
                    .spread
                    .iter()
                    .zip(whole.outcome.spread)
                    .all(|(parts, whole)| (parts - whole).abs() < 1e-5)
            );
            assert_same(&values(parts.gradients), &expected);
        }
    }
}

/// The golden towers with new heads of two kinds.
fn new_heads() -> Vec<String> {
    let towers = [("image", goldens("train/vit")), ("text", goldens("train/bert"))];
    let towers = towers.map(|(side, dir)| format!("model.{side}_tower={}", dir.display()));
    let heads = ["model.init=", "model.image_head.kind=glu", "model.text_head.kind=blocks"].map(str::to_owned);
    [&towers[..], &heads].concat()
}

#[test]
fn parts_match_whole_batch_with_any_head() {
    let dir = tempfile::tempdir().unwrap();
    for lock in ["LU", "LL"] {
        let lock = format!("model.lock={lock}");
        let sets = [vec![lock], new_heads()].concat();
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let expected = values(first_step(&open(dir.path(), &sets)).gradients);
        assert!(expected.contains_key("image_projection.gate.weight"));
        assert!(expected.contains_key("text_projection.blocks.1.norm.weight"));
        let parts = first_step(&open(dir.path(), &[&sets[..], &["train.micro_batch_size=3"]].concat()));
        assert_same(&values(parts.gradients), &expected);
    }
}

const SLOTS: [&str; 2] = ["data.captions=slots", "data.caption_slots=3"];

#[test]
fn parts_match_whole_batch_of_several_captions() {
    let dir = tempfile::tempdir().unwrap();
    for (lock, loss) in [("UU", "softmax"), ("LU", "sigmoid"), ("LL", "softmax"), ("UL", "sigmoid")] {
        let (lock, loss) = (format!("model.lock={lock}"), format!("train.loss={loss}"));
        let sets: [&str; 5] = [SLOTS[0], SLOTS[1], &lock, &loss, "train.batch_size=6"];
        let whole = first_step(&open(dir.path(), &sets));
        assert_eq!((whole.batch.pairs.len(), whole.batch.captions.len()), (6, 18));
        let expected = values(whole.gradients);
        for size in [1, 4] {
            let size = format!("train.micro_batch_size={size}");
            let parts = first_step(&open(dir.path(), &[sets.as_slice(), &[size.as_str()]].concat()));
            assert_eq!(
                (&parts.batch.captions, parts.outcome.num_duplicates),
                (&whole.batch.captions, whole.outcome.num_duplicates)
            );
            assert!(
                (parts.outcome.loss / whole.outcome.loss - 1.0).abs() < 1e-6,
                "{} {}",
                parts.outcome.loss,
                whole.outcome.loss
            );
            assert!((parts.outcome.chance_loss - whole.outcome.chance_loss).abs() < 1e-12);
            assert_same(&values(parts.gradients), &expected);
        }
    }
}

#[test]
fn parts_match_whole_batch_with_terms() {
    let dir = tempfile::tempdir().unwrap();
    let structure = ["train.structure=10", "train.structure_warmup_steps=0", "train.matryoshka=[8, 3]"];
    let teacher = format!("train.teacher.model={}", goldens("whole/clip").display());
    let cases = [
        (vec!["model.lock=LU", "train.label_smoothing=0.1"], structure.to_vec()),
        (vec!["model.lock=UU", "train.duplicates=mask"], [&structure[2..], &[teacher.as_str()]].concat()),
        (vec!["model.lock=LL"], [&structure[..], &["train.mixup_alpha=0.5"]].concat()),
        (vec!["model.lock=LL", SLOTS[0], SLOTS[1]], [&structure[..], &[teacher.as_str()]].concat()),
        (
            vec!["model.lock=UU", "train.loss=sigmoid", "train.duplicates=mask", SLOTS[0], SLOTS[1]],
            vec![teacher.as_str(), "train.teacher.bias=-9"],
        ),
        (vec!["model.lock=LL", "train.loss=sigmoid"], vec!["train.mixup_alpha=1"]),
    ];
    for (plain, terms) in cases {
        let [has_structure, has_teacher] = [structure[0], teacher.as_str()].map(|term| terms.contains(&term));
        let sets = [&plain[..], &terms].concat();
        let plain = values(first_step(&open(dir.path(), &plain)).gradients);
        let whole = first_step(&open(dir.path(), &sets));
        let term = whole.outcome.loss_of_terms();
        let expected = values(whole.gradients);
        assert!(expected["image_projection.weight"] != plain["image_projection.weight"], "{sets:?} change nothing");
        for size in [1, 3] {
            let size = format!("train.micro_batch_size={size}");
            let parts = first_step(&open(dir.path(), &[&sets[..], &[size.as_str()]].concat()));
            assert!(
                (parts.outcome.loss / whole.outcome.loss - 1.0).abs() < 1e-6,
                "{} {}",
                parts.outcome.loss,
                whole.outcome.loss
            );
            assert_eq!([parts.outcome.structure.is_some(), whole.outcome.structure.is_some()], [has_structure; 2]);
            assert_eq!([parts.outcome.teacher.is_some(), whole.outcome.teacher.is_some()], [has_teacher; 2]);
            let parts_term = parts.outcome.loss_of_terms();
            assert!((parts_term - term).abs() <= 1e-5 * term, "{parts_term} {term}");
            assert_same(&values(parts.gradients), &expected);
        }
    }
}

#[test]
fn both_passes_drop_the_same_units() {
    let sets = ["model.lock=UU", "model.text_dropout=0.3", "model.image_dropout=0.3", "train.micro_batch_size=3"];
    assert_passes_drop_the_same(&sets, "text_projection.weight");
    let dropped = ["model.image_head.dropout=0.3", "model.text_head.dropout=0.3", "train.micro_batch_size=3"];
    let sets = [new_heads(), dropped.map(str::to_owned).into(), vec!["model.lock=LL".to_owned()]].concat();
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    for parameter in ["image_projection.down.weight", "text_projection.output.weight"] {
        assert_passes_drop_the_same(&sets, parameter);
    }
}

#[track_caller]
fn assert_passes_drop_the_same(sets: &[&str], parameter: &str) {
    let dir = tempfile::tempdir().unwrap();
    let run = open(dir.path(), sets);
    let found = first_step(&run);
    // The same parts in one graph, without a second pass.
    let parts: Vec<Batch> = run.batches().unwrap().map(Result::unwrap).take(3).collect();
    let (context, model) = (run.step_context(), &run.learner.model);
    let gradients_of = |parts: &[Batch]| {
        let features =
            parts.iter().map(|part| context.features(model, &context.locked.of_batch(part).unwrap(), part).unwrap());
        let (image, text) = features.map(|features| (features.image, features.text)).unzip();
        let features = [Tensor::cat(image, 0), Tensor::cat(text, 0)];
        let loss = context.loss(&whole(parts), &LockedFeatures::default(), features).unwrap();
        values(ParamGradients::take(model, &mut loss.total.backward(), None, true).unwrap())
    };
    let found = values(found.gradients);
    assert_same(&found, &gradients_of(&parts));
    // Dropping other units changes the gradients.
    let others: Vec<Batch> = parts.into_iter().map(|part| Batch { part: part.part + 3, ..part }).collect();
    let others = gradients_of(&others);
    let difference = found[parameter].iter().zip(&others[parameter]).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(difference > 1e-3, "{difference}");
}

#[test]
fn each_step_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    // In the order of the file the last batch is smaller, and may be a single part.
    let sets =
        ["model.lock=UU", "data.shuffle=false", "train.batch_size=10", "train.steps=6", "train.micro_batch_size=4"];
    let run = open(dir.path(), &sets);
    let mut batches = run.batches().unwrap();
    let mut sizes = Vec::new();
    while let Some(first) = batches.next() {
        let step = forward_backward_of(&run, first.unwrap(), &mut batches);
        sizes.push((step.batch.step, step.batch.pairs.len()));
    }
    let pairs = sizes[..3].iter().map(|(_, pairs)| pairs).sum::<usize>();
    assert!(sizes[2].1 <= 4 && sizes[2].1 > 0, "{pairs} pairs: {sizes:?}");
    assert_eq!(sizes.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(sizes.iter().map(|(_, pairs)| *pairs).collect::<Vec<_>>(), [10, 10, pairs - 20, 10, 10, pairs - 20]);
}

#[test]
fn second_pass_must_repeat_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let run = open(dir.path(), &["model.lock=UU", "train.micro_batch_size=3"]);
    let doctored = |edit: &dyn Fn(&mut Batch)| {
        let mut batches = run.batches().unwrap();
        let first = batches.next().unwrap().unwrap();
        // Parts 1 and 2 of the first pass, then part 0 of the second.
        let mut more = batches.enumerate().map(|(at, batch)| {
            batch.map(|mut batch| {
                if at == 3 {
                    edit(&mut batch);
                }
                batch
            })
        });
        forward_backward(&run.step_context(), first, &mut more).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(doctored(&|_| ()), Ok(()));
    let error = doctored(&|batch| batch.pairs.swap(0, 1)).unwrap_err();
    assert!(error.contains("step 1") && error.contains(".png") && error.contains("first pass"), "{error}");
    let error = doctored(&|batch| batch.step += 1).unwrap_err();
    assert!(error.contains("internal error") && error.contains("step 2"), "{error}");
    let error = doctored(&|batch| batch.part += 1).unwrap_err();
    assert!(error.contains("internal error") && error.contains("part 2"), "{error}");
}
