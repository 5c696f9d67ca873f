//! Warnings about training that fails without an error: each appears once and names the fix. Healthy runs have none.

use std::collections::BTreeMap;
use std::fs;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::support::{Session, column, floats, goldens, stderr, tensors};

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
                text.contains(&format!("at step {step}")) && text.contains("a lower `train.learning_rate`"),
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
        // Reading a number of JSON may change its last bit in f64.
        assert_eq!(dump["logit_scale"].as_f64().unwrap() as f32, floats(&model("run"), "logit_scale")[0]);
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

/// A run that diverges at step 7: the update of step 6 has a rate of 1e30.
fn diverging_session() -> Session {
    let session = Session::new();
    session.write_config(
        "schedule = \"constant\"\nclip_grad_norm = 0.0\n\
         [[train.stage]]\nfrom_step = 5\nlock = \"UU\"\nlearning_rate = 1e30\n\
         [checkpoint]\nevery_steps = 100\n[eval.held]\ntask = \"loss\"\ndata = \"held.csv\"\n\
         pool_size = 8\nevery_steps = 100\n",
    );
    let dir = goldens("train");
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("held.csv", rows.replace("images/", &format!("{}/images/", dir.display())));
    session
}

const DIVERGING: [&str; 6] = ["train", "--config", "lit.toml", "--resume", "--set", "train.warmup_steps=0"];

#[test]
fn diverged_run_goes_on_gently() {
    let session = diverging_session();
    let text = session.fail(3, &DIVERGING);
    assert!(text.contains("at step 7") && text.contains("the state after step 6 is saved"), "{text}");
    assert!(session.path("run/checkpoints/step-000006").is_dir());
    // The same again meets the same NaN, and changes nothing.
    let text = session.fail(3, &DIVERGING);
    assert!(text.contains("at step 7") && text.contains("--skip-steps"), "{text}");

    // From before the update that did it, at a lower rate.
    let text =
        session.fail(3, &[&DIVERGING[..], &["--set", "run.dir=early", "--set", "checkpoint.every_steps=5"]].concat());
    assert!(text.contains("at step 7"), "{text}");
    fs::remove_dir_all(session.path("early/checkpoints/step-000006")).unwrap();
    let gentler = fs::read_to_string(session.path("lit.toml")).unwrap().replace("1e30", "1e-4");
    session.write("lit.toml", gentler);
    let sets = ["run.dir=early", "checkpoint.every_steps=5", "train.learning_rate=5e-4", "train.clip_grad_norm=1"];
    let output = session.run(&[&DIVERGING[..], &sets.map(|set| ["--set", set]).concat()].concat());
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    for key in ["train.learning_rate", "train.clip_grad_norm", "train.stage[0].learning_rate"] {
        assert!(text.contains(&format!("`{key}` has changed")), "{key}: {text}");
    }
    let lines = session.metrics("early", "train");
    assert_eq!(lines.len(), 12);
    assert!(lines.iter().all(|line| line["loss"].as_f64().is_some_and(f64::is_finite)), "{lines:?}");
    assert_eq!(lines[5]["learning_rate"], 1e-4);
    // A higher rate is another run.
    session.fail(2, &[&DIVERGING[..], &["--set", "run.dir=early", "--set", "train.learning_rate=1e-2"]].concat());
}

#[test]
fn skipped_steps_make_no_update() {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 4\n");
    let train = |run: &str, more: &[&str]| {
        session.succeed(&[&["train", "--config", "lit.toml", "--resume", "--set", run][..], more].concat());
    };
    train("run.dir=first", &["--set", "train.epochs=4"]);
    fs::create_dir_all(session.path("second/checkpoints")).unwrap();
    crate::support::copy_run_at(&session.path("first"), &session.path("second"), 0);
    let copied = session.path("second/checkpoints/step-000004");
    fs::create_dir(&copied).unwrap();
    for file in fs::read_dir(session.path("first/checkpoints/step-000004")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copied.join(file.file_name())).unwrap();
    }
    train("run.dir=second", &["--skip-steps", "2"]);
    let steps: Vec<u64> =
        session.metrics("second", "train").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 7, 8, 9, 10, 11, 12]);
    let warning = &session.metrics("second", "warning")[0];
    assert_eq!((&warning["step"], &warning["name"]), (&6.into(), &"skipped-steps-5-6".into()));
    // The state is saved where the run goes on, and remembers what was skipped, with the weights before.
    let model =
        |run: &str, step: u64| tensors(&session.path(&format!("{run}/checkpoints/step-{step:06}/model.safetensors")));
    let manifest = |step: u64| {
        let path = session.path(&format!("second/checkpoints/step-{step:06}/manifest.json"));
        serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap()
    };
    assert!(model("second", 6) == model("first", 4));
    assert_eq!(manifest(6)["skipped_steps"], serde_json::json!([[4, 6]]));
    assert_eq!(manifest(12)["skipped_steps"], serde_json::json!([[4, 6]]));
    assert_eq!(manifest(12)["samples_seen"], 80);
    assert!(model("second", 12) != model("first", 12));
    // A resume from there needs no option and gives the same bits.
    let whole = model("second", 12);
    fs::remove_dir_all(session.path("second/checkpoints/step-000012")).unwrap();
    fs::remove_dir_all(session.path("second/checkpoints/step-000008")).unwrap();
    train("run.dir=second", &[]);
    assert!(model("second", 12) == whole);
    let resume = ["train", "--config", "lit.toml", "--resume", "--set", "run.dir=third", "--skip-steps", "12"];
    let text = session.fail(2, &resume);
    assert!(text.contains("leaves nothing to train") && text.contains("skip at most 11"), "{text}");
}

#[test]
fn skip_before_the_first_update_resumes() {
    // No update at all before the skip, or none of the stage that begins there.
    for (stage, until) in [("", 0), ("[[train.stage]]\nfrom_step = 4\nlock = \"UU\"\n", 4)] {
        let session = Session::new();
        session.write_config(&format!("ema_decay = 0.9\n{stage}[checkpoint]\nevery_steps = 4\n"));
        let lock = if until == 0 { "UU" } else { "LU" };
        let config = fs::read_to_string(session.path("lit.toml")).unwrap();
        session.write("lit.toml", config.replace("lock = \"UU\"\n[data]", &format!("lock = \"{lock}\"\n[data]")));
        let train = ["train", "--config", "lit.toml", "--resume"];
        if until > 0 {
            let output = session.command(&train).env("DUALENC_FAIL_AT", "after_rename").output().unwrap();
            assert!(!output.status.success());
        }
        // Killed as soon as the skip is saved.
        let skip = [&train[..], &["--skip-steps", "2"]].concat();
        let output = session.command(&skip).env("DUALENC_FAIL_AT", "after_rename").output().unwrap();
        assert!(!output.status.success());
        assert!(session.path(&format!("run/checkpoints/step-{:06}", until + 2)).is_dir(), "{stage}");
        session.succeed(&train);
        let steps: Vec<u64> =
            session.metrics("run", "train").iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=until).chain(until + 3..=12).collect::<Vec<_>>(), "{stage}");
    }
}

#[test]
fn rescue_keeps_older_checkpoints() {
    let session = diverging_session();
    let sets = ["--set", "checkpoint.every_steps=4", "--set", "checkpoint.keep=1"];
    let train = [&DIVERGING[..], &sets].concat();
    let steps = || {
        let entries = fs::read_dir(session.path("run/checkpoints")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for _again in 0..2 {
        session.fail(3, &train);
        assert_eq!(steps(), ["step-000004", "step-000006"]);
    }
    session.fail(3, &[&train[..], &["--skip-steps", "1"]].concat());
    assert_eq!(steps(), ["step-000004", "step-000006", "step-000007"]);
    // From the healthy one, at a lower rate; a regular checkpoint ends the matter.
    for step in [6, 7] {
        fs::remove_dir_all(session.path(&format!("run/checkpoints/step-{step:06}"))).unwrap();
    }
    let gentler = fs::read_to_string(session.path("lit.toml")).unwrap().replace("1e30", "1e-4");
    session.write("lit.toml", gentler);
    session.succeed(&train);
    assert_eq!(steps(), ["step-000012"]);
}

#[test]
fn longer_warmup_names_higher_rates() {
    let session = Session::new();
    session.write_config("schedule = \"cosine\"\n[checkpoint]\nevery_steps = 8\n");
    let train = ["train", "--config", "lit.toml", "--resume"];
    let output = session.command(&train).env("DUALENC_FAIL_AT", "after_rename").output().unwrap();
    assert!(!output.status.success());
    let output = session.run(&[&train[..], &["--set", "train.warmup_steps=8"]].concat());
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    let rates = column(&session.metrics("run", "train"), "learning_rate");
    assert_eq!(rates.len(), 12);
    // The curve from 1 to 0 over 4 steps, against that over 9 steps, of which 5 to 8 were left.
    let old = |after: f64| 0.5 * (1.0 + (std::f64::consts::PI * after / 9.0).cos());
    let new = |after: f64| 0.5 * (1.0 + (std::f64::consts::PI * after / 4.0).cos());
    let highest = (0..4).map(|n| new(f64::from(n)) / old(f64::from(n) + 5.0)).fold(0.0, f64::max);
    let expected = format!("the learning rate of steps 9 to 12 is up to {highest:.1} times that of the old config");
    assert!(text.contains(&expected), "{expected}: {text}");
}
