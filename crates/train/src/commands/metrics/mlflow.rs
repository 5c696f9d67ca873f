//! The file store of MLflow: a directory of experiments, each with a directory per run that holds `meta.yaml` and one
//! file per metric, parameter and tag.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dualenc_report::Status;

use crate::commands::metrics::rows::Rows;
use crate::commands::report::run_files::RunFiles;
use crate::commands::staged_output::StagedDir;
use crate::error::TrainError;
use crate::run_dir::flat_config::{flat_config, shown};

/// The experiment that runs are exported to.
const EXPERIMENT: &str = "dualenc";

/// Its directory, unless an experiment of this name exists: 18 digits, as MLflow draws them.
const EXPERIMENT_ID: &str = "420017286391540827";

/// The longest value of a parameter that MLflow accepts (`MAX_PARAM_VAL_LENGTH`).
const LONGEST_VALUE: usize = 6000;

/// Writes the run to the file store in `store`, in place of an earlier export of the same run. Returns its directory.
///
/// # Errors
/// [`TrainError::Write`] when it cannot be written; [`TrainError::Usage`] when two metrics have one name in MLflow.
pub(super) fn write(store: &Path, run: &RunFiles, rows: &Rows) -> Result<PathBuf, TrainError> {
    let metrics = metrics_of(rows)?;
    fs::create_dir_all(store).map_err(TrainError::write(store))?;
    let store = store.canonicalize().map_err(TrainError::write(store))?;
    let times = || rows.steps.values().map(|row| milliseconds(row.time));
    let (start, end) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    let experiment = open_experiment(&store, start)?;
    let experiment_id = experiment.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The same run has the same id again.
    let path = run.dir.canonicalize().map_err(TrainError::read(&run.dir))?;
    let run_id = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex()[..32].to_owned();
    let target = experiment.join(&run_id);
    if target.exists() {
        fs::remove_dir_all(&target).map_err(TrainError::write(&target))?;
    }

    let staged = StagedDir::new(&target)?;
    let file = |name: &str, text: &str| {
        let path = staged.path().join(name);
        let write = || -> io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, text)
        };
        write().map_err(TrainError::write(&path))
    };
    for name in ["artifacts", "metrics", "params", "tags"] {
        let dir = staged.path().join(name);
        fs::create_dir_all(&dir).map_err(TrainError::write(&dir))?;
    }
    metrics.iter().try_for_each(|(name, lines)| file(&format!("metrics/{name}"), lines))?;
    for (key, value) in run.config_text.as_deref().and_then(flat_config).unwrap_or_default() {
        // MLflow reads one line.
        let value = shown(&value).replace(['\n', '\r'], " ");
        file(&format!("params/{}", name_of(&key)), &value[..value.floor_char_boundary(LONGEST_VALUE)])?;
    }
    let (name, run_dir) = (run.name(), path.to_string_lossy());
    for (tag, value) in [
        ("mlflow.runName", name.as_str()),
        ("mlflow.source.name", "dualenc"),
        ("mlflow.source.type", "LOCAL"),
        ("dualenc.run_dir", run_dir.as_ref()),
    ] {
        file(&format!("tags/{tag}"), value)?;
    }
    // `RunStatus`: 1 running, 2 scheduled, 3 finished, 4 failed, 5 killed.
    let (status, end_time) = match run.state.status {
        Status::Finished | Status::Fitted => (3, end.to_string()),
        Status::Diverged => (4, end.to_string()),
        Status::Killed | Status::Stopped => (5, end.to_string()),
        Status::NotStarted => (2, "null".to_owned()),
        Status::Running | Status::Unknown => (1, "null".to_owned()),
    };
    let meta = format!(
        "artifact_uri: {uri}\nend_time: {end_time}\nentry_point_name: ''\nexperiment_id: '{experiment_id}'\n\
         lifecycle_stage: active\nrun_id: '{run_id}'\nrun_name: {name}\nrun_uuid: '{run_id}'\nsource_name: ''\n\
         source_type: 4\nsource_version: ''\nstart_time: {start}\nstatus: {status}\ntags: []\nuser_id: ''\n",
        uri = quoted(&file_uri(&target.join("artifacts"))),
        name = quoted(&name),
    );
    file("meta.yaml", &meta)?;
    staged.commit("meta.yaml")?;
    Ok(target)
}

/// The lines `time value step` of each metric.
fn metrics_of(rows: &Rows) -> Result<BTreeMap<String, String>, TrainError> {
    let mut metrics: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (step, row) in &rows.steps {
        for (tag, value) in &row.values {
            let (first, lines) = metrics.entry(name_of(tag)).or_insert_with(|| (tag.clone(), String::new()));
            if first != tag {
                return Err(TrainError::Usage(format!(
                    "the metrics `{first}` and `{tag}` would have one name in MLflow, `{}`; use another `--format`",
                    name_of(tag)
                )));
            }
            // Writing to a string does not fail.
            let _ = writeln!(lines, "{} {value} {step}", milliseconds(row.time));
        }
    }
    Ok(metrics.into_iter().map(|(name, (_, lines))| (name, lines)).collect())
}

/// A tag as a name that MLflow accepts: letters, digits, `_`, `-`, `.`, space and `/`.
fn name_of(tag: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_-. /".contains(letter);
    tag.replace('@', "_at_").chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

/// The directory of the experiment in `store`, which is created if there is none.
fn open_experiment(store: &Path, time: u64) -> Result<PathBuf, TrainError> {
    for entry in fs::read_dir(store).map_err(TrainError::read(store))? {
        let dir = entry.map_err(TrainError::read(store))?.path();
        let meta = fs::read_to_string(dir.join("meta.yaml")).unwrap_or_default();
        let is_ours = |line: &str| line.strip_prefix("name:").is_some_and(|name| name.trim() == EXPERIMENT);
        if meta.lines().any(is_ours) {
            return Ok(dir);
        }
    }
    let dir = store.join(EXPERIMENT_ID);
    let meta = format!(
        "artifact_location: {uri}\ncreation_time: {time}\nexperiment_id: '{EXPERIMENT_ID}'\nlast_update_time: {time}\n\
         lifecycle_stage: active\nname: {EXPERIMENT}\n",
        uri = quoted(&file_uri(&dir)),
    );
    fs::create_dir_all(&dir).map_err(TrainError::write(&dir))?;
    fs::write(dir.join("meta.yaml"), meta).map_err(TrainError::write(&dir))?;
    Ok(dir)
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

/// A string in YAML.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The URI of an absolute path (RFC 8089).
fn file_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(byte as char);
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::metrics::rows::Row;

    #[test]
    fn names_are_mlflows() {
        assert_eq!(name_of("eval/held/image_retrieval_recall@5"), "eval/held/image_retrieval_recall_at_5");
        assert_eq!(name_of("train.group[0]"), "train.group_0_");
        assert_eq!(file_uri(Path::new("/a b/\u{e9}")), "file:///a%20b/%C3%A9");
        assert_eq!(quoted("it's"), "'it''s'");
    }

    #[test]
    fn metrics_with_one_name_are_refused() {
        let row = |tags: &[&str]| Row { time: 1.0, values: tags.iter().map(|tag| ((*tag).to_owned(), 0.5)).collect() };
        let rows = Rows { steps: [(1, row(&["a?", "b"])), (2, row(&["a!"]))].into(), ..Rows::default() };
        let error = metrics_of(&rows).unwrap_err().to_string();
        assert!(error.contains("`a?` and `a!`"), "{error}");
    }
}
