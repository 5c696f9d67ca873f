//! Heads over all tokens of an image in whole runs: resumed, cached, in parts, in half precision; what reads them and
//! what exports them.

use std::fs;

use serde_json::Value;

use crate::heads::{LAST, assert_same_end};
use crate::precision::computes_bf16;
use crate::support::{Session, assert_close, column, copy_run_at, floats, goldens, tensors};

const QUERY: &str = "model.image_head={tokens='query', token_width=8, token_heads=2}";
const BLOCKS: &str = "model.image_head={tokens='blocks', token_width=8, token_heads=2, kind='residual', dropout=0.3}";
const STILL_BLOCKS: &str =
    "model.image_head={tokens='blocks', token_width=16, token_heads=2, token_blocks=1, token_drop_path=0}";

/// Tokens of the golden tower, and their width.
const TOKENS: usize = 1 + 16;
const WIDTH: usize = 16;

/// A run of the two golden towers.
fn session() -> Session {
    let session = Session::new();
    session.write_config("projection_learning_rate = 5e-3\n[checkpoint]\nevery_steps = 1\nkeep = 100\n");
    let text = fs::read_to_string(session.path("lit.toml")).unwrap();
    let towers = format!("image_tower = {:?}\ntext_tower = {:?}", goldens("train/vit"), goldens("train/bert"));
    let lines: Vec<&str> =
        text.lines().map(|line| if line.starts_with("init = ") { towers.as_str() } else { line }).collect();
    session.write("lit.toml", lines.join("\n"));
    session
}

fn train(session: &Session, run: &str, sets: &[&str]) {
    let dir = format!("run.dir={run}");
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--set", &dir];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
}

fn losses(session: &Session, run: &str) -> Vec<f64> {
    column(&session.metrics(run, "train"), "loss")
}

#[test]
fn token_heads_resume_and_cache_with_the_same_bits() {
    let session = session();
    for (name, sets) in [
        ("query", &["model.lock=LL", QUERY, "train.ema_decay=0.5"][..]),
        ("blocks", &["model.lock=LU", BLOCKS, "model.text_dropout=0.1"]),
        ("still", &["model.lock=LL", STILL_BLOCKS]),
        ("terms", &["model.lock=LL", STILL_BLOCKS, "train.structure=1.0", "train.mixup_alpha=0.5"]),
        ("larger", &["model.lock=LL", QUERY, "model.image_size=48"]),
        ("grid", &["model.lock=LL", "model.image_head={tokens='query', token_width=8, token_grid=2}"]),
        (
            "partly",
            &[
                "model.lock=LL",
                "model.image_unlock_last=1",
                "model.image_head={tokens='query', token_width=8, token_grid=2}",
            ],
        ),
        ("unnormed", &["model.lock=LL", BLOCKS, "model.image_layer_norm=false"]),
    ] {
        train(&session, name, sets);
        let [resumed, uncached] = ["resumed", "uncached"].map(|end| format!("{name}-{end}"));
        copy_run_at(&session.path(name), &session.path(&resumed), 5);
        train(&session, &resumed, sets);
        assert_same_end(&session, &resumed, name);
        train(&session, &uncached, &[sets, &["cache.enabled=false"]].concat());
        assert_same_end(&session, &uncached, name);
        let losses = losses(&session, name);
        // The same batch. Dropout and blends differ in every epoch.
        assert!(!["query", "still"].contains(&name) || losses[9] < losses[0], "{name}: {losses:?}");
        let saved = tensors(&session.path(name).join(LAST).join("model.safetensors"));
        assert!(saved.keys().any(|path| path.starts_with("image_tokens.")), "{name}: {:?}", saved.keys());
        let norms = session.metrics(name, "train").last().unwrap()["grad_norms"].clone();
        assert!(norms["image_tokens"].as_f64() > Some(0.0), "{name}: {norms}");
    }
}

#[test]
fn token_heads_in_parts_and_half_precision() {
    let session = session();
    let has_bf16 = computes_bf16(&session);
    for (name, set, lock) in [("query", QUERY, "model.lock=LL"), ("blocks", STILL_BLOCKS, "model.lock=LU")] {
        let sets = [set, lock, "train.epochs=2"];
        train(&session, name, &sets);
        let expected = losses(&session, name);
        for (more, tolerance) in [
            (&["train.micro_batch_size=3"][..], 1e-3),
            (&["cache.dtype=f16"], 1e-2),
            (&["run.locked_precision=f16", "cache.dtype=f16"], 5e-2),
            (&["run.precision=bf16"], 5e-2),
        ] {
            if more[0] == "run.precision=bf16" && !has_bf16 {
                continue;
            }
            let run = format!("{name}-{}", more[0].replace(['.', '='], "-"));
            train(&session, &run, &[&sets[..], more].concat());
            assert_close(&run, &losses(&session, &run), &expected, tolerance);
        }
    }
}

#[test]
fn towers_below_token_heads_may_train() {
    let session = session();
    for (name, set) in [("query", QUERY), ("blocks", STILL_BLOCKS)] {
        train(&session, name, &[set, "model.lock=LU", "train.epochs=1"]);
        let trained = format!("{name}-trained");
        train(&session, &trained, &[set, "model.lock=UU", "train.epochs=1"]);
        let [locked, trained] = [name, &trained].map(|run| losses(&session, run));
        assert_close(name, &trained[..1], &locked[..1], 1e-5);
        assert_ne!(trained[2], locked[2], "{name}");
        // Locked first, then trained: the stage that trains the tower has its tokens, too.
        let staged = format!("{name}-staged");
        let stage = "train.stage=[{from_step=2, lock='UL'}]";
        train(&session, &staged, &[set, "model.lock=LL", "train.epochs=1", stage]);
        let saved = tensors(&session.path(&staged).join("checkpoints/step-000003/model.safetensors"));
        assert!(saved.contains_key("image_tower.patch.weight"), "{name}: {:?}", saved.keys());
    }
}

#[test]
fn commands_read_token_heads() {
    let session = session();
    session.write("texts.txt", "a red circle\na green square on grey\n");
    let (images, data) = (goldens("train/images"), goldens("train/train.csv"));
    let (images, data) = (images.to_str().unwrap(), data.to_str().unwrap());
    for (name, set) in [("query", QUERY), ("blocks", BLOCKS)] {
        train(&session, name, &[set, "model.lock=LL", "train.epochs=1"]);
        let checkpoint = format!("{name}/checkpoints/step-000003");
        let found = [name, checkpoint.as_str()].map(|model| {
            let out = "embeds.safetensors";
            let embed = ["embed", "--model", model, "--images", images, "--texts", "texts.txt", "--out", out];
            session.succeed(&embed);
            let eval = ["eval", "--model", model, "--task", "retrieval", "--data", data, "--json", "-"];
            let recall: Value = serde_json::from_str(&session.succeed(&eval)).unwrap();
            let search = ["search", "--model", model, "--index", out, "--top", "3", "--json", "-", "a bee"];
            session.succeed(&search);
            (floats(&session.path(out), "image_embeds"), recall["metrics"].clone())
        });
        assert!(found[0] == found[1] && found[0].0.iter().any(|value| value.abs() > 1e-3), "{name}");
        let json: Value = serde_json::from_str(&session.succeed(&["inspect", name, "--json", "-"])).unwrap();
        let (expected, width) = match name {
            "query" => ("query over tokens, width 8, 2 heads, then linear", WIDTH + 8),
            _ => ("2 blocks over tokens, width 8, 2 heads, then residual, bias and norm", 2 * 8),
        };
        assert_eq!(json["head"]["image_head"], expected);
        assert_eq!(json["head"]["image_projection"], serde_json::json!([width, 512]));
        assert!(session.succeed(&["inspect", name]).contains(expected));
        let saved = tensors(&session.path(&checkpoint).join("model.safetensors"));
        let heads: usize = saved.values().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
        let towers = ["image_tower", "text_tower"].map(|tower| json[tower]["parameters"].as_u64().unwrap() as usize);
        assert_eq!(json["parameters"].as_u64().unwrap() as usize, heads + towers.iter().sum::<usize>());
    }
}

#[test]
fn plan_counts_the_bytes_of_tokens() {
    let session = session();
    let bytes = |sets: &[&str]| {
        let mut arguments = vec!["plan", "--config", "lit.toml", "--json", "-", "--set", "model.lock=LL"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let plan: Value = serde_json::from_str(&session.succeed(&arguments)).unwrap();
        let images = plan["cache"].as_array().unwrap().iter().find(|entry| entry["what"] == "images").unwrap().clone();
        (images["rows"].as_u64().unwrap() as usize, images["bytes"].as_u64().unwrap() as usize)
    };
    let ((rows, pooled), (same, tokens)) = (bytes(&[]), bytes(&[QUERY]));
    assert_eq!((same, tokens - pooled), (rows, rows * (TOKENS - 1) * WIDTH * 4));
    let (_, half) = bytes(&[QUERY, "cache.dtype=f16"]);
    assert_eq!(tokens - half, rows * TOKENS * WIDTH * 2);
    let (_, coarse) = bytes(&["model.image_head={tokens='query', token_grid=3}"]);
    assert_eq!(tokens - coarse, rows * (16 - 9) * WIDTH * 4);
    let grid = "model.image_head={tokens='query', token_grid=5}";
    let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "model.lock=LL", "--set", grid]);
    assert!(text.contains("`model.image_head.token_grid` is 5, but images of 32x32 px have 4 x 4 patches"), "{text}");
    // What `dualenc cache` writes.
    session.succeed(&["cache", "--config", "lit.toml", "--set", "model.lock=LL", "--set", QUERY]);
    let values: Vec<u64> = fs::read_dir(session.path("run/cache"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "values"))
        .map(|entry| entry.metadata().unwrap().len())
        .collect();
    assert!(values.contains(&((rows * TOKENS * WIDTH * 4) as u64)), "{values:?}");
}

#[test]
fn check_says_what_tokens_take() {
    let session = session();
    let grid = "model.image_head={tokens='blocks', token_width=8, token_grid=3}";
    let text = session.succeed(&["check", "--config", "lit.toml", "--set", "model.lock=LL", "--set", grid]);
    let expected = "image head: 2 blocks over tokens, width 8, 1 head, grid 3x3, then linear; it takes 10 tokens of 16 \
                    values: 0.6 kB of the feature cache an image";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn runs_start_from_token_heads_of_other_runs() {
    let session = session();
    train(&session, "run", &[QUERY, "model.lock=LL", "train.epochs=1"]);
    let init = format!("model.init={}", session.path("run").display());
    let removed = ["model.image_tower=", "model.text_tower="];
    let next = |dir: &'static str, more: &[&'static str]| {
        let mut sets = vec!["train", "--config", "lit.toml", "--set", dir, "--set", "train.epochs=1", "--set", &init];
        removed.iter().chain(more).for_each(|set| sets.extend(["--set", set]));
        session.run(&sets)
    };
    let output = next("run.dir=next", &["model.lock=UU"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let saved = tensors(&session.path("next/checkpoints/step-000003/model.safetensors"));
    assert!(saved.contains_key("image_tokens.probe") && saved.contains_key("image_tower.patch.weight"));
    let json: Value = serde_json::from_str(&session.succeed(&["inspect", "next", "--json", "-"])).unwrap();
    assert_eq!(json["head"]["image_head"], "query over tokens, width 8, 2 heads, then linear");
    for (more, reason) in [
        (vec!["model.lock=LL", "model.image_size=33"], "images of 33x33 px cannot be divided"),
        (vec!["model.lock=LL", QUERY], "`model.init` has an image head already"),
        (vec!["model.lock=LL", "model.head_init=cca"], "the image head of this model takes all tokens"),
    ] {
        let output = next("run.dir=refused", &more);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(reason), "{text}");
    }
}

#[test]
fn only_heads_alone_are_exported() {
    let session = session();
    for (name, set) in [("query", QUERY), ("blocks", BLOCKS)] {
        train(&session, name, &[set, "model.lock=LL", "train.epochs=1"]);
        for format in ["transformers", "sentence-transformers"] {
            let text = session.fail(2, &["export", "--model", name, "--out", "refused", "--format", format]);
            assert!(text.contains("takes all tokens of an image") && text.contains("`--format heads`"), "{text}");
            assert!(!text.contains("pooled features"), "{text}");
        }
        session.succeed(&["export", "--model", name, "--out", &format!("{name}-heads"), "--format", "heads"]);
        let at = |file: &str| session.path(&format!("{name}-heads/{file}"));
        let config: Value = serde_json::from_slice(&fs::read(at("config.json")).unwrap()).unwrap();
        let tokens = &config["image"]["tokens"];
        assert_eq!((&tokens["kind"], &tokens["width"], &tokens["token_width"]), (&name.into(), &8.into(), &16.into()));
        let card = fs::read_to_string(at("README.md")).unwrap();
        assert!(card.contains("x = pool_tokens(x)") && card.contains("def pool_tokens(tokens):"), "{card}");
        assert!(card.contains("over tokens, width 8, 2 heads, then "), "{card}");
        let (saved, exported) = (
            tensors(&session.path(&format!("{name}/checkpoints/step-000003/model.safetensors"))),
            tensors(&at("model.safetensors")),
        );
        for (path, (_, shape, _)) in saved.iter().filter(|(path, _)| path.starts_with("image_tokens.")) {
            let mut shape = shape.clone();
            if !path.ends_with(".probe") {
                shape.reverse();
            }
            assert_eq!(exported[path].1, shape, "{path}");
        }
    }
}
