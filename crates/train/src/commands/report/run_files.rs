//! What the files of a run say, without its model.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dualenc_data::counted;
use dualenc_report::{BadSamples, BestCheckpoint, Entry, RunState, Status};
use serde_json::Value;

use crate::commands::report::run_log::RunLog;
use crate::commands::report::state::run_lock::{RunLock, lock_at};
use crate::commands::report::state::run_state::{NotFinite, Traces};
use crate::commands::report::state::when::{duration, utc};
use crate::config::{RunConfig, RunLength};
use crate::error::TrainError;
use crate::run_dir::best::BestTracker;
use crate::run_dir::checkpoint::retention;
use crate::run_dir::flat_config::{flat_config, shown, with_short_paths};
use crate::run_dir::layout::{checkpoints_of, exists, metrics_of};

/// The files of a run.
pub(crate) struct RunFiles {
    /// The run directory.
    pub dir: PathBuf,
    /// The config, or why it cannot be used.
    pub config: Result<RunConfig, String>,
    /// The config as it is written.
    pub config_text: Option<String>,
    /// The log.
    pub(super) log: RunLog,
    /// How far the run is.
    pub state: RunState,
    /// The best checkpoint.
    pub best: Option<BestCheckpoint>,
    /// What the run does without, by cause.
    pub bad_samples: Vec<BadSamples>,
}

impl RunFiles {
    /// Reads the files of the run in `dir`. Nothing is locked, created or changed.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when `dir` is no run; [`TrainError::Read`] when a file cannot be read.
    pub fn read(dir: &Path) -> Result<Self, TrainError> {
        check_is_run(dir)?;
        // Before the log, which a run that ends meanwhile has completed.
        let lock = lock_at(&dir.join("run.lock"));
        let log = RunLog::read(&metrics_of(dir))?;
        let config_path = dir.join("config.toml");
        let config = RunConfig::load(&config_path, &[]).map_err(|error| with_causes(&error));
        let checkpoints = retention::list(&checkpoints_of(dir))?;
        let mut files = Self {
            dir: dir.to_owned(),
            config,
            config_text: fs::read_to_string(&config_path).ok(),
            log,
            state: RunState::default(),
            best: None,
            bad_samples: bad_samples(&dir.join("bad_samples.jsonl"))?,
        };
        let tracker = match &files.config {
            Ok(config) => Some(BestTracker::of_run(&config.checkpoint, dir, u64::MAX, None)?),
            Err(_) => None,
        };
        let fit_without = files.fit_without(&checkpoints);
        let best = match fit_without {
            Some(_) => tracker.as_ref().and_then(BestTracker::start_as_best),
            None => tracker.as_ref().and_then(BestTracker::best),
        };
        files.best = best.map(|best| {
            let found = checkpoints.iter().find(|(step, _)| *step == best.step);
            let path = found.and_then(|(_, path)| path.strip_prefix(dir).ok());
            BestCheckpoint {
                step: best.step,
                path: path.map_or(String::new(), |path| path.display().to_string()),
                metric: best.metric.to_string(),
                value: Some(best.value),
            }
        });
        let stopped_early = tracker.as_ref().is_some_and(BestTracker::is_exhausted);
        let not_finite = NotFinite::all_of(dir)?;
        files.state = files.state_of(lock, stopped_early, &checkpoints, not_finite.last(), fit_without.as_deref());
        files.log.warnings.extend(not_finite.iter().map(NotFinite::warning));
        Ok(files)
    }

    /// The name of the directory.
    pub fn name(&self) -> String {
        let path = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// All keys of the config with their values.
    pub fn config_entries(&self) -> Vec<Entry> {
        let entries = self.config_text.as_deref().and_then(flat_config).unwrap_or_default();
        entries.into_iter().map(|(key, value)| Entry { value: shown(&with_short_paths(value)), key }).collect()
    }

    fn state_of(
        &self,
        lock: RunLock,
        stopped_early: bool,
        checkpoints: &[(u64, PathBuf)],
        not_finite: Option<&NotFinite>,
        fit_without: Option<&[String]>,
    ) -> RunState {
        let newest = checkpoints.last();
        let step = self.log.last_step().max(newest.map_or(0, |(step, _)| *step));
        let total_steps =
            self.total_steps().or_else(|| newest.and_then(|(_, path)| manifest_of(path)?["total_steps"].as_u64()));
        // A run ends with a checkpoint of its last step. One that was killed before it was written goes on when it is
        // resumed; where all checkpoints were deleted, the log is all that is known.
        let is_saved = newest.is_none_or(|(saved, _)| *saved >= step);
        let is_complete = is_saved && (stopped_early || total_steps.is_some_and(|total| step >= total));
        let traces = Traces {
            lock,
            is_complete,
            has_begun: newest.is_some() || self.log.has_begun(),
            is_torn: self.log.is_torn,
            step,
            logged: self.log.last_step(),
            saved: newest.map(|(step, _)| *step),
            not_finite,
            fit_without,
        };
        let status = traces.status();
        // No step was to follow.
        let total_steps = total_steps.filter(|_| status != Status::Fitted);
        let is_early = status == Status::Finished && stopped_early && total_steps.is_none_or(|total| step < total);
        let early = is_early.then(|| "It ended early, by `checkpoint.patience`.".to_owned());
        let mut notes: Vec<String> = early.into_iter().chain(traces.note()).chain(self.log.fit.clone()).collect();
        if self.log.is_torn {
            notes.push("The last line of `metrics.jsonl` is incomplete and is left out.".to_owned());
        }
        let files = [metrics_of(&self.dir), checkpoints_of(&self.dir), self.dir.join("config.toml")];
        let written = files.iter().filter_map(|path| fs::metadata(path).ok()?.modified().ok()).max();
        RunState {
            status,
            step,
            total_steps,
            when: written.and_then(|at: SystemTime| utc(at)),
            duration: (self.log.seconds > 0.0).then(|| format!("{} of training steps", duration(self.log.seconds))),
            note: (!notes.is_empty()).then(|| notes.join(" ")),
            starts_fitted: self.log.fit.is_some(),
        }
    }

    /// If the newest checkpoint is that of a fit and no step follows it, the evaluations of the config that are not in
    /// the log. Training that went on from it and has not logged a step has changed nothing.
    fn fit_without(&self, checkpoints: &[(u64, PathBuf)]) -> Option<Vec<String>> {
        let (_, newest) = checkpoints.last().filter(|_| self.log.steps.is_empty())?;
        if manifest_of(newest)?["is_fit"] != true {
            return None;
        }
        let is_missing = |name: &&String| self.log.evaluations.iter().all(|evaluation| evaluation.name != **name);
        Some(self.config.as_ref().ok()?.eval.keys().filter(is_missing).cloned().collect())
    }

    /// The length of the run by its config; `None` as long as the steps of an epoch are unknown.
    fn total_steps(&self) -> Option<u64> {
        let config = self.config.as_ref().ok()?;
        match (config.length(), self.log.steps_per_epoch) {
            (RunLength::Steps(steps), _) => Some(steps),
            (RunLength::Epochs(_), steps) => steps.map(|steps| config.total_steps(steps)),
        }
    }
}

/// An error with its causes, unless it names them itself.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// # Errors
/// [`TrainError::Usage`] when `dir` is no run; [`TrainError::Read`] when it cannot be found out.
fn check_is_run(dir: &Path) -> Result<(), TrainError> {
    let shown = dir.display();
    if !exists(dir)? {
        return Err(TrainError::Usage(format!("`{shown}` does not exist; expected the directory of a run")));
    }
    if exists(&dir.join("manifest.json"))? {
        return Err(TrainError::Usage(format!("`{shown}` is a checkpoint; name the run that it belongs to")));
    }
    for part in [dir.join("config.toml"), metrics_of(dir), checkpoints_of(dir)] {
        if exists(&part)? {
            return Ok(());
        }
    }
    Err(TrainError::Usage(format!(
        "`{shown}` is not a run: expected `config.toml`, `metrics.jsonl` or `checkpoints` in it; name the directory \
         that `run.dir` of a config names"
    )))
}

/// What a checkpoint says of itself; `None`: it cannot be read.
fn manifest_of(checkpoint: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(checkpoint.join("manifest.json")).ok()?).ok()
}

/// The list of bad samples by cause, the most frequent first. A line that is cut off is left out: the run is writing
/// it.
///
/// # Errors
/// [`TrainError::Read`] when the file exists and cannot be read.
fn bad_samples(path: &Path) -> Result<Vec<BadSamples>, TrainError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(TrainError::read(path))?,
    };
    let mut found: Vec<BadSamples> = Vec::new();
    let mut damaged = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(line) else {
            damaged += u64::from(line.last() == Some(&b'\n'));
            continue;
        };
        let cause = line["cause"].as_str().unwrap_or("unknown");
        let count = line["count"].as_u64().unwrap_or(1);
        let example = ["key", "reason"].iter().find_map(|key| line[key].as_str()).map(str::to_owned);
        match found.iter_mut().find(|samples| samples.cause == cause) {
            Some(samples) => samples.count += count,
            None => found.push(BadSamples { cause: cause.to_owned(), count, example }),
        }
    }
    if damaged > 0 {
        let example = Some(counted(damaged as usize, "line") + " of `bad_samples.jsonl` cannot be read");
        found.push(BadSamples { cause: "unknown: damaged list".to_owned(), count: damaged, example });
    }
    found.sort_by_key(|samples| std::cmp::Reverse(samples.count));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_once() {
        let error = TrainError::read(Path::new("a.csv"))(ErrorKind::NotFound.into());
        assert_eq!(with_causes(&error).matches(&ErrorKind::NotFound.to_string()).count(), 1, "{}", with_causes(&error));
        let error = tempfile::tempdir().unwrap();
        let error = RunConfig::load(&error.path().join("none.toml"), &[]).unwrap_err();
        assert_eq!(with_causes(&error).matches("os error 2").count(), 1, "{}", with_causes(&error));
    }

    #[test]
    fn bad_samples_are_counted_by_cause() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bad_samples.jsonl");
        assert_eq!(bad_samples(&path).unwrap(), []);
        let line = |cause: &str, key: &str| format!("{{\"kind\":\"image\",\"cause\":\"{cause}\",\"key\":\"{key}\"}}\n");
        let rows = "{\"kind\":\"rows\",\"cause\":\"not listed\",\"count\":3}\n";
        fs::write(&path, line("empty", "a") + &line("empty", "b") + rows + "{\"kind\":\"ima").unwrap();
        let found = bad_samples(&path).unwrap();
        let counts: Vec<(&str, u64)> = found.iter().map(|samples| (samples.cause.as_str(), samples.count)).collect();
        assert_eq!(counts, [("not listed", 3), ("empty", 2)]);
        assert_eq!(found[1].example.as_deref(), Some("a"));
    }

    // A link to itself stands for a directory that may not be read, which is no obstacle to a test that runs as root.
    #[cfg(unix)]
    #[test]
    fn unreadable_run_is_no_other_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("config.toml", dir.path().join("config.toml")).unwrap();
        let error = RunFiles::read(dir.path()).err().unwrap();
        assert!(matches!(&error, TrainError::Read { path, .. } if path.ends_with("config.toml")), "{error}");
    }

    #[test]
    fn run_without_its_last_checkpoint_is_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), "").unwrap();
        let line = |step: u64| format!("{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":2.0}}\n");
        fs::write(metrics_of(dir.path()), line(3) + &line(4)).unwrap();
        let status = |checkpoint: Option<u64>| {
            if let Some(step) = checkpoint {
                let path = crate::run_dir::checkpoint::path_of(&checkpoints_of(dir.path()), step);
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join("manifest.json"), "{\"total_steps\":4}").unwrap();
            }
            RunFiles::read(dir.path()).unwrap().state
        };
        assert_eq!(status(None).status, Status::Killed, "its length is unknown");
        let killed = status(Some(3));
        assert_eq!((killed.status, killed.step, killed.total_steps), (Status::Killed, 4, Some(4)));
        assert!(killed.note.unwrap().contains("goes on after step 3"));
        assert_eq!(status(Some(4)).status, Status::Finished);
    }

    #[test]
    fn fit_is_finished_with_its_last_evaluation() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("config.toml"),
            "[run]\ndir='run'\n[model]\nimage_tower='i'\ntext_tower='t'\nlock='LL'\n\
             [data.train.csv]\npath='t.csv'\n[train]\nepochs=1\nbatch_size=8\nlearning_rate=1e-3\n\
             [eval.a]\ntask='retrieval'\ndata='a.csv'\n[eval.b]\ntask='retrieval'\ndata='b.csv'\n\
             [checkpoint]\nbest='b.image_retrieval_recall@1'\n",
        )
        .unwrap();
        let fit = r#"{"kind":"fit","step":0,"method":"cca"}"#;
        let eval = |name: &str| {
            format!("{{\"kind\":\"eval\",\"step\":0,\"name\":\"{name}\",\"image_retrieval_recall@1\":0.5}}")
        };
        let (a, b) = (eval("a"), eval("b"));
        let state = |lines: &[&str]| {
            fs::write(metrics_of(dir.path()), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
                .unwrap();
            let files = RunFiles::read(dir.path()).unwrap();
            assert!(files.config.is_ok(), "{:?}", files.config);
            files
        };
        let status = |lines: &[&str]| state(lines).state.status;
        // Training that starts from a fit logs the same and saves no checkpoint of the fit.
        assert_eq!((status(&[fit]), status(&[fit, &a, &b])), (Status::Killed, Status::Killed));
        let path = crate::run_dir::checkpoint::path_of(&checkpoints_of(dir.path()), 0);
        fs::create_dir_all(&path).unwrap();
        // Nor is its checkpoint one of a fit, as when it stops at once.
        fs::write(path.join("manifest.json"), "{\"total_steps\":4}").unwrap();
        assert_eq!(status(&[fit, &a, &b]), Status::Killed);
        fs::write(path.join("manifest.json"), "{\"total_steps\":4,\"is_fit\":true}").unwrap();
        let killed = state(&[fit, &a]);
        assert_eq!(killed.state.status, Status::Killed);
        assert!(killed.state.note.unwrap().contains("gives the figures of `b`, and"));
        let fitted = state(&[fit, &a, &b]);
        assert_eq!((fitted.state.status, fitted.state.total_steps), (Status::Fitted, None));
        assert!(fitted.state.starts_fitted);
        let best = fitted.best.unwrap();
        assert_eq!((best.step, best.value, best.path.as_str()), (0, Some(0.5), "checkpoints/step-000000"));
        // Training goes on from it.
        let step = r#"{"kind":"train","step":1,"epoch":0.5,"loss":2.0}"#;
        let training = state(&[fit, &a, &b, step]);
        assert_eq!((training.state.status, training.best), (Status::Killed, None));
    }
}
