//! What the locked layers of a tower compute that trains only in part is cached, and does not change a run by a bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::pooling::{session, train, weights};
use crate::precision::computes_bf16;
use crate::support::{Session, assert_close, column, kill_moments, tensors};

const TEXT: [&str; 2] = ["model.lock=LL", "model.text_unlock_last=1"];
const IMAGE: [&str; 2] = ["model.lock=LL", "model.image_unlock_last=2"];

fn losses(session: &Session, run: &str) -> Vec<f64> {
    column(&session.metrics(run, "train"), "loss")
}

/// The files of a cache with their contents.
fn files(session: &Session, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let Ok(entries) = fs::read_dir(session.path(dir)) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Trains `sets` without cached states, with them, from a filled cache, and in two sittings: the bits are the same.
/// Returns what the run with cached states said.
#[track_caller]
fn assert_alike(session: &Session, name: &str, sets: &[&str]) -> String {
    let cache = format!("cache.dir=cache-{name}");
    let run = |run: &str, more: &[&str]| {
        let run = format!("{name}-{run}");
        let said = train(session, &run, &[sets, more].concat());
        (said, weights(session, &run, 6), losses(session, &run))
    };
    let (said, off, losses) = run("off", &["cache.prefix=false"]);
    assert!(!said.contains("layers of the"), "{said}");
    let (said, cold, cold_losses) = run("cold", &[&cache]);
    assert_eq!(cold_losses, losses, "{name}");
    assert!(cold == off, "{name}: cached states changed the weights");
    let filled = files(session, &format!("cache-{name}"));
    let (_, warm, _) = run("warm", &[&cache, "data.workers=3"]);
    assert!(warm == off, "{name}: the filled cache changed the weights");
    assert!(files(session, &format!("cache-{name}")) == filled, "{name}: the second run computed states again");
    run_in_two(session, &format!("{name}-resumed"), sets);
    assert!(weights(session, &format!("{name}-resumed"), 6) == off, "{name}: resumed");
    said
}

fn run_in_two(session: &Session, run: &str, sets: &[&str]) {
    train(session, run, &[sets, &["train.steps=5"]].concat());
    train(session, run, sets);
}

#[test]
fn states_of_texts_train_alike() {
    let session = session();
    let said = assert_alike(&session, "text", &TEXT);
    assert!(said.contains("1 of 2 layers of the text tower are locked: what the last of them computes for"), "{said}");
    assert_alike(&session, "parts", &[&TEXT[..], &["train.micro_batch_size=3"]].concat());
    assert_alike(&session, "dropout", &["model.lock=UL", "model.text_unlock_last=1", "model.text_dropout=0.2"]);
    let adapters = "model.text_lora={rank=2, last_blocks=1, targets=[\"query\",\"up\"]}";
    assert_alike(&session, "adapters", &["model.lock=LL", adapters]);
    let saved = tensors(&session.path("adapters-cold/checkpoints/step-000006/model.safetensors"));
    let adapted: Vec<&String> = saved.keys().filter(|path| path.contains(".adapter.")).collect();
    assert!(adapted.len() == 4 && adapted.iter().all(|path| path.contains("blocks.1.")), "{adapted:?}");
}

#[test]
fn states_of_images_train_alike() {
    let session = session();
    let said = assert_alike(&session, "image", &IMAGE);
    assert!(said.contains("1 of 3 layers of the image tower are locked: what the last of them computes"), "{said}");
    let said = train(&session, "augmented", &[&IMAGE[..], &["data.augment.flip=0.5"]].concat());
    let expected = "each epoch augments images anew; set `cache.views = k` and `cache.prefix = true` to cache k views";
    assert!(said.contains(expected), "{said}");
    let both = ["model.lock=LL", "model.image_unlock_last=1", "model.text_unlock_last=1", "model.image_dropout=0.2"];
    assert_alike(&session, "both", &[&both[..], &["train.micro_batch_size=4"]].concat());
    assert_alike(&session, "lu", &["model.lock=LU", "model.image_lora={rank=1,last_blocks=1}"]);
}

/// The cut is below the lowest layer that is pooled.
#[test]
fn listed_layers_train_alike() {
    let session = session();
    let images = ["model.image_layer=[3,1]", "model.image_pool=cls+mean"];
    let texts = ["model.text_layer=[1,2]", "model.text_pool=cls"];
    let last = ["model.lock=LL", "model.image_unlock_last=1", "model.text_unlock_last=1"];
    let said = assert_alike(&session, "lists", &[&images[..], &texts, &last].concat());
    for what in ["1 of 3 layers of the image tower", "1 of 2 layers of the text tower"] {
        assert!(said.contains(what), "{said}");
    }
}

/// Each stage has its own cut, and weights that an earlier stage trained have other states.
#[test]
fn stages_have_states_of_their_own() {
    let session = session();
    let stages = "train.stage=[{from_step=2,lock=\"LL\",text_unlock_last=1,image_unlock_last=1},\
                  {from_step=4,lock=\"LL\",image_unlock_last=2}]";
    assert_alike(&session, "stages", &["model.lock=LU", stages]);
    // Two stores of images, and one of the locked text tower; texts of several lengths.
    let of_stages = files(&session, "cache-stages").len();
    let other = [&TEXT[..], &["cache.dir=cache-stages"]].concat();
    train(&session, "other", &other);
    assert!(files(&session, "cache-stages").len() > of_stages, "states of trained weights were used for others");
}

#[test]
fn key_follows_the_cut() {
    let session = session();
    let count = |name: &str, last: &str| {
        let last = format!("model.image_unlock_last={last}");
        train(&session, name, &["model.lock=LU", &last, "cache.dir=cache"]);
        files(&session, "cache").len()
    };
    assert_eq!([count("one", "1"), count("again", "1"), count("two", "2"), count("three", "3")], [2, 2, 4, 4]);
    // The same layers below another tower are the same.
    let layer = ["model.image_layer=2", "model.image_pool=mean"];
    train(
        &session,
        "pooled",
        &[&["model.lock=LU", "model.image_unlock_last=1", "cache.dir=cache"][..], &layer].concat(),
    );
    assert_eq!(files(&session, "cache").len(), 4);
    // Only the cut counts, not what trains after it.
    let lora = "model.image_lora={rank=1,last_blocks=2}";
    train(&session, "lora", &["model.lock=LU", lora, "cache.dir=cache"]);
    assert_eq!(files(&session, "cache").len(), 4);
}

#[test]
fn cache_command_fills_states() {
    let session = session();
    let sets = [&TEXT[..], &["model.image_unlock_last=1", "cache.dir=cache"]].concat();
    let cache = |more: &[&str]| {
        let arguments = sets.iter().chain(more).chain(&["run.dir=run"]).flat_map(|set| ["--set", *set]);
        session.succeed(&["cache", "--config", "lit.toml"].into_iter().chain(arguments).collect::<Vec<_>>())
    };
    let text = cache(&[]);
    assert!(text.contains("24 states of images: 24 computed, 0 already there"), "{text}");
    assert!(text.contains("24 states of captions: ") && !text.contains(" 0 computed"), "{text}");
    let filled = files(&session, "cache");
    let text = cache(&[]);
    assert!(text.contains("24 states of images: 0 computed, 24 already there"), "{text}");
    assert!(text.contains("24 states of captions: 0 computed, 20 already there, 4 repeated"), "{text}");
    train(&session, "run", &sets);
    assert!(files(&session, "cache") == filled, "training computed states again");
    train(&session, "off", &[&sets[..], &["cache.prefix=false"]].concat());
    assert!(weights(&session, "run", 6) == weights(&session, "off", 6));

    let refused = |sets: &[&str]| {
        let sets = sets.iter().chain(&["run.dir=run"]).flat_map(|set| ["--set", *set]);
        session.fail(2, &["cache", "--config", "lit.toml"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    let lora = ["model.lock=LL", "model.image_lora={rank=1}", "model.text_lora={rank=1}"];
    assert!(refused(&lora).contains("there is nothing to cache"));
    let off = ["model.lock=UL", "model.text_unlock_last=1", "cache.prefix=false"];
    assert!(refused(&off).contains("no tower is locked"));
}

#[test]
fn damaged_states_are_computed_again() {
    let session = session();
    let sets = [&TEXT[..], &["model.image_unlock_last=1", "cache.dir=cache"]].concat();
    train(&session, "run", &sets);
    for (path, mut bytes) in files(&session, "cache") {
        if path.extension().is_some_and(|extension| extension == "values") && !bytes.is_empty() {
            bytes[5] ^= 0x40;
            fs::write(path, bytes).unwrap();
        }
    }
    train(&session, "again", &sets);
    assert!(weights(&session, "again", 6) == weights(&session, "run", 6));
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let session = session();
    let sets = [&TEXT[..], &["model.image_unlock_last=1", "train.steps=12", "checkpoint.every_steps=4"]].concat();
    train(&session, "run", &sets);
    let mut arguments = vec!["train", "--config", "lit.toml", "--resume", "--set", "run.dir=killed"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let mut kills = 0;
    for (part, delay) in kill_moments() {
        kills += usize::from(session.kill_after_lines(&arguments, "killed", (part * 12.0) as usize, delay));
    }
    session.succeed(&arguments);
    assert!(kills >= 2, "{kills}");
    assert!(weights(&session, "killed", 12) == weights(&session, "run", 12));
    assert_eq!(losses(&session, "killed"), losses(&session, "run"));
}

/// Cached views are shown in turn, which has to be asked for.
#[test]
fn augmented_images_have_cached_views() {
    let session = session();
    let sets = [&IMAGE[..], &["data.augment={flip=0.5,crop_scale=[0.5,1.0]}"]].concat();
    let views = [&sets[..], &["cache.views=2", "cache.prefix=true", "cache.dir=cached"]].concat();
    let said = train(&session, "views", &views);
    assert!(said.contains("for 24 images in 2 views is cached"), "{said}");
    // 48 records of 32 bytes in two epochs, beside those of the locked text tower.
    let of_images = |(path, bytes): (PathBuf, Vec<u8>)| {
        path.extension().is_some_and(|extension| extension == "index") && bytes.len() == 48 * 32
    };
    assert!(files(&session, "cached").into_iter().any(of_images));
    run_in_two(&session, "views-resumed", &views);
    assert!(weights(&session, "views-resumed", 6) == weights(&session, "views", 6));
    // Without being asked for, every epoch has new views.
    train(&session, "plain", &[&sets[..], &["cache.dir=empty"]].concat());
    // Of the locked text tower.
    assert_eq!(files(&session, "empty").len(), 2);
    train(&session, "off", &[&sets[..], &["cache.prefix=false"]].concat());
    assert!(weights(&session, "plain", 6) == weights(&session, "off", 6));
    let said = train(&session, "new", &[&sets[..], &["cache.prefix=true", "cache.dir=empty"]].concat());
    assert!(said.contains("set `cache.views`") && files(&session, "empty").len() == 2, "{said}");
}

#[test]
fn half_precision_trains_close() {
    let session = session();
    let both = [&TEXT[..], &["model.image_unlock_last=1"]].concat();
    train(&session, "f32", &both);
    let has_bf16 = computes_bf16(&session);
    for (name, set, limit) in [
        ("f16", "cache.dtype=f16", 1e-3),
        ("bf16", "run.precision=bf16", 2e-2),
        ("locked", "run.locked_precision=f16", 2e-2),
    ] {
        if name == "bf16" && !has_bf16 {
            continue;
        }
        let sets = [&both[..], &[set, "cache.prefix=true"]].concat();
        let said = train(&session, name, &sets);
        assert_eq!(said.matches("is cached").count(), 2, "{said}");
        assert_close(name, &losses(&session, name)[..1], &losses(&session, "f32")[..1], limit);
        let resumed = format!("{name}-resumed");
        run_in_two(&session, &resumed, &sets);
        assert!(weights(&session, &resumed, 6) == weights(&session, name, 6), "{name}");
    }
}

#[test]
fn plan_counts_states() {
    let session = session();
    let sets = [&TEXT[..], &["model.image_unlock_last=2", "run.dir=run"]].concat();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
    let plan = || session.succeed(&[&["plan", "--config", "lit.toml", "--steps", "1"][..], &sets].concat());
    let text = plan();
    let lines =
        |text: &str| text.lines().filter(|line| line.contains("states of")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&text).len(), 2, "{text}");
    session.succeed(&[&["cache", "--config", "lit.toml"][..], &sets].concat());
    assert_ne!(lines(&plan()), lines(&text), "the cache is full");
}
