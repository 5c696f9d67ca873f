//! What a user sees: `dualenc check`, both log formats, usage errors, and captions drawn per epoch.

use std::fs;

use serde_json::Value;

use crate::support::{Session, floats, goldens, stderr};

fn session() -> Session {
    let session = Session::new();
    session.write_config("[eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\n");
    let text = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("pairs.csv", text.replace("images/", &format!("{}/images/", goldens("train").display())));
    session
}

#[test]
fn check_counts_and_finds_missing_files() {
    let session = session();
    let text = session.succeed(&["check", "--config", "lit.toml"]);
    assert!(text.contains("24 images, 24 captions, 24 pairs per epoch"), "{text}");
    assert!(text.contains("evaluation `pairs` is ready") && text.ends_with("no errors, 2 warnings\n"), "{text}");
    assert!(!session.path("run").exists(), "`dualenc check` created the run directory");

    session.write("data.csv", "image,caption\nnowhere.png,a cat\nnorthere.png,a dog\n");
    let text = session.fail(2, &["check", "--config", "lit.toml", "--set", "data.train.csv.path=data.csv"]);
    assert!(text.contains("2 of 2 image files are missing") && text.contains("nowhere.png"), "{text}");

    // Without shuffling, the last partial batch is trained on.
    session.succeed(&["check", "--config", "lit.toml", "--set", "train.batch_size=100"]);
    let set = ["--set", "train.batch_size=100", "--set", "data.shuffle=true"];
    let text = session.fail(2, &[&["check", "--config", "lit.toml"][..], &set].concat());
    assert!(text.contains("set `train.batch_size` to at most 24"), "{text}");

    let text = session.fail(2, &["check", "--config", "lit.toml", "--set", "train.warmup_steps=300"]);
    assert!(
        text.contains(
            "a warm-up of 300 steps (`train.warmup_steps`) does not fit in the 12 steps of the run; shorten it, or"
        ),
        "{text}"
    );
}

#[test]
fn check_reports_every_unusable_input() {
    let session = session();
    session.write("data.csv", "number,mark\n1,a\n");
    session.write("eval.csv", "image,caption\nnowhere.png,a cat\n");
    session.copy("train/vit", "towers/vit");
    session.write("towers/vit/config.json", "{\"model_type\": \"whisper\"}");
    let sets = [
        "data.train.csv.path=data.csv",
        "model.init=",
        "model.image_tower=towers/vit",
        "model.text_tower=./towers/none",
        "model.embed_dim=6",
        "eval.pairs.data=eval.csv",
        "eval.gone.task=retrieval",
        "eval.gone.data=gone.csv",
    ];
    let mut arguments = vec!["check", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let text = session.fail(2, &arguments);
    for expected in [
        "`data.train.csv`: ",
        "`model.image_tower`: ",
        "`model_type` is `whisper`",
        "`model.text_tower`: ",
        "`eval.pairs`: 1 of 1 image files are missing:",
        "nowhere.png",
        "`eval.gone`: ",
        "gone.csv",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn eval_refuses_options_of_other_tasks() {
    let session = session();
    for (arguments, expected) in [
        (&["--task", "zero-shot", "--images", "x", "--pool-size", "4"][..], "`--pool-size` is an option of"),
        (&["--task", "retrieval", "--data", "pairs.csv", "--templates", "x"], "with `--task` `zero-shot`"),
        (&["--task", "loss", "--data", "pairs.csv", "--neighbors", "3"], "`--neighbors` is an option of"),
        (&["--task", "loss", "--data", "pairs.csv", "--set", "run.seed=1"], "`--set` changes a config"),
    ] {
        let text = session.fail(2, &[&["eval", "--model", "nowhere"][..], arguments].concat());
        assert!(text.contains(expected) && text.contains("remove it"), "{text}");
    }
    let text = session.fail(2, &["eval", "--config", "lit.toml", "--images", "x"]);
    assert!(text.contains("`--images` is an option of `--model DIR`, but `--config` is given; remove it"), "{text}");
}

#[test]
fn init_cycle_is_named() {
    let session = session();
    let train = |run: &str, init: &str| {
        let (run, init) = (format!("run.dir={run}"), format!("model.init={init}"));
        let sets = ["--set", &run, "--set", &init, "--set", "train.epochs=1", "--set", "eval={}"];
        session.succeed(&[&["train", "--config", "lit.toml"][..], &sets].concat());
    };
    train("first", goldens("train/init").to_str().unwrap());
    train("second", "first");
    session.succeed(&["check", "--config", "lit.toml", "--set", "model.init=second"]);
    // The first run, done again from the second.
    fs::rename(session.path("first"), session.path("old")).unwrap();
    let config = fs::read_to_string(session.path("second/config.toml")).unwrap();
    let config = config.replace("/first", "/old");
    for (run, from) in [("second", "old"), ("old", "second")] {
        let checkpoint = session.path(&format!("{run}/checkpoints/step-000003"));
        let text = fs::read_to_string(checkpoint.join("config.toml")).unwrap();
        assert!(text.contains("init = "), "{text}");
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("init = ") {
                true => format!("init = {:?}", session.path(from)),
                false => line.to_owned(),
            })
            .collect();
        let new = lines.join("\n") + "\n";
        session.write(&format!("{run}/checkpoints/step-000003/config.toml"), &new);
        forge_manifest(&checkpoint, "config.toml");
    }
    drop(config);
    for arguments in [
        &["export", "--model", "old", "--out", "hf"][..],
        &["train", "--config", "lit.toml", "--set", "model.init=old"],
    ] {
        let text = session.fail(2, arguments);
        assert!(text.contains("`model.init` leads back to itself") && text.contains("second/checkpoints"), "{text}");
    }
}

#[test]
fn run_from_run_has_its_own_token_limit() {
    let session = session();
    session
        .write("texts.txt", "a small red circle and a large green square\na small red circle and a large green star\n");
    let train = |run: &str, sets: &[&str]| {
        let run = format!("run.dir={run}");
        let sets = [&["train.epochs=1", "eval={}", &run], sets].concat();
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        session.run(&[&["train", "--config", "lit.toml"][..], &sets].concat())
    };
    let embeds_differ = |run: &str| {
        session.succeed(&["embed", "--model", run, "--texts", "texts.txt", "--out", "e.safetensors"]);
        let embeds = floats(&session.path("e.safetensors"), "text_embeds");
        let (first, second) = embeds.split_at(embeds.len() / 2);
        first != second
    };
    assert!(train("short", &["data.max_tokens=8", "model.text_prompt=a photo: "]).status.success());
    assert!(!embeds_differ("short"), "texts of a run are cut at its limit");
    assert!(train("long", &["model.init=short"]).status.success());
    assert!(embeds_differ("long"), "the limit of the run before was kept");
    assert!(train("short-again", &["model.init=long", "data.max_tokens=8"]).status.success());
    assert!(!embeds_differ("short-again"), "the limit of the run before was kept");
    // The prompt goes on from run to run.
    let refused = train("too-short", &["model.init=short-again", "data.max_tokens=4"]);
    let text = stderr(&refused);
    assert!(text.contains("the prompt `a photo: ` leaves no room for text within 4 tokens"), "{text}");
}

/// Makes the manifest of a checkpoint agree with its changed file, as a user who edits both would.
fn forge_manifest(checkpoint: &std::path::Path, name: &str) {
    let path = checkpoint.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let bytes = fs::read(checkpoint.join(name)).unwrap();
    manifest["files"][name]["bytes"] = bytes.len().into();
    manifest["files"][name]["blake3"] = blake3::hash(&bytes).to_hex().to_string().into();
    // Format 1 has no checksum of the manifest.
    manifest["format"] = 1.into();
    manifest.as_object_mut().unwrap().remove("checksum");
    fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn json_log_is_json_lines() {
    let session = session();
    let output = session.run(&["train", "--config", "lit.toml", "--log", "json", "--set", "run.log_every_steps=1"]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((of_kind("train"), of_kind("parameters"), of_kind("eval")), (12, 5, 5));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("text_retrieval_recall@1") && stdout.contains("trained 12 steps"), "{stdout}");
}

#[test]
fn plain_log_has_table_and_steps() {
    let session = session();
    let output =
        session.run(&["train", "--config", "lit.toml", "--set", "model.lock=LU", "--set", "run.log_every_steps=4"]);
    let text = stderr(&output);
    let parts = [
        "image tower                 -      5.6 k",
        "logit_scale                 1          -",
        "12 steps, 3 per epoch",
    ];
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let steps: Vec<&str> = text.lines().filter(|line| line.starts_with("step ") && line.contains("pairs/s")).collect();
    assert_eq!(steps.len(), 3, "{text}");
    assert!(
        steps.iter().all(|line| line.contains("loss ") && line.contains("exp(logit_scale) ") && line.contains(" left"))
    );
}

#[test]
fn wrong_usage_exits_with_2() {
    let session = session();
    for arguments in [&["train"][..], &["eval"], &["embed", "--model", "x"], &["nonsense"]] {
        let text = session.fail(2, arguments);
        assert!(text.contains("Usage: dualenc") || text.contains("--help"), "{text}");
    }
    let text =
        session.fail(2, &["embed", "--model", goldens("dual/vit_bert").to_str().unwrap(), "--out", "x.safetensors"]);
    assert!(text.contains("there is nothing to embed; give `--images`, `--texts` or both"), "{text}");
    let text = session.fail(2, &["eval", "--config", "lit.toml", "--task", "loss"]);
    assert!(text.contains("`--task` is an option of `--model DIR`, but `--config` is given"), "{text}");
    let task = ["--task", "retrieval", "--data", "pairs.csv"];
    for task in [&task[..], &[]] {
        let text = session.fail(2, &[&["eval", "--model", "nowhere"], task].concat());
        assert!(text.contains("`nowhere` does not exist"), "{text}");
    }
}

#[test]
fn draws_one_caption_per_epoch() {
    let session = Session::new();
    session.write_config("");
    let dir = goldens("train");
    let line = |image: usize| {
        format!(
            "{{\"image\": \"{}/images/{image:02}.png\", \
             \"caption\": [\"a red square\", \"a blue circle\", \"green\"]}}\n",
            dir.display()
        )
    };
    session.write("pairs.jsonl", (0..8).map(line).collect::<String>());
    let train = |mode: &str| {
        let (run, mode) = (format!("run.dir={mode}"), format!("data.captions={mode}"));
        let sets = [
            "data.train.csv=",
            "data.train.jsonl.path=pairs.jsonl",
            &run,
            &mode,
            "train.duplicates=mask",
            "data.shuffle=true",
        ];
        let mut arguments = vec!["train", "--config", "lit.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        session.succeed(&arguments);
    };
    train("one");
    train("all");
    assert_eq!((session.metrics("one", "train").len(), session.metrics("all", "train").len()), (4, 12));
    assert!(session.metrics("one", "train").iter().all(|line| line["num_duplicates"] == 8));
}
