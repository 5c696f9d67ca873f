//! Updates that go wrong, limits that hold, and locks that hold for a thousand steps.

use std::fs;

use safetensors::tensor::{Dtype, TensorView};

use crate::soak::{Draws, figure, scaled, whole_checkpoints};
use crate::support::{Session, column, floats, goldens, stderr, tensors};

/// A run in which the update after `step` steps spoils the weights.
fn spoiled_after(step: usize) -> Session {
    let session = Session::new();
    let stage = format!("[[train.stage]]\nfrom_step = {step}\nlock = \"UU\"\nlearning_rate = 1e30\n");
    session.write_config(&format!(
        "schedule = \"constant\"\nclip_grad_norm = 0.0\nweight_decay = 0.0\n{stage}[checkpoint]\nevery_steps = 1\n\
         keep = 100\n"
    ));
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    session.write("lit.toml", config.replace("epochs = 4", "steps = 40").replace("warmup_steps = 3", ""));
    session
}

#[test]
fn each_step_is_looked_at() {
    let mut draws = Draws::new("each_step_is_looked_at");
    // Each of the first 20 steps is spoiled in the soak.
    let count = scaled(5).min(20) as usize;
    let offset = draws.below(20);
    for at in (0..count).map(|n| 1 + (n * 20 / count + offset) % 20) {
        let session = spoiled_after(at);
        let arguments = ["train", "--config", "lit.toml", "--resume", "--set", "run.log_every_steps=50"];
        let text = session.fail(3, &arguments);
        // No step after the spoiled update is logged, and none of its numbers is one that is not a number.
        let lines = session.metrics("run", "train");
        assert!((at..=at + 1).contains(&lines.len()), "{at}: {} steps", lines.len());
        for name in ["loss", "grad_norm", "logit_scale"] {
            assert!(column(&lines, name).iter().all(|value| value.is_finite()), "{at}: {name}");
        }
        let step = lines.len() + 1;
        assert!(text.contains(&format!("step {step}")) && text.contains("`train.learning_rate`"), "{at}: {text}");
        assert!(session.path(&format!("run/not-finite-step-{step:06}.json")).exists(), "{at}: {text}");
        assert_report_names_the_batch(&session, step);
        let saved = whole_checkpoints(&session.path("run"));
        assert_eq!(saved.last().copied(), Some(lines.len() as u64), "{at}");
        for step in saved {
            let path = session.path(&format!("run/checkpoints/step-{step:06}/model.safetensors"));
            for name in tensors(&path).keys().filter(|name| !name.contains("num_batches")) {
                assert!(floats(&path, name).iter().all(|value| value.is_finite()), "{at}: {name} of step {step}");
            }
        }
    }
    figure("each_step_is_looked_at", &format!("{count} of {count} ended with exit code 3 and finite checkpoints"));
}

/// The report on a run that diverged at `step` says so, and how it goes on.
fn assert_report_names_the_batch(session: &Session, step: usize) {
    session.succeed(&["report", "run", "--no-model"]);
    let page = fs::read_to_string(session.path("run/report.html")).unwrap();
    let file = format!("not-finite-step-{step:06}.json");
    for part in ["diverged</span>", &file, "--skip-steps 1", "1 warning"] {
        assert!(page.contains(part), "`{part}` is missing");
    }
    assert!(!page.contains("No warning is recorded"));
}

#[test]
fn logit_scale_stays_below_its_limit() {
    let session = Session::new();
    session.write_config("schedule = \"constant\"\n[checkpoint]\nevery_steps = 500\n");
    // Rates that throw the scale about: a stage of 50 steps each.
    let mut draws = Draws::new("logit_scale_stays_below_its_limit");
    let mut stages = String::from("[");
    for stage in 1..20 {
        let rate = 10f64.powf(draws.below(3000) as f64 / 1000.0 - 3.0);
        stages += &format!("{{from_step={}, lock='LL', learning_rate={rate:e}}},", stage * 50);
    }
    stages.pop();
    let stages = format!("train.stage={stages}]");
    let sets = [
        "train.epochs=",
        "train.steps=1000",
        "model.lock=LL",
        "train.warmup_steps=0",
        "train.logit_scale_max=3",
        &stages,
    ];
    let mut arguments = vec!["train", "--config", "lit.toml"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    session.succeed(&arguments);
    let scales = column(&session.metrics("run", "train"), "logit_scale");
    assert_eq!(scales.len(), 1000);
    let limit = 3f64.exp() * (1.0 + 1e-6);
    assert!(scales.iter().all(|scale| *scale > 0.0 && *scale <= limit), "{scales:?}");
    let at_limit = scales.iter().filter(|scale| **scale > 3f64.exp() * (1.0 - 1e-6)).count();
    assert!(at_limit > 0, "the limit was never reached: {scales:?}");
    figure("logit_scale_stays_below_its_limit", &format!("1000 updates, {at_limit} at the limit, 0 above"));
}

#[test]
fn locked_towers_stay_for_a_thousand_steps() {
    let before = tensors(&goldens("train/init/model.safetensors"));
    for (lock, tower) in [("LU", "vision_model."), ("UL", "text_model.")] {
        let session = Session::new();
        session.write_config("weight_decay = 0.1\n[checkpoint]\nevery_steps = 500\n");
        let lock = format!("model.lock={lock}");
        // Dropout and no cache: the locked tower computes at each step.
        let sets = ["train.epochs=", "train.steps=1000", "data.shuffle=true", "cache.enabled=false", &lock];
        let mut arguments = vec!["train", "--config", "lit.toml"];
        arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
        session.succeed(&arguments);
        session.succeed(&["export", "--model", "run", "--out", "hf"]);
        let after = tensors(&session.path("hf/model.safetensors"));
        let (locked, rest): (Vec<_>, Vec<_>) = before.iter().partition(|(name, _)| name.starts_with(tower));
        assert!(locked.len() > 15, "{}", locked.len());
        for (name, tensor) in locked {
            assert!(after[name] == *tensor, "{lock}: {name} moved");
        }
        assert!(rest.iter().any(|(name, tensor)| after[*name] != **tensor), "{lock}: nothing moved");
        // Its fingerprint is compared at each resume; embedding twice gives the same bits.
        let again = [arguments.as_slice(), &["--resume"]].concat();
        let output = session.run(&again);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    figure("locked_towers_stay_for_a_thousand_steps", "2 locks, 1000 steps each, decay 0.1: 0 differing tensors");
}

#[test]
fn embeddings_of_norm_zero_are_finite() {
    let session = Session::new();
    session.write_config("");
    let init = session.copy("train/init", "init");
    let file = init.join("model.safetensors");
    let mut all = tensors(&file);
    all.get_mut("visual_projection.weight").unwrap().2.fill(0);
    let views = all.iter().map(|(name, (_, shape, bytes))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes.as_slice()).unwrap())
    });
    fs::write(&file, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
    for loss in ["softmax", "sigmoid"] {
        let (run, loss_set) = (format!("run.dir={loss}"), format!("train.loss={loss}"));
        let sets = ["model.init=init", &run, &loss_set].map(|set| ["--set", set]).concat();
        session.succeed(&[["train", "--config", "lit.toml"].as_slice(), &sets].concat());
        let lines = session.metrics(loss, "train");
        for name in ["loss", "grad_norm", "image_spread"] {
            assert!(column(&lines, name).iter().all(|value| value.is_finite()), "{loss}: {name}");
        }
        assert_eq!(lines.len(), 12);
    }
    let images = goldens("train/images");
    let arguments = ["embed", "--model", "init", "--images", images.to_str().unwrap(), "--out", "x.safetensors"];
    session.succeed(&arguments);
    assert!(floats(&session.path("x.safetensors"), "image_embeds").iter().all(|value| *value == 0.0));
}

#[test]
fn state_before_the_failure_is_saved() {
    let session = spoiled_after(9);
    let sets = ["checkpoint.every_steps=1000"].map(|set| ["--set", set]).concat();
    let arguments = [["train", "--config", "lit.toml", "--resume"].as_slice(), &sets].concat();
    for _resumed in [false, true] {
        session.fail(3, &arguments);
        let done = session.metrics("run", "train").len() as u64;
        assert!((9..=10).contains(&done), "{done}");
        assert_eq!(whole_checkpoints(&session.path("run")).last().copied(), Some(done));
    }
    // A run that ends there has the same weights.
    let done = session.metrics("run", "train").len();
    let last = format!("train.steps={done}");
    session.succeed(&[arguments.as_slice(), &["--set", &last, "--set", "run.dir=whole"]].concat());
    let model = |run: &str| tensors(&session.path(&format!("{run}/checkpoints/step-{done:06}/model.safetensors")));
    assert!(model("run") == model("whole"));
}
