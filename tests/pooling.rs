//! Layers and poolings of a whole run: what trains, what is cached, what a resumed run goes on with, and what a run
//! records of `text_pool = "auto"`.

use std::fs;
use std::path::Path;

use crate::support::{Session, column, goldens, stderr, tensors};

/// A ViT of three blocks and a BERT, with the golden training data.
pub fn session() -> Session {
    let session = Session::new();
    session.copy("towers/vit", "vit");
    session.write("vit/preprocessor_config.json", fs::read(goldens("train/vit/preprocessor_config.json")).unwrap());
    session.copy("train/bert", "bert");
    let data = goldens("train/train.csv");
    let config = format!(
        "[run]\nseed = 1\nthreads = 2\n[model]\nimage_tower = \"./vit\"\ntext_tower = \"./bert\"\nembed_dim = 6\n\
         [data]\n[data.train.csv]\npath = {data:?}\n\
         [train]\nsteps = 6\nbatch_size = 8\nlearning_rate = 1e-2\nschedule = \"constant\"\nduplicates = \"ignore\"\n\
         [checkpoint]\nevery_steps = 3\n"
    );
    session.write("lit.toml", config);
    session
}

pub fn train(session: &Session, run: &str, sets: &[&str]) -> String {
    let dir = format!("run.dir={run}");
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--set", &dir];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let output = session.run(&arguments);
    assert!(output.status.success(), "{sets:?}: {}", stderr(&output));
    stderr(&output)
}

pub fn weights(session: &Session, run: &str, step: u64) -> Vec<u8> {
    fs::read(session.path(run).join(format!("checkpoints/step-{step:06}/model.safetensors"))).unwrap()
}

/// The steps of a cached, an uncached and a resumed run, and of one in micro-batches, are the same.
#[test]
fn layers_and_poolings_train_alike() {
    let session = session();
    let layer = "model.image_layer=2";
    for (name, sets, trained) in [
        ("locked", vec!["model.lock=LL", layer, "model.image_pool=cls+mean"], None),
        ("patches", vec!["model.lock=LL", "model.image_layer=-2", "model.image_pool=patch_mean"], None),
        ("plain", vec!["model.lock=LL", layer, "model.image_pool=cls", "model.image_layer_norm=false"], None),
        (
            "unlocked",
            vec!["model.lock=LL", layer, "model.image_pool=cls+mean", "model.image_unlock_last=1"],
            Some("image_tower.encoder.blocks.1.mlp.up.weight"),
        ),
        (
            "adapted",
            vec!["model.lock=LL", layer, "model.image_pool=mean", "model.image_lora={rank=2}"],
            Some("image_tower.encoder.blocks.1.attention.query.adapter.up"),
        ),
        (
            "decayed",
            vec!["model.lock=UL", layer, "model.image_pool=cls+mean", "train.image_layer_decay=0.5"],
            Some("image_tower.encoder.blocks.0.mlp.up.weight"),
        ),
    ] {
        train(&session, name, &sets);
        let resumed = format!("{name}-resumed");
        train(&session, &resumed, &[&sets[..], &["train.steps=3"]].concat());
        train(&session, &resumed, &sets);
        assert!(weights(&session, name, 6) == weights(&session, &resumed, 6), "{name}: resumed");
        let uncached = format!("{name}-uncached");
        train(&session, &uncached, &[&sets[..], &["cache.enabled=false"]].concat());
        assert!(weights(&session, name, 6) == weights(&session, &uncached, 6), "{name}: uncached");
        let parts = format!("{name}-parts");
        train(&session, &parts, &[&sets[..], &["train.micro_batch_size=4"]].concat());
        let losses = |run: &str| column(&session.metrics(run, "train"), "loss");
        crate::support::assert_close(&parts, &losses(&parts), &losses(name), 1e-3);

        let saved = tensors(&session.path(name).join("checkpoints/step-000006/model.safetensors"));
        assert!(saved.keys().all(|path| !path.contains("image_tower.encoder.blocks.2")), "{name}: {:?}", saved.keys());
        let width = if sets.contains(&"model.image_pool=cls+mean") { 40 } else { 20 };
        assert_eq!(saved["image_projection.weight"].1, [width, 6], "{name}");
        trained.into_iter().for_each(|path| assert!(saved.contains_key(path), "{name}: {:?}", saved.keys()));
        if name == "unlocked" {
            assert!(saved.keys().all(|path| !path.contains("image_tower.encoder.blocks.0")), "{:?}", saved.keys());
        }
    }
    let text =
        session.fail(2, &["train", "--config", "lit.toml", "--set", "run.dir=x", "--set", "model.image_layer=4"]);
    assert!(text.contains("`image_layer` is 4, but this image tower has 3 layers"), "{text}");
    for (set, expected) in [
        ("model.image_layer=0", "`model.image_layer` is 0, expected 1 or more, or -1"),
        ("model.text_pool=cls+mean", "`model.text_pool` is a pooling of image towers"),
        ("model.image_pool=sentence", "`model.image_pool` is a pooling of text towers"),
    ] {
        let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.dir=x", "--set", set]);
        assert!(text.contains(expected), "{text}");
    }
}

/// A layer of a tower is the tower of as many blocks: the export is that tower, and says so.
#[test]
fn exports_have_the_taken_layers() {
    let session = session();
    train(&session, "run", &["model.lock=LL", "model.image_layer=2", "model.image_pool=cls"]);
    let embed = |model: &str, out: &str| {
        session.succeed(&["embed", "--model", model, "--images", "images", "--out", out]);
        tensors(&session.path(out))["image_embeds"].2.clone()
    };
    session.copy("train/images", "images");
    session.succeed(&["export", "--model", "run", "--out", "exported"]);
    assert!(embed("run", "a.safetensors") == embed("exported", "b.safetensors"));
    let config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(session.path("exported/config.json")).unwrap()).unwrap();
    assert_eq!(config["vision_config"]["num_hidden_layers"], 2);
    let names = tensors(&session.path("exported/model.safetensors"));
    assert!(names.keys().any(|name| name.contains("layer.1.")) && names.keys().all(|name| !name.contains("layer.2.")));
    let inspected = session.succeed(&["inspect", "run"]);
    assert!(inspected.contains("the class token, of layer 2 of 3"), "{inspected}");
    // A norm that is left out has no place in either format.
    let sets = ["model.lock=LL", "model.image_layer=2", "model.image_pool=cls", "model.image_layer_norm=false"];
    train(&session, "plain", &sets);
    for format in ["transformers", "sentence-transformers"] {
        let text = session.fail(2, &["export", "--model", "plain", "--out", "no", "--format", format]);
        assert!(text.contains("`image_layer_norm = true`"), "{text}");
    }
}

fn add_pooling(session: &Session, mode: &str) {
    session.write("bert/1_Pooling/config.json", format!("{{\"pooling_mode\": \"{mode}\"}}"));
}

/// Saves the tower as sentence-transformers does, without a pooler.
fn drop_pooler(session: &Session) {
    let path = session.path("bert/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let others: Vec<_> = file.iter().filter(|(name, _)| !name.contains("pooler")).collect();
    assert!(others.len() < file.len());
    fs::write(&path, safetensors::serialize(others, None).unwrap()).unwrap();
}

fn text_embeds(session: &Session, model: &str) -> Vec<u8> {
    session.write("texts.txt", "a red circle\na green square\n");
    session.succeed(&["embed", "--model", model, "--texts", "texts.txt", "--out", "texts.safetensors"]);
    tensors(&session.path("texts.safetensors"))["text_embeds"].2.clone()
}

fn recorded(run: &Path) -> Vec<String> {
    let configs = [run.join("config.toml"), run.join("checkpoints/step-000003/config.toml")];
    let line = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().find(|line| line.starts_with("text_pool")).unwrap().to_owned()
    };
    configs.iter().map(|path| line(path)).collect()
}

#[test]
fn new_runs_record_what_auto_is() {
    let session = session();
    add_pooling(&session, "mean");
    let half = ["model.lock=LU", "train.steps=3"];
    // A pooler in the weights comes first.
    train(&session, "pooler", &half);
    assert_eq!(recorded(&session.path("pooler")), ["text_pool = \"auto\""; 2]);
    drop_pooler(&session);
    train(&session, "auto", &half);
    assert_eq!(recorded(&session.path("auto")), ["text_pool = \"sentence\""; 2]);
    // As if it were asked for.
    train(&session, "mean", &[&half[..], &["model.text_pool=mean"]].concat());
    assert!(weights(&session, "auto", 3) == weights(&session, "mean", 3));
    let inspected = session.succeed(&["inspect", "auto"]);
    assert!(inspected.contains("the mean of all tokens, as `1_Pooling` of sentence-transformers says"), "{inspected}");
    let inspected = session.succeed(&["inspect", "bert"]);
    assert!(inspected.contains("the mean of all tokens, as `1_Pooling` of sentence-transformers says"), "{inspected}");
    // The config still says `auto`, and the run goes on with what it recorded.
    train(&session, "auto", &["model.lock=LU"]);
    train(&session, "mean", &["model.lock=LU", "model.text_pool=mean"]);
    assert!(weights(&session, "auto", 6) == weights(&session, "mean", 6));
    let text = session.fail(2, &["export", "--model", "auto", "--out", "no"]);
    assert!(text.contains("text_pool = \"pooler\"") && text.contains("--format sentence-transformers"), "{text}");
}

#[test]
fn runs_that_recorded_auto_keep_their_pooler() {
    let session = session();
    let half = ["model.lock=LU", "train.steps=3"];
    train(&session, "old", &half);
    train(&session, "straight", &["model.lock=LU"]);
    assert_eq!(recorded(&session.path("old")), ["text_pool = \"auto\""; 2]);
    let before = text_embeds(&session, "old");
    add_pooling(&session, "mean");
    assert!(text_embeds(&session, "old") == before);
    train(&session, "old", &["model.lock=LU"]);
    assert!(weights(&session, "old", 6) == weights(&session, "straight", 6));
    // A run that starts from it keeps them, too.
    let sets = ["model.lock=LU", "model.image_tower=", "model.text_tower=", "model.embed_dim=", "model.init=old"];
    train(&session, "next", &[&sets[..], &["train.learning_rate=1e-9", "train.steps=3"]].concat());
    let saved = tensors(&session.path("next/checkpoints/step-000003/model.safetensors"));
    assert!(saved.contains_key("text_tower.pooler.weight"), "{:?}", saved.keys());
    let refused = ["train", "--config", "lit.toml", "--set", "run.dir=no", "--set", "model.image_layer=2"];
    let refused: Vec<&str> = refused.into_iter().chain(sets.iter().flat_map(|set| ["--set", set])).collect();
    let text = session.fail(2, &refused);
    assert!(text.contains("`model.image_layer` is not what the checkpoint of `model.init` was trained with"), "{text}");
}

#[test]
fn towers_from_scratch_follow_nothing() {
    let session = session();
    add_pooling(&session, "mean");
    train(&session, "scratch", &["model.lock=Lu", "train.steps=3"]);
    assert_eq!(recorded(&session.path("scratch")), ["text_pool = \"auto\""; 2]);
}
