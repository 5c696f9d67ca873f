//! Optimizers, learning rate schedules, and parameter groups.

use crate::support::{Session, assert_close, column, copy_run_at, floats, stderr, tensors};

fn train(session: &Session, sets: &[&str]) -> String {
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let output = session.run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn every_optimizer_learns_and_resumes() {
    for (optimizer, rate) in [("adamw", "1e-3"), ("adafactor", "3e-3"), ("lion", "3e-4"), ("sgd", "0.05")] {
        let session = Session::new();
        session.write_config(&format!("optimizer = {optimizer:?}\n[checkpoint]\nevery_steps = 1\nkeep = 100\n"));
        let rate = format!("train.learning_rate={rate}");
        let sets = ["train.epochs=8", "model.text_dropout=0.1", &rate];
        train(&session, &sets);
        let losses = column(&session.metrics("run", "train"), "loss");
        let [first, last] = [&losses[..3], &losses[21..]].map(|losses| losses.iter().sum::<f64>());
        assert!(last < 0.95 * first, "{optimizer}: {losses:?}");
        copy_run_at(&session.path("run"), &session.path("resumed"), 11);
        train(&session, &[&sets[..], &["run.dir=resumed"]].concat());
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let [whole, resumed] =
                ["run", "resumed"].map(|run| tensors(&session.path(&format!("{run}/checkpoints/step-000024/{file}"))));
            assert!(whole == resumed, "{optimizer} {file}");
        }
        assert_eq!(column(&session.metrics("resumed", "train"), "loss"), losses, "{optimizer}");
    }
}

const GROUPS: &str = "[[train.group]]\nmatch = \"*_projection.weight\"\nlearning_rate = 5e-3\nweight_decay = 2.0\n\
                      [[train.group]]\nmatch = \"text_tower.encoder.blocks.1.*\"\nlearning_rate = 3e-4\n";

#[test]
fn first_update_follows_own_rate() {
    let session = Session::new();
    // A rate below the resolution of `f32` leaves the initial values in the checkpoint.
    let alone = "weight_decay = 0.0\neps = 1e-30\nclip_grad_norm = 0.0\n";
    let one = ["train.epochs=", "train.steps=1", "train.warmup_steps=0"];
    session.write_config(alone);
    train(&session, &[&one[..], &["train.learning_rate=1e-30", "run.dir=before"]].concat());
    session.write_config(&format!("{alone}text_layer_decay = 0.5\n{GROUPS}"));
    let log = train(&session, &one);
    for line in ["learning rate", "1.25e-4 to 1e-3", "weight decay"] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    let file = |run: &str| session.path(&format!("{run}/checkpoints/step-000001/model.safetensors"));
    // Two blocks: the embeddings are three layers below the pooler.
    for (name, rate, decay) in [
        ("text_tower.words", 1.25e-4, 0.0),
        ("text_tower.encoder.blocks.0.mlp.up.weight", 2.5e-4, 0.0),
        ("text_tower.encoder.blocks.1.mlp.up.weight", 1.5e-4, 0.0),
        ("text_tower.pooler.weight", 1e-3, 0.0),
        ("image_tower.encoder.blocks.0.mlp.up.bias", 1e-3, 0.0),
        ("image_tower.positions", 1e-3, 0.0),
        ("text_projection.weight", 5e-3, 2.0),
        ("image_projection.weight", 5e-3, 2.0),
        ("logit_scale", 1e-3, 0.0),
    ] {
        let [before, after] = ["before", "run"].map(|run| floats(&file(run), name));
        let moves = before.iter().zip(&after).map(|(before, after)| (after - before * (1.0 - rate * decay)).abs());
        let most = moves.fold(0f32, f32::max);
        assert!((most - rate).abs() < 1e-3 * rate + 3e-7, "{name}: moved by {most}, expected {rate}");
    }
}

#[test]
fn rejects_group_without_effect() {
    let session = Session::new();
    let assert_refused = |pattern: &str, more: &str, expected: &str| {
        session.write_config(&format!("{more}[[train.group]]\nmatch = {pattern:?}\nlearning_rate = 1.0\n"));
        let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "model.lock=LU"]);
        assert!(text.contains(expected), "{text}");
        assert!(session.fail(2, &["check", "--config", "lit.toml", "--set", "model.lock=LU"]).contains(expected));
    };
    assert_refused("txt_tower.words", "", "matches no parameter; trainable parameters include `text_tower.words`, ");
    assert_refused("image_tower.*", "", "matches only parameters that never train (");
    let before = "[[train.group]]\nmatch = \"*\"\nweight_decay = 0.0\n";
    assert_refused(
        "logit_scale",
        before,
        "`train.group` 2 (`match = \"logit_scale\"`) matches only parameters that earlier groups match too (1)",
    );
    assert_refused("", "", "`match` of group 1 is empty");
    let decay = "[[train.group]]\nmatch = \"*.bias\"\nweight_decay = 1.0\n";
    assert_refused(
        "logit_scale",
        decay,
        "`train.group` 1 (`match = \"*.bias\"`) has no effect: it sets a weight decay",
    );
}

#[test]
fn extends_constant_run_with_cooldown() {
    let session = Session::new();
    session.write_config("schedule = \"constant\"\n");
    train(&session, &["train.epochs=2"]);
    let longer = ["--set", "train.epochs=4", "--set", "train.cooldown_steps=8"];
    let text = session.fail(2, &[&["train", "--config", "lit.toml", "--resume"][..], &longer].concat());
    assert!(text.contains("has done 6 steps, and with this length and cooldown the learning rate of step 6"), "{text}");
    train(&session, &["train.epochs=4", "train.cooldown_steps=4"]);
    let expected = [1. / 3., 2. / 3., 1., 1., 1., 1., 1., 1., 1., 0.75, 0.5, 0.25].map(|share| share * 1e-3);
    assert_close("learning_rate", &column(&session.metrics("run", "train"), "learning_rate"), &expected, 1e-12);
}
