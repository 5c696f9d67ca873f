//! A decoder as the text tower, with the prompt of its sentence-transformers directory, through every command.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Session, floats, goldens, tensors};

const TOWER: &str = "text_decoders/embedder";

/// Writes `lit.toml`: a small run with a decoder, and `model` and `more` appended to their sections.
fn write_config(session: &Session, model: &str, more: &str) {
    let config = format!(
        "[run]\ndir = \"run\"\nseed = 1\nthreads = 2\n\
         [model]\nimage_tower = {image:?}\ntext_tower = {text:?}\nembed_dim = 8\n{model}\n\
         [data.train.csv]\npath = {data:?}\n\
         [train]\nepochs = 2\nbatch_size = 8\nlearning_rate = 1e-3\n{more}",
        image = goldens("train/vit"),
        text = goldens(TOWER),
        data = goldens("train/train.csv"),
    );
    session.write("lit.toml", config);
}

fn train(session: &Session, overrides: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["train", "--config", "lit.toml"];
    for override_ in overrides {
        arguments.extend(["--set", override_]);
    }
    session.succeed(&arguments);
    let run = overrides.iter().find_map(|set| set.strip_prefix("run.dir=")).unwrap_or("run");
    session.reproducible(run, "train")
}

/// The embeddings of the golden texts, a row each.
fn embed(session: &Session, model: &str, texts: &[String]) -> Vec<Vec<f32>> {
    session.write("texts.txt", texts.join("\n") + "\n");
    session.succeed(&["embed", "--model", model, "--texts", "texts.txt", "--out", "out.safetensors"]);
    let values = floats(&session.path("out.safetensors"), "text_embeds");
    values.chunks(values.len() / texts.len()).map(<[f32]>::to_vec).collect()
}

fn texts() -> Vec<String> {
    serde_json::from_slice(&fs::read(goldens(TOWER).join("texts.json")).unwrap()).unwrap()
}

fn largest_difference(left: &[Vec<f32>], right: &[Vec<f32>]) -> f32 {
    assert_eq!((left.len(), left[0].len()), (right.len(), right[0].len()));
    left.iter().flatten().zip(right.iter().flatten()).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn prompted_decoder_matches_sentence_transformers() {
    let session = Session::new();
    write_config(&session, "lock = \"LL\"\ntext_prompt_name = \"query\"", "");
    train(&session, &[]);
    let checkpoints = fs::read_dir(session.path("run/checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let checkpoints: Vec<_> = checkpoints.collect();
    let weights = checkpoints.iter().max().unwrap().join("model.safetensors");
    let (_, shape, _) = tensors(&weights).remove("text_projection.weight").unwrap();
    let projection = floats(&weights, "text_projection.weight");
    assert_eq!(shape, [12, 8]);
    let pooled = floats(&goldens(TOWER).join("expected.safetensors"), "pooled");
    let expected: Vec<Vec<f32>> = pooled
        .chunks(12)
        .map(|row| {
            let product = |column: usize| (0..12).map(|n| row[n] * projection[n * 8 + column]).sum::<f32>();
            let values: Vec<f32> = (0..8).map(product).collect();
            let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.into_iter().map(|value| value / norm).collect()
        })
        .collect();
    let found = embed(&session, "run", &texts());
    let difference = largest_difference(&found, &expected);
    assert!(difference < 1e-4, "{difference}");
    // Without the prompt, or with another, the texts are elsewhere.
    let prompted: Vec<String> = texts().iter().map(|text| format!("a photo of {text}")).collect();
    assert!(largest_difference(&embed(&session, "run", &prompted), &expected) > 1e-2);

    let note = session.fail(2, &["export", "--model", "run", "--out", "vtde"]);
    assert!(note.contains("cannot run a `qwen3` text tower, which has no pooler"), "{note}");
    session.succeed(&["export", "--model", "run", "--out", "st", "--format", "sentence-transformers"]);
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(session.path(name)).unwrap()).unwrap() };
    let config = read("st/config_sentence_transformers.json");
    let prompt = "Instruct: find the picture\nQuery: ";
    assert_eq!((&config["prompts"]["query"], &config["prompts"]["document"]), (&prompt.into(), &prompt.into()));
    assert_eq!(config["default_prompt_name"], "query");
    assert_eq!(read("st/text_1_Pooling/config.json")["pooling_mode"], "lasttoken");
}

#[test]
fn decoders_train_cached_or_not() {
    let session = Session::new();
    write_config(&session, "text_prompt = \"query: \"", "");
    let losses = |name: &str, overrides: &[&str]| {
        let dir = format!("run.dir={name}");
        train(&session, &[&[dir.as_str()], overrides].concat())
    };
    let cached = losses("cached", &["model.lock=LL"]);
    assert_eq!(cached, losses("computed", &["model.lock=LL", "cache.enabled=false"]));
    assert_ne!(cached, losses("unprompted", &["model.lock=LL", "model.text_prompt="]));
    let half = losses("half", &["model.lock=LL", "model.text_pool=mean", "run.locked_precision=f16"]);
    let unlocked = losses("unlocked", &["model.lock=LU"]);
    let targets = "model.text_lora.targets=[\"query\", \"gate\"]";
    let adapted = losses("adapted", &["model.lock=LL", "model.text_lora.rank=2", targets]);
    for (name, lines) in [("half", half), ("unlocked", unlocked), ("adapted", adapted)] {
        let loss = |line: &Value| line["loss"].as_f64().unwrap();
        assert_eq!(lines.len(), cached.len(), "{name}");
        assert!(lines.iter().all(|line| loss(line).is_finite()), "{name}");
        assert_ne!(loss(&lines[lines.len() - 1]), loss(&cached[cached.len() - 1]), "{name}");
    }
}

#[test]
fn resumed_decoder_computes_the_same() {
    let session = Session::new();
    write_config(&session, "lock = \"LU\"\ntext_prompt_name = \"query\"", "[checkpoint]\nevery_steps = 7\n");
    let whole = train(&session, &["run.dir=whole", "train.epochs=40"]);
    let arguments = ["train", "--config", "lit.toml", "--resume", "--set", "train.epochs=40"];
    assert!(session.kill_after_lines(&arguments, "run", 20, Duration::ZERO));
    session.succeed(&arguments);
    assert_eq!(session.reproducible("run", "train"), whole);
}

#[test]
fn commands_know_decoders_and_prompts() {
    let session = Session::new();
    write_config(&session, "lock = \"LL\"\ntext_prompt_name = \"query\"", "");
    let tower = goldens(TOWER);
    let tower = tower.to_str().unwrap();
    let inspected = session.succeed(&["inspect", tower]);
    assert!(inspected.contains("the last token"), "{inspected}");
    session.succeed(&["plan", "--config", "lit.toml"]);
    session.succeed(&["check", "--config", "lit.toml"]);
    train(&session, &[]);
    let inspected = session.succeed(&["inspect", "run"]);
    let inspected = inspected.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(inspected.contains("prompt \"Instruct: find the picture\\nQuery: \""), "{inspected}");

    // A default prompt is named, and not applied.
    let copy = session.copy(TOWER, "tower");
    let prompts = r#"{"prompts": {"query": "query: "}, "default_prompt_name": "query"}"#;
    fs::write(copy.join("config_sentence_transformers.json"), prompts).unwrap();
    let inspected = session.succeed(&["inspect", "tower"]);
    assert!(inspected.contains("`model.text_prompt_name = \"query\"`"), "{inspected}");

    for (set, expected) in [
        ("model.text_prompt_name=passage", "`document`, `query`; name one of these"),
        ("model.text_prompt=\"a: \"", "`model.text_prompt` and `model.text_prompt_name` are both set"),
        ("data.max_tokens=16", "leaves no room for text within 16 tokens"),
    ] {
        let message = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.dir=other", "--set", set]);
        assert!(message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn exported_prompt_comes_back() {
    let session = Session::new();
    session.write_config("");
    let prompt = "model.text_prompt=\"a small \"";
    session.succeed(&["train", "--config", "lit.toml", "--set", prompt]);
    let texts = texts();
    let expected = embed(&session, "run", &texts);
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let config: Value = serde_json::from_slice(&fs::read(session.path("hf/config.json")).unwrap()).unwrap();
    assert_eq!(config["text_prompt"], "a small ");
    assert_eq!(embed(&session, "hf", &texts), expected);
    let card = fs::read_to_string(session.path("hf/README.md")).unwrap();
    assert!(card.contains("\"a small a photo of a cat\""), "{card}");
    // What was put before each text by hand is the same.
    let by_hand: Vec<String> = texts.iter().map(|text| format!("a small {text}")).collect();
    let config = fs::read_to_string(session.path("hf/config.json")).unwrap();
    session.write("hf/config.json", config.replace("text_prompt", "unknown"));
    assert_eq!(embed(&session, "hf", &by_hand), expected);
}
