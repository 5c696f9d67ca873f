//! The config as text.

use std::fmt::Write;
use std::path::Path;

use dualenc_data::CaptionMode;
use toml::{Table, Value};

use crate::commands::init::candidate::Candidate;
use crate::commands::init::found::Found;
use crate::commands::init::request::{InitRequest, TEXT_TOWER, in_config};
use crate::commands::init::settings::{LARGEST_BATCH, Settings};

const IMAGE_TOWER: &str = "facebook/dinov2-small";

/// The best known recipe from 20,000 pairs (docs/ALIGNMENT.md), as lines to uncomment.
const BETTER_MODEL: &str = "\
# A better model from the same pairs: layers side by side, and heads that start from the closed form.
# On 20,000 icons, recall@10 is 0.54 instead of 0.40 (docs/ALIGNMENT.md). transformers cannot load such a model.
# Uncomment these lines, and `projection_learning_rate`.
# image_pool = \"cls+mean\"
# image_layer = [-4, -3, -2, -1]
# text_pool = \"mean\"
# text_layer = [-1, -2, -3]
# text_dropout = 0.2
# head_init = \"cca\"
# image_head = { kind = \"linear\", bias = true }
# text_head = { kind = \"linear\", bias = true }";
const RATE_OF_BETTER_HEADS: &str =
    "# projection_learning_rate = 3e-4    # with `head_init`: models of higher rates end lower";

/// The config in `directory` that trains on what was found. `run_dir`: directory of the run, from there.
pub(crate) fn render(
    request: &InitRequest,
    found: &Found,
    settings: &Settings,
    run_dir: &str,
    directory: &Path,
) -> String {
    let mut text = String::new();
    let name = request.out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("# Written by `dualenc init`. Every key is described in docs/CONFIG.md and by `dualenc schema`.");
    for found in found.lines.iter().chain(&settings.lines) {
        found.lines().for_each(|found| line(&format!("# - {found}")));
    }
    line(&format!("#\n# dualenc check --config {name}    # decode every image, count, warn"));
    if settings.has_few_pairs() {
        line(&format!("# dualenc fit --config {name}    # align in closed form, without training: see `head_init`"));
    }
    line(&format!("# dualenc train --config {name}    # train; with --resume: go on"));
    line(&format!("\n[run]\ndir = {}    # config, metrics and checkpoints", quoted(run_dir)));
    line("# tensorboard = true    # also the curves, for `tensorboard --logdir`");
    line("\n[model]");
    line("# Hub ids, or directories with `config.json` and `model.safetensors`. These two run on a laptop;");
    line("# with a GPU, try facebook/dinov2-base and sentence-transformers/all-mpnet-base-v2.");
    line(&format!("image_tower = {}", tower(request.image_tower.as_deref(), IMAGE_TOWER, directory)));
    line(&format!("text_tower = {}", tower(request.text_tower.as_deref(), TEXT_TOWER, directory)));
    line("# Image, then text. L: locked, its features are computed once and cached; U: trained. `LL` trains the two");
    line("# projections alone, which is fastest; `UU` trains everything.");
    let few = match settings.directions {
        directions if settings.has_few_pairs() && directions < 256 => {
            format!("    # from these data, `dualenc fit` and `head_init` determine at most {directions}")
        }
        _ => String::new(),
    };
    line(&format!("lock = \"LU\"\nembed_dim = {}{few}", settings.embed_dim));
    BETTER_MODEL.lines().for_each(&mut line);
    if settings.has_few_pairs() {
        line(&format!(
            "# With as few pairs as these ({}), `dualenc fit` with these lines made the better model, untrained.",
            settings.pairs
        ));
        line("# A fit and a training run need a `run.dir` each.");
    }
    line("\n[data]");
    settings.caption_length.comments.iter().for_each(|comment| line(&format!("# {comment}")));
    line(&format!("max_tokens = {}", settings.caption_length.max_tokens));
    match settings.captions {
        CaptionMode::One => {
            line("# Images have several captions: one is drawn each epoch. `\"all\"`: each is a pair of its own.");
            line("captions = \"one\"");
        }
        // `init` chooses one of the other two.
        CaptionMode::All | CaptionMode::Slots => {}
    }
    if let Some((fraction, images)) = &settings.validation {
        line(&format!("# The share of the images that is held out for `[eval.validation]`: here {images}."));
        line("# A hash of the path of an image decides, so that more images move none to the other side.");
        line(&format!("validation_fraction = {fraction}"));
    }
    line("");
    line(&source("data.train", &found.train, directory));
    if found.train.has_classes {
        line(
            "# Captions are the names of the classes. To train on prompts, name a set, or a file with a `{c}` in each:",
        );
        line("# [data.train]\n# templates = \"builtin:photos\"    # a photo of a {c}., a close photo of a {c}. ..");
    }
    line(&format!("\n[train]\nepochs = {}", settings.epochs));
    line(
        "# The other pairs of a batch are the negatives of a pair: larger batches are better, as far as memory allows.",
    );
    let size = settings.batch_size;
    let why = if size == LARGEST_BATCH {
        String::new()
    } else {
        format!("    # small, because there are {} pairs", settings.pairs)
    };
    line(&format!("batch_size = {size}{why}"));
    line("learning_rate = 5e-4\nwarmup_fraction = 0.1\nschedule = \"cosine\"");
    line(RATE_OF_BETTER_HEADS);
    if settings.validation.is_some() || found.validation.is_some() {
        let is_labelled = found.train.has_classes && found.validation.is_none();
        let (question, task) = if is_labelled {
            ("are held-out images assigned to their classes?", "zero-shot")
        } else {
            ("does a caption find its image, and an image its caption?", "retrieval")
        };
        line(&format!("\n[eval.validation]    # {question}\ntask = \"{task}\""));
    }
    if let Some(validation) = &found.validation {
        line("");
        line(&source("eval.validation.data", validation, directory));
    }
    if let Some(classes) = &found.classes {
        let path = in_config(classes, directory).display().to_string();
        line("\n[eval.classes]    # are images assigned to the names of their folders?");
        line(&format!("task = \"zero-shot\"\nimages = {}", quoted(&path)));
    }
    text
}

/// The table of a source.
fn source(key: &str, candidate: &Candidate, directory: &Path) -> String {
    let mut text = format!("[{key}.{}]    # {}\n", candidate.format, candidate.what.replace('\n', " "));
    candidate.comments.iter().for_each(|comment| {
        let _ = writeln!(text, "# {comment}");
    });
    let is_path = |key: &str| ["path", "root"].contains(&key);
    let path = |path: &str| in_config(Path::new(path), directory).display().to_string();
    let defaults = Table::from_iter([
        ("bad_rows".to_owned(), Value::String("error".to_owned())),
        ("strict".to_owned(), Value::Boolean(true)),
    ]);
    for (key, value) in &candidate.keys {
        // Every other key says what was recognised, so that it can be corrected.
        if defaults.get(key) == Some(value) {
            continue;
        }
        let value = match value {
            Value::String(text) if is_path(key) => quoted(&path(text)),
            Value::Array(texts) if is_path(key) => {
                let texts = texts.iter().filter_map(Value::as_str);
                Value::Array(texts.map(|text| Value::String(path(text))).collect()).to_string()
            }
            value => value.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    }
    text.trim_end().to_owned()
}

/// A tower as the config names it. A directory of the caller's is named from the config.
fn tower(given: Option<&str>, default: &str, directory: &Path) -> String {
    let Some(given) = given else { return quoted(default) };
    if !Path::new(given).is_dir() {
        return quoted(given);
    }
    let path = in_config(Path::new(given), directory);
    quoted(&if path.is_absolute() { path } else { Path::new(".").join(path) }.display().to_string())
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}
