//! Warnings about training that fails without an error: each appears once and names the fix. Healthy runs have none.

use std::collections::BTreeMap;
use std::fs;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::support::{Session, floats, goldens, stderr, tensors};

/// 240 steps on 24 pairs: longer than any warning waits.
const LONG: [&str; 6] = ["train", "--config", "lit.toml", "--resume", "--set", "train.epochs=80"];

fn arguments<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    LONG.into_iter().chain(sets.iter().flat_map(|&set| ["--set", set])).collect()
}

/// Trains and returns the messages of the logged warnings by name. Asserts that each is printed exactly once.
#[track_caller]
fn warnings(session: &Session, sets: &[&str]) -> BTreeMap<String, String> {
    let output = session.run(&arguments(sets));
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    let lines = session.metrics("run", "warning");
    let text_at = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let messages: BTreeMap<_, _> = lines.iter().map(|line| (text_at(line, "name"), text_at(line, "message"))).collect();
    assert_eq!(messages.len(), lines.len(), "{lines:?}");
    for message in messages.values() {
        assert_eq!(text.matches(message.as_str()).count(), 1, "{message}\n{text}");
    }
    messages
}

fn session() -> Session {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 90\n");
    session
}

#[test]
fn healthy_run_has_no_warnings() {
    for sets in [&["train.loss=softmax"][..], &["train.loss=sigmoid", "data.shuffle=true"], &["model.lock=LL"]] {
        assert_eq!(warnings(&session(), sets), BTreeMap::new(), "{sets:?}");
    }
}

#[test]
fn warns_of_excessive_learning_rate() {
    let warnings = warnings(&session(), &["train.learning_rate=3", "train.schedule=constant"]);
    let message = &warnings["loss-at-chance"];
    assert!(message.contains("a model that cannot tell two pairs apart has 2.079"), "{message}");
    assert!(message.contains("Lower `train.learning_rate`"), "{message}");
    assert!(warnings.keys().any(|name| name.ends_with("-embeddings-collapsed")), "{warnings:?}");
}

#[test]
fn logit_scale_warning_survives_kill() {
    let session = session();
    let sets = ["train.logit_scale_max=2.7", "train.schedule=constant", "train.epochs=100"];
    let output = session.command(&arguments(&sets)).env("DUALENC_FAIL_AT", "after_rename").output().unwrap();
    assert!(!output.status.success());
    assert_eq!(session.metrics("run", "train").len(), 90);
    let warnings = warnings(&session, &sets);
    let message = &warnings["logit-scale-at-limit"];
    assert!(message.contains("has been at its limit, 14.9") && message.contains("Raise the limit"), "{message}");

    let steps = |run: &str| session.metrics(run, "warning").iter().map(|line| line["step"].clone()).collect::<Vec<_>>();
    session.succeed(&arguments(&[&sets[..], &["run.dir=whole"]].concat()));
    assert_eq!(steps("run"), steps("whole"));
    // A warning that is already in the log is not repeated.
    let longer = session.run(&arguments(&[&sets[..], &["train.epochs=120"]].concat()));
    assert!(longer.status.success() && !stderr(&longer).contains("has been at its limit"), "{}", stderr(&longer));
    assert_eq!(session.metrics("run", "train").len(), 360);
}

#[test]
fn warns_of_saturated_pooler() {
    let session = session();
    let init = session.copy("train/init", "init");
    let file = init.join("model.safetensors");
    let mut all = tensors(&file);
    // In `f32`, tanh(100) is 1, and its slope is 0.
    let (_, _, bytes) = all.get_mut("text_model.pooler.dense.bias").unwrap();
    bytes.chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&100f32.to_le_bytes()));
    let views = all.iter().map(|(name, (_, shape, bytes))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes.as_slice()).unwrap())
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    fs::write(&file, bytes).unwrap();
    let warnings = warnings(&session, &["model.init=init"]);
    let message = &warnings["no-gradient-text_tower"];
    assert!(message.contains("the gradient norm of `text_tower` has been 0.0e0"), "{message}");
    assert!(message.contains("Check whether a layer after it is locked, zero or saturated"), "{message}");
    assert!(
        warnings.contains_key("text-embeddings-collapsed") && !warnings.contains_key("no-gradient-text_projection"),
        "{warnings:?}"
    );
}

#[test]
fn non_finite_loss_dumps_batch() {
    let csv = fs::read_to_string(goldens("train/train.csv")).unwrap();
    let captions: Vec<&str> = csv.lines().skip(1).map(|row| row.split_once(',').unwrap().1.trim_matches('"')).collect();
    // The update that destroys the weights, from 0: the loss of the next step shows it.
    for (bad_update, micro_batch) in [(0, "8"), (1, "8"), (4, "3"), (10, "8")] {
        let session = Session::new();
        let stage = if bad_update == 0 {
            String::new()
        } else {
            format!("[[train.stage]]\nfrom_step = {bad_update}\nlock = \"UU\"\nlearning_rate = 1e30\n")
        };
        session.write_config(&format!(
            "schedule = \"constant\"\nclip_grad_norm = 0.0\nweight_decay = 0.0\nmicro_batch_size = {micro_batch}\n\
             {stage}[checkpoint]\nevery_steps = 1\nkeep = 100\n"
        ));
        let config = fs::read_to_string(session.path("lit.toml")).unwrap();
        session.write("lit.toml", config.replace("epochs = 4", "steps = 20").replace("warmup_steps = 3", ""));
        let rate = if bad_update == 0 { "train.learning_rate=1e30" } else { "train.learning_rate=1e-3" };
        let arguments = ["train", "--config", "lit.toml", "--resume", "--set", rate];
        let run = |more: &[&str]| session.run(&[&arguments[..], more].concat());
        let (done, step) = (bad_update + 1, bad_update + 2);
        let dump = session.path(&format!("run/not-finite-step-{step:06}.json"));
        let model = |run: &str| session.path(&format!("{run}/checkpoints/step-{done:06}/model.safetensors"));
        let mut dumps = Vec::new();
        for _resumed in [false, true] {
            let output = run(&[]);
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(3), "{text}");
            assert!(
                text.contains(&format!("at step {step}")) && text.contains("Lower `train.learning_rate`"),
                "{text}"
            );
            assert_eq!(session.metrics("run", "train").len(), done);
            assert!(!session.path(&format!("run/checkpoints/step-{step:06}")).exists());
            dumps.push(serde_json::from_slice::<Value>(&fs::read(&dump).unwrap()).unwrap());
        }
        assert_eq!(dumps[0], dumps[1]);
        let dump = &dumps[0];
        assert_eq!((dump["step"].as_u64(), dump["loss"].as_str()), (Some(step as u64), Some("NaN")));
        assert_eq!(dump["learning_rate"], 1e30, "{dump}");
        assert_eq!(dump["logit_scale"].as_f64().unwrap(), f64::from(floats(&model("run"), "logit_scale")[0]));
        let samples = dump["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 8);
        for (place, sample) in samples.iter().enumerate() {
            let row = (done * 8 + place) % captions.len();
            assert_eq!(sample["caption"], captions[row]);
            assert!(sample["image"].as_str().unwrap().ends_with(&format!("images/{row:02}.png")), "{sample}");
        }
        // A run that ends before the failing step has the same weights.
        let last = format!("train.steps={done}");
        assert!(run(&["--set", &last, "--set", "run.dir=whole"]).status.success());
        assert!(tensors(&model("run")) == tensors(&model("whole")));
    }
}
