//! Training on features from files computes the bits of training on the same features from towers and their cache.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_model::parameters;
use serde_json::Value;

use super::*;
use crate::device::Compute;
use crate::events::{Event, Silent};
use crate::features::image_index::{ImageList, Views};
use crate::features::locked_towers::LockedTowers;
use crate::models::load::LoadedModel;
use crate::pairs::Pairs;

/// Losses and gradient norms by step; stops the run after `last`.
struct Watch<'a> {
    numbers: Vec<[f64; 2]>,
    last: Option<u64>,
    stop: &'a StopFlag,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Step(record) = event {
            self.numbers.push([record.loss, record.grad_norm]);
            if self.last == Some(record.step) {
                self.stop.request(15);
            }
        }
    }
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train").join(name)
}

/// A config with `model` and `data`, its run in the folder `name` of `dir`.
fn config(dir: &Path, name: &str, model: &str, data: &str, sets: &[&str]) -> RunConfig {
    let text = format!(
        "[run]\ndir = {:?}\n[model]\n{model}embed_dim = 16\n[data.train.{data}\n[eval.pairs]\ntask = \"retrieval\"\n\
         every_steps = 5\n[eval.pairs.data.{data}\n[train]\nsteps = 12\nbatch_size = 8\nlearning_rate = 1e-3\n",
        dir.join(name),
    );
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    RunConfig::load(&path, &sets).unwrap()
}

fn run(config: &RunConfig, start: Start, last: Option<u64>) -> Vec<[f64; 2]> {
    let stop = StopFlag::default();
    let mut watch = Watch { numbers: Vec::new(), last, stop: &stop };
    train(config, start, &stop, &mut watch).unwrap();
    watch.numbers
}

fn towers(dir: &Path, sets: &[&str]) -> RunConfig {
    let model = format!("image_tower = {:?}\ntext_tower = {:?}\n", goldens("vit"), goldens("bert"));
    config(dir, "towers", &model, &format!("csv]\npath = {:?}", goldens("train_repeated.csv")), sets)
}

/// A `.npy` file of `[rows, width]`.
fn write_npy(path: &Path, width: usize, values: &[f32]) {
    let shape = (values.len() / width, width);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape:?}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// Writes what the towers of `config` compute of its data: `i.npy`, `t.npy`, `of.txt` and `c.txt`.
fn dump(config: &RunConfig, dir: &Path) {
    let compute = Compute::select("cpu", None).unwrap();
    let stop = StopFlag::default();
    let dataset = Pairs::read(config).unwrap().train;
    let loaded = LoadedModel::from_config(config, &compute, &mut Silent).unwrap();
    let model = loaded.model.valid();
    let locked = LockedTowers::new(&model, &loaded.processor, &compute, 2, &stop);
    let (images, texts) = (locked.images.unwrap(), locked.texts.unwrap());
    let set = images.set(Arc::clone(&dataset) as Arc<dyn ImageList>, Views::One);
    images.fill(&set, |_| ()).unwrap();
    let all: Vec<usize> = (0..dataset.num_images()).collect();
    let rows = parameters::host(images.select(&set, &all, 0).unwrap()).unwrap();
    write_npy(&dir.join("i.npy"), rows.shape[1], &rows.values);
    let (mut tokens, mut of, mut captions) = (dualenc_data::TokenBatch::default(), String::new(), String::new());
    for caption in dataset.captions() {
        tokens.push(loaded.tokenizer.encode(caption.text).unwrap());
        writeln!(of, "{}", caption.image).unwrap();
        writeln!(captions, "{}", caption.text).unwrap();
    }
    let rows = parameters::host(texts.of_tokens(&tokens).unwrap()).unwrap();
    write_npy(&dir.join("t.npy"), rows.shape[1], &rows.values);
    fs::write(dir.join("of.txt"), of).unwrap();
    fs::write(dir.join("c.txt"), captions).unwrap();
}

/// The metrics of the evaluation at each step, without the fingerprint of its data.
fn evaluated(run: &Path) -> Vec<Value> {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evals = lines.filter(|line| line["kind"] == "eval");
    let of_data = ["fingerprint", "time"];
    evals
        .map(|mut line| {
            of_data.iter().for_each(|key| drop(line.as_object_mut().unwrap().remove(*key)));
            line
        })
        .collect()
}

#[test]
fn features_train_as_their_towers_do() {
    for sets in [&["train.loss=softmax"][..], &["train.loss=sigmoid", "train.micro_batch_size=3"]] {
        let dir = tempfile::tempdir().unwrap();
        let towers = towers(dir.path(), &[&["model.lock=LL"], sets].concat());
        dump(&towers, dir.path());
        let data = "features]\nimages = \"i.npy\"\ntexts = \"t.npy\"\nimage_of = \"of.txt\"\ncaptions = \"c.txt\"";
        let features = config(dir.path(), "features", "", data, sets);
        assert_eq!(features.model.lock.to_string(), "LL", "the default, as there is no text tower");
        let expected = run(&towers, Start::New, None);
        assert_eq!(run(&features, Start::New, None), expected, "{sets:?}");
        let found = evaluated(&features.run.dir);
        assert!(found.len() > 2);
        assert_eq!(found, evaluated(&towers.run.dir));

        // Nothing is copied to a cache, and a resumed run goes on with the same bits.
        assert!(!features.cache_dir().exists());
        let parts = config(dir.path(), "parts", "", data, sets);
        let mut found = run(&parts, Start::New, Some(5));
        assert_eq!(found.len(), 5);
        found.extend(run(&parts, Start::RESUME, None));
        assert_eq!(found, expected);
    }
}

#[test]
fn features_of_images_train_a_text_tower() {
    let dir = tempfile::tempdir().unwrap();
    let both = towers(dir.path(), &["model.lock=LL"]);
    dump(&both, dir.path());
    fs::remove_dir_all(&both.run.dir).ok();
    let expected = run(&towers(dir.path(), &["model.lock=LU"]), Start::New, None);
    let data = "features]\nimages = \"i.npy\"\nimage_of = \"of.txt\"\ncaptions = \"c.txt\"";
    let features = config(dir.path(), "features", &format!("text_tower = {:?}\n", goldens("bert")), data, &[]);
    assert_eq!(features.model.lock.to_string(), "LU");
    assert_eq!(run(&features, Start::New, None), expected);
    assert_eq!(evaluated(&features.run.dir), evaluated(&both.run.dir));
}
