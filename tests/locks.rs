//! Which parameters move with each lock, with adapters, and from stage to stage.

use std::collections::BTreeSet;

use crate::support::{Session, assert_close, column, copy_run_at, floats, goldens, stderr, tensors};

fn train(session: &Session, sets: &[&str]) {
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
}

/// Trains 210 steps with weight decay and returns the names of the exported tensors that changed.
fn moved(more: &str, sets: &[&str]) -> BTreeSet<String> {
    let session = Session::new();
    session.write_config(&format!("weight_decay = 0.1\n[checkpoint]\nevery_steps = 1000\n{more}"));
    train(&session, &[&["train.epochs=70", "data.shuffle=true"], sets].concat());
    assert_eq!(session.metrics("run", "train").len(), 210);
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let before = tensors(&goldens("train/init/model.safetensors"));
    let after = tensors(&session.path("hf/model.safetensors"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    before.into_iter().filter(|(name, tensor)| after[name] != *tensor).map(|(name, _)| name).collect()
}

/// The names of the golden model's tensors that contain one of `parts`.
fn names_with(parts: &[&str]) -> BTreeSet<String> {
    let names = tensors(&goldens("train/init/model.safetensors")).into_keys();
    names.filter(|name| parts.iter().any(|part| name.contains(part))).collect()
}

#[test]
fn only_unlocked_parameters_move() {
    const HEAD: [&str; 3] = ["visual_projection", "text_projection", "logit_scale"];
    let with_head = |parts: &[&str]| names_with(&[&HEAD[..], parts].concat());
    assert_eq!(moved("", &["model.lock=LL"]), with_head(&[]));
    assert_eq!(moved("", &["model.lock=LU"]), with_head(&["text_model."]));
    assert_eq!(moved("", &["model.lock=UL"]), with_head(&["vision_model."]));
    assert_eq!(
        moved("", &["model.lock=LU", "model.image_projection.locked=true"]),
        names_with(&["text_model.", "text_projection", "logit_scale"])
    );
    assert_eq!(
        moved("", &["model.lock=LL", "model.text_unlock_last=1"]),
        with_head(&["text_model.encoder.layer.1.", "text_model.pooler."])
    );
    assert_eq!(
        moved("", &["model.lock=LU", "model.image_unlock_last=1"]),
        with_head(&["text_model.", "vision_model.encoder.layer.0.", "vision_model.layernorm.", "vision_model.pooler."])
    );
    assert_eq!(
        moved("[model.text_lora]\nrank = 2\n", &["model.lock=LL"]),
        with_head(&[
            "text_model.encoder.layer.0.attention.self.query.weight",
            "text_model.encoder.layer.1.attention.self.query.weight",
            "text_model.encoder.layer.0.attention.self.value.weight",
            "text_model.encoder.layer.1.attention.self.value.weight"
        ])
    );
    assert_eq!(
        moved("[model.image_lora]\nrank = 2\ntargets = [\"up\"]\n", &["model.lock=LL"]),
        with_head(&["vision_model.encoder.layer.0.intermediate.dense.weight"])
    );
}

#[test]
fn adapters_are_saved_and_merged() {
    let session = Session::new();
    session.write_config("[model.text_lora]\nrank = 3\nalpha = 6.0\n[model.image_lora]\nrank = 1\n");
    train(&session, &["model.lock=LL", "train.learning_rate=1e-2"]);
    let saved = tensors(&session.path("run/checkpoints/step-000012/model.safetensors"));
    let adapters: Vec<&String> = saved.keys().filter(|name| name.contains("_tower.")).collect();
    // Two linears in each of two text blocks and one image block, with two matrices each.
    assert_eq!(adapters.len(), 2 * 2 * 2 + 2 * 2, "{adapters:?}");
    assert!(adapters.iter().all(|name| name.contains(".adapter.")), "{adapters:?}");
    let moved = floats(&session.path("run/checkpoints/step-000012/model.safetensors"), adapters[1]);
    assert!(moved.iter().any(|value| value.abs() > 1e-4));
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    session.write("texts.txt", "a red circle\na green square on grey\n");
    let images = goldens("train/images");
    for model in ["run", "hf"] {
        let out = format!("{model}.safetensors");
        let images = images.to_str().unwrap();
        session.succeed(&["embed", "--model", model, "--images", images, "--texts", "texts.txt", "--out", &out]);
    }
    for name in ["image_embeds", "text_embeds"] {
        let [run, exported] = ["run", "hf"].map(|model| floats(&session.path(&format!("{model}.safetensors")), name));
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        assert_close(name, &wide(run), &wide(exported), 1e-5);
    }
    // A run that starts from this one merges the adapters into its towers.
    let init = format!("model.init={}", session.path("run").display());
    let sets = ["run.dir=next", "model.lock=LU", "model.text_lora=", "model.image_lora=", &init];
    train(&session, &sets);
    let next = tensors(&session.path("next/checkpoints/step-000012/model.safetensors"));
    assert!(next.keys().all(|name| !name.contains("adapter") && !name.starts_with("image_tower.")));
}

const STAGES: &str = "[[train.stage]]\nfrom_step = 5\nlock = \"LU\"\nlearning_rate = 5e-4\nwarmup_steps = 2\n\
                      [[train.stage]]\nfrom_epoch = 3\nlock = \"UU\"\n\
                      [[train.stage]]\nfrom_epoch = 5\nlock = \"UL\"\n";

fn staged() -> Session {
    let session = Session::new();
    session.write_config(&format!("schedule = \"constant\"\n[checkpoint]\nevery_steps = 1\nkeep = 100\n{STAGES}"));
    train(&session, &["model.lock=LL", "train.epochs=6", "model.text_dropout=0.1", "train.warmup_steps=0"]);
    session
}

#[test]
fn stages_begin_at_their_step() {
    let session = staged();
    // 3 steps per epoch: the text tower trains from step 5, both towers from 9, the image tower alone from 15.
    let at = |step: usize| tensors(&session.path(&format!("run/checkpoints/step-{step:06}/model.safetensors")));
    for step in 1..18 {
        let (before, after) = (at(step), at(step + 1));
        let moves = |tower: &str| {
            let mut of_tower = before.iter().filter(|(name, _)| name.starts_with(tower)).peekable();
            assert!(of_tower.peek().is_some(), "{tower} is not saved at {step}");
            of_tower.filter(|(name, tensor)| after[*name] != **tensor).count() > 0
        };
        assert_eq!(moves("text_tower."), (5..15).contains(&step), "text tower, update {step}");
        assert_eq!(moves("image_tower."), step >= 9, "image tower, update {step}");
        assert!(moves("text_projection."), "text projection, update {step}");
    }
    let expected = [[1e-3; 5].as_slice(), &[2.5e-4], &[5e-4; 12]].concat();
    assert_close("learning_rate", &column(&session.metrics("run", "train"), "learning_rate"), &expected, 1e-12);
    // Bias correction counts the updates of each parameter, so its first update is about the learning rate at any step.
    let name = "image_tower.encoder.blocks.0.mlp.up.bias";
    let [before, after] =
        [9, 10].map(|step| floats(&session.path(&format!("run/checkpoints/step-{step:06}/model.safetensors")), name));
    let most = before.iter().zip(&after).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!((most - 5e-4).abs() < 1e-5, "{most}");
}

#[test]
fn resumes_around_stage_boundaries() {
    let session = staged();
    let (model, optimizer) =
        ("checkpoints/step-000018/model.safetensors", "checkpoints/step-000018/optimizer.safetensors");
    for step in [1, 4, 5, 6, 8, 9, 10, 15, 16] {
        let run = format!("resumed-{step}");
        copy_run_at(&session.path("run"), &session.path(&run), step);
        let dir = format!("run.dir={run}");
        train(&session, &["model.lock=LL", "train.epochs=6", "model.text_dropout=0.1", "train.warmup_steps=0", &dir]);
        for file in [model, optimizer] {
            assert_eq!(
                tensors(&session.path(&run).join(file)),
                tensors(&session.path("run").join(file)),
                "{step} {file}"
            );
        }
        let losses = |run: &str| column(&session.metrics(run, "train"), "loss");
        assert_eq!(losses(&run), losses("run"));
    }
}

#[test]
fn lists_and_announces_stages() {
    let session = Session::new();
    session.write_config(STAGES);
    let output = session.run(&["train", "--config", "lit.toml", "--set", "model.lock=LL", "--set", "train.epochs=6"]);
    let text = stderr(&output);
    for line in
        ["stage 1 of 4: `LL`, from step 0, learning rate 1e-3", "stage 4 of 4: `UL`, from step 15, learning rate 5e-4"]
    {
        assert_eq!(text.matches(line).count(), 1 + usize::from(line.contains("stage 4")), "{text}");
    }
}

#[test]
fn rejects_invalid_locks_and_stages() {
    let session = Session::new();
    session.write_config("");
    let assert_refused = |sets: &[&str], expected: &[&str]| {
        let mut arguments = vec!["train", "--config", "lit.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let text = session.fail(2, &arguments);
        expected.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
        assert!(!session.path("run/metrics.jsonl").exists());
    };
    assert_refused(
        &["model.lock=LL", "model.text_unlock_last=3"],
        &["`model.text_unlock_last` (or", "is 3, but the text tower has 2 blocks; choose at most that"],
    );
    assert_refused(
        &["model.lock=LU", "model.text_unlock_last=1"],
        &["but `lock` is `LU`: all of the text tower trains"],
    );
    assert_refused(&["model.lock=LU", "model.text_lora={rank=2}"], &["adapters belong to a locked tower"]);
    assert_refused(
        &["model.lock=LL", "model.text_lora={rank=0}"],
        &["`model.text_lora.rank` is 0, expected at least 1"],
    );
    assert_refused(&["model.lock=LL", "model.text_lora={rank=1, targets=['gate']}"], &["no linear called `gate`"]);
    assert_refused(
        &["model.lock=LL", "model.text_lora={rank=1, targets=['quary']}"],
        &["`quary`, expected some of `query`"],
    );
    assert_refused(&["train.stage=[{from_step=40, lock='UU'}]"], &["begins at step 40", "the run has 12 steps"]);
    assert_refused(
        &["train.stage=[{from_step=4, lock='UU'}, {from_epoch=1, lock='LU'}]"],
        &["begins at step 3, not after"],
    );
    assert_refused(
        &["train.stage=[{from_step=4, lock='UU'}, {from_step=4, lock='LU'}]"],
        &["stage 2 begins where or before"],
    );
    assert_refused(&["train.stage=[{lock='UU'}]"], &["stage 1 has none of `from_step` and `from_epoch`"]);
    assert_refused(&["train.stage=[{from_step=4, lock='Lu'}]"], &["write `U` to let it train"]);
    assert_refused(&["train.stage=[{from_step=4}]"], &["missing key"]);
    assert_refused(&["train.stage=[{from_step=4, lok='LU'}]"], &["unknown key", "lock"]);
    assert_refused(
        &[
            "model.image_projection.locked=true",
            "model.text_projection.locked=true",
            "train.stage=[{from_step=4, lock='LL'}]",
        ],
        &["nothing trains in stage"],
    );
}
