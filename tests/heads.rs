//! Projection heads in whole runs: resumed, cached and locked runs, what starts from them, and what exports.

use std::fs;

use serde_json::Value;

use crate::support::{Session, copy_run_at, floats, goldens, tensors};

/// A run of two towers with these heads, with dropout wherever a head has hidden values.
fn session(heads: &str) -> Session {
    let session = Session::new();
    session
        .write_config(&format!("projection_learning_rate = 5e-3\n[checkpoint]\nevery_steps = 1\nkeep = 100\n{heads}"));
    let text = fs::read_to_string(session.path("lit.toml")).unwrap();
    let towers = format!("image_tower = {:?}\ntext_tower = {:?}", goldens("train/vit"), goldens("train/bert"));
    let lines: Vec<&str> =
        text.lines().map(|line| if line.starts_with("init = ") { towers.as_str() } else { line }).collect();
    session.write("lit.toml", lines.join("\n"));
    session
}

fn train(session: &Session, sets: &[&str]) {
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
}

const GLU_AND_RESIDUAL: &str = "[model.image_head]\nkind = \"glu\"\nexpansion = 2\ndropout = 0.3\n\
                                [model.text_head]\nkind = \"residual\"\ndropout = 0.3\n";
const RESIDUAL_AND_BLOCKS: &str = "[model.image_head]\nkind = \"residual\"\n\
                                   [model.text_head]\nkind = \"blocks\"\nblocks = 1\ndropout = 0.3\n";

pub const LAST: &str = "checkpoints/step-000012";

/// The names of the saved parameters of a run.
fn saved(session: &Session, run: &str) -> Vec<String> {
    tensors(&session.path(run).join(LAST).join("model.safetensors")).into_keys().collect()
}

/// Asserts that two finished runs have the same weights, optimiser state and steps.
#[track_caller]
pub fn assert_same_end(session: &Session, found: &str, expected: &str) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let [found, expected] = [found, expected].map(|run| tensors(&session.path(run).join(LAST).join(file)));
        assert!(found == expected, "{file}");
    }
    assert_eq!(session.reproducible(found, "train"), session.reproducible(expected, "train"));
}

#[test]
fn heads_resume_and_cache_with_the_same_bits() {
    for (heads, lock, more) in [
        (GLU_AND_RESIDUAL, "model.lock=LL", "train.ema_decay=0.5"),
        (GLU_AND_RESIDUAL, "model.lock=LU", "model.text_dropout=0.1"),
        (RESIDUAL_AND_BLOCKS, "model.lock=LU", "model.image_projection.whitening=0.6"),
    ] {
        let session = session(heads);
        train(&session, &["run.dir=whole", lock, more]);
        copy_run_at(&session.path("whole"), &session.path("resumed"), 5);
        train(&session, &["run.dir=resumed", lock, more]);
        assert_same_end(&session, "resumed", "whole");
        if !more.contains("whitening") {
            train(&session, &["run.dir=uncached", lock, more, "cache.enabled=false"]);
            assert_same_end(&session, "uncached", "whole");
        }
        train(&session, &["run.dir=undropped", lock, more, "model.text_head.dropout=0"]);
        let losses =
            |run: &str| session.metrics(run, "train").iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
        assert_ne!(losses("undropped"), losses("whole"), "{lock}: dropout of the text head has no effect");
        let parts = session.metrics("whole", "train").last().unwrap()["grad_norms"].clone();
        assert!(
            parts["image_projection"].as_f64() > Some(0.0) && parts["text_projection"].as_f64() > Some(0.0),
            "{parts}"
        );
    }
}

#[test]
fn locked_head_stays_and_is_rebuilt() {
    let session = session(GLU_AND_RESIDUAL);
    let sets = ["model.lock=LU", "model.image_projection.locked=true", "model.image_head.dropout=0"];
    train(&session, &sets);
    let names = saved(&session, "run");
    assert!(names.iter().all(|name| !name.starts_with("image_projection.")), "{names:?}");
    for name in ["norm.weight", "weight", "bias", "up.weight", "up.bias", "down.weight"] {
        assert!(names.contains(&format!("text_projection.{name}")), "{name}: {names:?}");
    }
    // The same embeddings from the run and from its checkpoint, which hold nothing of the locked head.
    session.write("texts.txt", "a red circle\na green square on grey\n");
    let images = goldens("train/images");
    for (model, out) in [("run", "run.safetensors"), ("run/checkpoints/step-000012", "checkpoint.safetensors")] {
        let images = images.to_str().unwrap();
        session.succeed(&["embed", "--model", model, "--images", images, "--texts", "texts.txt", "--out", out]);
    }
    for name in ["image_embeds", "text_embeds"] {
        let [run, checkpoint] =
            ["run", "checkpoint"].map(|file| floats(&session.path(&format!("{file}.safetensors")), name));
        assert!(run == checkpoint && run.iter().any(|value| value.abs() > 1e-3), "{name}");
    }
}

#[test]
fn runs_start_from_heads_of_other_runs() {
    let session = session(GLU_AND_RESIDUAL);
    train(&session, &["model.lock=LL"]);
    let init = format!("model.init={}", session.path("run").display());
    let next = |dir: &'static str, more: &[&'static str]| {
        let mut sets = vec!["train", "--config", "lit.toml", "--set", dir, "--set", "model.lock=LL", "--set", &init];
        let removed = ["model.image_tower=", "model.text_tower=", "model.image_head=", "model.text_head="];
        removed.iter().chain(more).for_each(|set| sets.extend(["--set", set]));
        session.run(&sets)
    };
    // Without a kind, the heads are those of the model.
    assert!(next("run.dir=next", &[]).status.success());
    assert_eq!(saved(&session, "next"), saved(&session, "run"));
    let before = tensors(&session.path("run").join(LAST).join("model.safetensors"));
    let first = tensors(&session.path("next/checkpoints/step-000001/model.safetensors"));
    let near = |name: &str| {
        let [before, first] = [&before, &first].map(|all| crate::support::as_floats(&all[name].2));
        before.iter().zip(&first).all(|(before, first)| (before - first).abs() < 6e-3)
    };
    assert!(near("image_projection.gate.weight"), "the head did not start as it was");
    session.succeed(&[
        "embed",
        "--model",
        "next",
        "--images",
        goldens("train/images").to_str().unwrap(),
        "--out",
        "e.safetensors",
    ]);
    for (more, reason) in [
        (vec!["model.image_head.kind=linear"], "the image head of `model.init` is `glu, expansion 2, bias and norm`"),
        (vec!["model.image_head.kind=glu"], "`model.image_head` is `glu, expansion 8, bias and norm`"),
        (vec!["model.text_head.dropout=0.1"], "`model.text_head.dropout` is set, but `model.text_head.kind` is not"),
    ] {
        let text = String::from_utf8(next("run.dir=refused", &more).stderr).unwrap();
        assert!(text.contains(reason), "{text}");
    }
    // The golden model has linear heads: a residual one starts from them, and computes the same.
    let golden = format!("model.init={}", goldens("train/init").display());
    let loss = |dir: &str, more: &[&str]| {
        let run = format!("run.dir={dir}");
        let removed = ["model.image_tower=", "model.text_tower=", "model.image_head=", "model.text_head="];
        let sets = [&["model.lock=LL", run.as_str(), &golden, "train.epochs=1"][..], &removed, more].concat();
        train(&session, &sets);
        session.metrics(dir, "train")[0]["loss"].clone()
    };
    let plain = loss("plain", &[]);
    let residual = [
        "model.image_head.kind=residual",
        "model.image_head.norm=false",
        "model.text_head.kind=linear",
        "model.text_head.bias=true",
    ];
    assert_eq!(loss("residual", &residual), plain);
    let last = tensors(&session.path("residual/checkpoints/step-000003/model.safetensors"));
    assert!(last.contains_key("image_projection.down.weight") && last.contains_key("text_projection.bias"));
}

#[test]
fn export_refuses_heads_that_others_lack() {
    let session = session("");
    let export = |run: &str, format: &str| {
        let out = format!("{run}-{format}");
        session.run(&["export", "--model", run, "--out", &out, "--format", format])
    };
    let message = |run: &str, format: &str| {
        let output = export(run, format);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let short = ["model.lock=LL", "train.epochs=1"];
    train(&session, &[&short[..], &["run.dir=glu", "model.image_head.kind=glu"]].concat());
    for format in ["transformers", "sentence-transformers"] {
        let text = message("glu", format);
        assert!(text.contains("the image head of this model is `glu, expansion 8, bias and norm`"), "{text}");
        assert!(text.contains("`dualenc embed`") && text.contains("`--format heads`"), "{text}");
        assert!(!text.contains("--format sentence-transformers"), "{text}");
    }
    train(&session, &[&short[..], &["run.dir=biased", "model.text_head.bias=true"]].concat());
    assert!(export("biased", "heads").status.success());
    let config = fs::read(session.path("biased-heads/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["image"]["bias"], &config["text"]["bias"]), (&false.into(), &true.into()));
    assert!(tensors(&session.path("biased-heads/model.safetensors")).contains_key("text_projection.bias"));
    let card = fs::read_to_string(session.path("biased-heads/README.md")).unwrap();
    assert!(card.contains("to [rows, 512]: linear, bias") && card.contains("affine(x, \"text_projection\")"), "{card}");
    assert!(!card.contains("Note that"), "both towers are locked: {card}");
    train(&session, &["model.lock=LU", "train.epochs=1", "run.dir=trained"]);
    let output = export("trained", "heads");
    let (text, card) = (String::from_utf8(output.stderr).unwrap(), session.path("trained-heads/README.md"));
    let card = fs::read_to_string(card).unwrap();
    for text in [text, card] {
        assert!(text.contains("the text tower was trained and is not part of `--format heads`"), "{text}");
        assert!(!text.contains("the image tower was trained"), "{text}");
    }
    let text = message("biased", "transformers");
    assert!(
        text.contains("the text head of this model is `linear, bias`; export with `--format sentence-tr"),
        "{text}"
    );
    assert!(export("biased", "sentence-transformers").status.success());
    let dense = session.path("biased-sentence-transformers/text_1_Dense");
    let config: Value = serde_json::from_slice(&fs::read(dense.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["bias"], true);
    let weights = session.path("biased/checkpoints/step-000003/model.safetensors");
    assert_eq!(floats(&dense.join("model.safetensors"), "linear.bias"), floats(&weights, "text_projection.bias"));
    let other = session.path("biased-sentence-transformers/image_1_Dense/model.safetensors");
    assert_eq!(tensors(&other).into_keys().collect::<Vec<_>>(), ["linear.weight"]);
    // The identity is a matrix of ones and zeros.
    train(&session, &[&short[..], &["run.dir=identity", "model.text_head.kind=identity"]].concat());
    assert!(export("identity", "transformers").status.success());
    let matrix = floats(&session.path("identity-transformers/model.safetensors"), "text_projection.weight");
    let width = (matrix.len() as f64).sqrt() as usize;
    assert!(matrix.iter().enumerate().all(|(at, value)| *value == f32::from(u8::from(at % (width + 1) == 0))));
    assert!(!saved_at_3(&session).iter().any(|name| name.starts_with("text_projection")));
    session.write("texts.txt", "a red circle\na green square on grey\n");
    for (model, out) in [("identity", "run.safetensors"), ("identity-transformers", "hf.safetensors")] {
        session.succeed(&["embed", "--model", model, "--texts", "texts.txt", "--out", out]);
    }
    let [run, exported] =
        ["run", "hf"].map(|file| floats(&session.path(&format!("{file}.safetensors")), "text_embeds"));
    assert_eq!(run, exported);
}

fn saved_at_3(session: &Session) -> Vec<String> {
    tensors(&session.path("identity/checkpoints/step-000003/model.safetensors")).into_keys().collect()
}

#[test]
fn inspect_names_heads() {
    let session = session(GLU_AND_RESIDUAL);
    train(&session, &["model.lock=LL", "train.epochs=1", "model.embed_dim=10"]);
    let text = session.succeed(&["inspect", "run"]);
    let line = text.lines().find(|line| line.starts_with("projections")).unwrap();
    assert!(line.contains("to 10 (glu, expansion 2, bias and norm), text "), "{line}");
    assert!(line.contains("to 10 (residual, bias and norm)"), "{line}");
    let json: Value = serde_json::from_str(&session.succeed(&["inspect", "run", "--json", "-"])).unwrap();
    assert_eq!(json["head"]["image_head"], "glu, expansion 2, bias and norm");
    // What is saved, and the locked towers.
    let saved = tensors(&session.path("run/checkpoints/step-000003/model.safetensors"));
    let heads: usize = saved.values().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    let towers = ["image_tower", "text_tower"].map(|tower| json[tower]["parameters"].as_u64().unwrap() as usize);
    assert_eq!(json["parameters"].as_u64().unwrap() as usize, heads + towers.iter().sum::<usize>());
}
