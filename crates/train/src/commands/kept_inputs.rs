//! The inputs of a command, which none of its outputs may replace: a slip such as `--data pairs.csv --json pairs.csv`
//! would cost the user a file.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use dualenc_data::{TOKENIZER_FILES, is_image_name};
use serde_json::Value;

use crate::config::RunConfig;
use crate::error::TrainError;
use crate::run_dir::atomic_file::parent;

/// Extensions of files that are read from a folder of data, besides images.
const DATA_EXTENSIONS: [&str; 9] = ["csv", "tsv", "tab", "jsonl", "parquet", "pq", "tar", "npy", "cls"];

/// Extensions of files that may belong to an image of the same name.
const SIDE_EXTENSIONS: [&str; 3] = ["txt", "json", "caption"];

/// Names of files in a run, a checkpoint or a model, besides weights and those of the tokenizer.
const MODEL_FILES: [&str; 14] = [
    "config.toml",
    "metrics.jsonl",
    "bad_samples.jsonl",
    "run.lock",
    "manifest.json",
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "open_clip_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
];

/// Extensions of weights.
const WEIGHTS: [&str; 4] = ["safetensors", "bin", "pt", "pth"];

/// How the names of weights begin, so that embeddings may be written into a run.
const WEIGHT_NAMES: [&str; 5] = ["model", "pytorch_model", "open_clip", "optimizer", "ema"];

/// Characters of a path that make it a pattern.
const PATTERN: [char; 4] = ['{', '*', '?', '['];

/// Between a key and its path, in what names an input.
const OF_CONFIG: &str = "` of the config, `";

/// What a command reads.
#[derive(Debug, Default)]
pub struct Inputs(Vec<Input>);

#[derive(Debug)]
struct Input {
    /// The option or the key that names it.
    given_by: String,
    path: PathBuf,
    kind: Kind,
}

/// Which files of a directory are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Images, tables, shards and what lies beside them.
    Data,
    /// The files of a run, a checkpoint or a model.
    Model,
}

impl Inputs {
    /// No input yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a file, a folder of data or a pattern of files that `option` names. What is not there is ignored.
    #[must_use]
    pub fn data<'a>(mut self, option: &str, paths: impl IntoIterator<Item = &'a Path>) -> Self {
        for path in paths {
            self.push(option, path, Kind::Data);
        }
        self
    }

    /// With directories of runs, checkpoints, models or towers that `option` names.
    #[must_use]
    pub fn models<'a>(mut self, option: &str, dirs: impl IntoIterator<Item = &'a Path>) -> Self {
        for dir in dirs {
            self.push(option, dir, Kind::Model);
        }
        self
    }

    /// With the run in `dir` that `option` names, and everything that its config names.
    #[must_use]
    pub fn run(self, option: &str, dir: &Path) -> Self {
        let (inputs, path) = (self.models(option, [dir]), dir.join("config.toml"));
        // The command itself says what is wrong with it.
        match RunConfig::load(&path, &[]) {
            Ok(config) => inputs.config(&path, &config),
            Err(_) => inputs,
        }
    }

    /// With the config in the file `path`, and every file and folder that it names.
    #[must_use]
    pub fn config(mut self, path: &Path, config: &RunConfig) -> Self {
        self.push("--config", path, Kind::Data);
        // Every text that names something, so that no key can be forgotten here. Paths are absolute in a loaded config.
        if let Ok(keys) = serde_json::to_value(config) {
            self.push_texts("", &keys);
        }
        self
    }

    fn push(&mut self, given_by: &str, path: &Path, kind: Kind) {
        let is_pattern = !path.exists() && path.to_string_lossy().contains(PATTERN);
        let is_plain = |path: &&Path| !path.to_string_lossy().contains(PATTERN);
        // A pattern may match anything below the folder that it starts with.
        let found = if is_pattern { path.ancestors().find(is_plain).unwrap_or(Path::new("")) } else { path };
        let found = if found.as_os_str().is_empty() { Path::new(".") } else { found };
        self.0.push(Input { given_by: given_by.to_owned(), path: found.to_owned(), kind });
    }

    fn push_texts(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(text) if Path::new(text).is_absolute() => {
                let is_of_model = key.starts_with("model.") || key.starts_with("train.teacher") || key == "run.dir";
                let kind = if is_of_model { Kind::Model } else { Kind::Data };
                self.push(&format!("{key}{OF_CONFIG}{text}"), Path::new(text), kind);
            }
            Value::Array(values) => {
                values.iter().enumerate().for_each(|(at, value)| self.push_texts(&format!("{key}[{at}]"), value));
            }
            Value::Object(values) => {
                for (name, value) in values {
                    self.push_texts(&if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, value);
                }
            }
            _ => {}
        }
    }

    /// Refuses `outputs`, each with its option, that would replace an input or one another. `-` stands for stdout.
    ///
    /// # Errors
    /// [`TrainError::Usage`].
    pub fn keep<'a>(&self, outputs: impl IntoIterator<Item = (&'a str, Option<&'a Path>)>) -> Result<(), TrainError> {
        let mut before: Vec<(&str, PathBuf)> = Vec::new();
        let given = outputs.into_iter().filter_map(|(option, path)| Some((option, path?)));
        for (option, output) in given.filter(|(_, path)| *path != Path::new("-")) {
            // A device or a pipe is written to and not replaced. A directory is the command's own concern.
            if fs::metadata(output).is_ok_and(|there| !there.is_file()) {
                continue;
            }
            if let Some(input) = self.0.iter().find(|input| input.holds(output)) {
                return Err(TrainError::Usage(format!(
                    "`{option} {}` would replace {}, which this command reads; name another file",
                    output.display(),
                    input.describe(output)
                )));
            }
            let place = place_of(output);
            if let Some((other, _)) = before.iter().find(|(_, path)| *path == place) {
                return Err(TrainError::Usage(format!(
                    "`{other}` and `{option}` name the same file, `{}`; name two files",
                    output.display()
                )));
            }
            before.push((option, place));
        }
        Ok(())
    }
}

impl Input {
    /// Whether the file `output` is there, and is this input or one of its files.
    fn holds(&self, output: &Path) -> bool {
        if is_same_file(&self.path, output) {
            return true;
        }
        // Through links, as an output goes to the file that a link leads to.
        let (Ok(folder), Ok(file)) = (self.path.canonicalize(), output.canonicalize()) else { return false };
        folder.is_dir() && file.starts_with(&folder) && is_read(&file, self.kind)
    }

    fn describe(&self, output: &Path) -> String {
        let given_by = &self.given_by;
        if is_same_file(&self.path, output) {
            return format!("the file of `{given_by}`");
        }
        // The key of a config has its path already.
        let is_of_config = given_by.contains(OF_CONFIG);
        let place = if is_of_config { given_by.clone() } else { format!("{given_by} {}", self.path.display()) };
        format!("a file of `{place}`")
    }
}

/// Whether a directory of this kind is read for `file`.
fn is_read(file: &Path, kind: Kind) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let extension = extension_of(file);
    match kind {
        Kind::Model => {
            let is_weights =
                WEIGHTS.contains(&extension.as_str()) && WEIGHT_NAMES.iter().any(|start| name.starts_with(start));
            is_weights || MODEL_FILES.contains(&name.as_str()) || TOKENIZER_FILES.contains(&name.as_str())
        }
        Kind::Data => {
            let is_side = SIDE_EXTENSIONS.contains(&extension.as_str());
            let is_list = ["metadata.json", "classnames.txt", "zeroshot_classification_templates.txt"];
            is_image_name(file)
                || DATA_EXTENSIONS.contains(&extension.as_str())
                || is_list.contains(&name.as_str())
                || (is_side && is_beside_image(file))
        }
    }
}

/// Whether an image of the same name is in the folder of `file`.
fn is_beside_image(file: &Path) -> bool {
    let entries = fs::read_dir(parent(file)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|other| other.file_stem() == file.file_stem() && is_image_name(&other))
}

fn extension_of(file: &Path) -> String {
    file.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether both are there and are one file, through links too.
fn is_same_file(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |path| fs::metadata(path).map(|there| (there.dev(), there.ino()));
        matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
    }
    #[cfg(not(unix))]
    {
        matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
    }
}

/// Where a file is or would be, without links.
fn place_of(file: &Path) -> PathBuf {
    let by_folder = || {
        let folder = parent(file);
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(file.file_name().unwrap_or(OsStr::new("")))
    };
    file.canonicalize().unwrap_or_else(|_| by_folder())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(inputs: &Inputs, output: &Path) -> Option<String> {
        inputs.keep([("--json", Some(output))]).err().map(|error| error.to_string())
    }

    #[test]
    fn files_that_are_read_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("photos/below")).unwrap();
        fs::create_dir_all(at("run/checkpoints/step-000001")).unwrap();
        let files = [
            "pairs.csv",
            "photos/a.png",
            "photos/a.txt",
            "photos/below/b.jpg",
            "run/metrics.jsonl",
            "run/checkpoints/step-000001/model.safetensors",
            "shards-0.tar",
        ];
        let own = ["photos/labels.json", "photos/notes.txt", "run/eval.json", "run/photos.safetensors", "other.csv"];
        for name in files.iter().chain(&own) {
            fs::write(at(name), "x").unwrap();
        }
        let inputs = Inputs::new()
            .data("--data", [at("pairs.csv").as_path()])
            .data("--images", [at("photos").as_path(), &at("gone.csv"), &at("shards-{0..3}.tar")])
            .models("--model", [at("run").as_path()]);
        for name in files {
            let problem = refused(&inputs, &at(name)).unwrap_or_else(|| panic!("{name} would be replaced"));
            assert!(problem.contains("which this command reads; name another file"), "{problem}");
        }
        assert!(refused(&inputs, &at("pairs.csv")).unwrap().contains("would replace the file of `--data`"));
        let dir = Inputs::new().models("--model", [at("run").as_path()]).data("--images", [at("photos").as_path()]);
        for name in own.iter().copied().chain(["photos/new.png", "new.json"]) {
            assert_eq!(refused(&dir, &at(name)), None, "{name}");
        }
        assert_eq!(refused(&inputs, Path::new("-")), None);
        let both = inputs.keep([("--json", Some(at("new").as_path())), ("--html", Some(&at("photos/../new")))]);
        assert!(both.unwrap_err().to_string().contains("`--json` and `--html` name the same file"));
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_inputs() {
        let root = tempfile::tempdir().unwrap();
        let [table, link] = ["pairs.csv", "link"].map(|name| root.path().join(name));
        fs::write(&table, "x").unwrap();
        std::os::unix::fs::symlink(&table, &link).unwrap();
        assert!(refused(&Inputs::new().data("--data", [table.as_path()]), &link).is_some());
        assert!(refused(&Inputs::new().data("--data", [link.as_path()]), &table).is_some());
        assert_eq!(refused(&Inputs::new().data("--data", [table.as_path()]), Path::new("/dev/null")), None);
    }
}
