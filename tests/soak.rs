//! What the fault tests share: counts that scale, seeded draws, and the state of a run directory, read without the
//! program's own code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, tensors};

/// A count for each push, multiplied by `DUALENC_SOAK` in `scripts/soak.sh`.
pub fn scaled(on_push: u64) -> u64 {
    on_push * from_env("DUALENC_SOAK")
}

fn from_env(name: &str) -> u64 {
    std::env::var(name).map_or(1, |value| value.parse().unwrap_or_else(|_| panic!("`{name}` is `{value}`")))
}

/// Prints what a fault test ran. `scripts/soak.sh` collects these lines.
#[expect(clippy::print_stderr, reason = "the figures of the fault table")]
pub fn figure(test: &str, figures: &str) {
    eprintln!("figure: {test}: {figures} (seed {}, {})", from_env("DUALENC_SEED"), profile());
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

/// Draws of one test: a function of `DUALENC_SEED` and its name.
pub struct Draws {
    seed: u64,
    count: u64,
}

impl Draws {
    pub fn new(test: &str) -> Self {
        let seed = test.bytes().fold(from_env("DUALENC_SEED"), |seed, byte| dualenc_data::mix(seed, &[byte.into()]));
        Self { seed, count: 0 }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.count += 1;
        (dualenc_data::mix(self.seed, &[self.count]) % end.max(1) as u64) as usize
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.below(10_000) as f64 / 10_000.0)
    }
}

/// Steps of the complete checkpoints of a run, ascending. Panics if one does not match its manifest.
#[track_caller]
pub fn whole_checkpoints(run: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let mut steps = Vec::new();
    for entry in entries {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap();
        let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok()) else {
            assert!(name.contains(".tmp-") || name.starts_with(".trash-"), "{}", dir.display());
            continue;
        };
        assert_eq!(problem_of(&dir, step), None, "{}", dir.display());
        steps.push(step);
    }
    steps.sort_unstable();
    steps
}

/// How a checkpoint differs from its manifest.
fn problem_of(dir: &Path, step: u64) -> Option<String> {
    let manifest: Value = match fs::read(dir.join("manifest.json")).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(manifest)) => manifest,
        other => return Some(format!("manifest: {other:?}")),
    };
    if manifest["step"] != step {
        return Some(format!("the manifest says step {}", manifest["step"]));
    }
    let files = manifest["files"].as_object().unwrap();
    if !["model.safetensors", "optimizer.safetensors", "config.toml"].iter().all(|name| files.contains_key(*name)) {
        return Some(format!("it lists {:?}", files.keys()));
    }
    files.iter().find_map(|(name, entry)| {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        let hash = blake3::hash(&bytes).to_hex().to_string();
        (entry["bytes"] != bytes.len() as u64 || entry["blake3"] != *hash).then(|| format!("{name} is damaged"))
    })
}

/// Copies a run as it was after `step`: its log, its config and its newest checkpoints up to there, at most `keep`.
pub fn copy_run(from: &Path, to: &Path, step: u64, keep: usize) {
    fs::create_dir_all(to.join("checkpoints")).unwrap();
    for name in ["config.toml", "metrics.jsonl"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let steps: Vec<u64> = whole_checkpoints(from).into_iter().filter(|at| *at <= step).collect();
    for step in &steps[steps.len().saturating_sub(keep)..] {
        let name = format!("checkpoints/step-{step:06}");
        fs::create_dir(to.join(&name)).unwrap();
        for file in fs::read_dir(from.join(&name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(&name).join(file.file_name())).unwrap();
        }
    }
}

/// Dtype, shape and bytes by name.
pub type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// Everything a run writes that does not depend on time.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// Lines by kind, in order.
    pub metrics: Vec<Value>,
    /// The last checkpoint's files of tensors.
    pub files: BTreeMap<String, Tensors>,
}

/// The outcome of a finished run of `steps` steps. Panics unless its log has each step once.
#[track_caller]
pub fn outcome(session: &Session, run: &str, steps: u64) -> Outcome {
    let logged: Vec<u64> = session.metrics(run, "train").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(logged, (1..=steps).collect::<Vec<_>>(), "steps in the log of {run}");
    let metrics = ["train", "eval", "warning"].into_iter().flat_map(|kind| session.reproducible(run, kind)).collect();
    let last = session.path(run).join(format!("checkpoints/step-{steps:06}"));
    let files = ["model", "optimizer", "ema"].map(|name| last.join(format!("{name}.safetensors")));
    let files = files.into_iter().filter(|path| path.exists());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let files: BTreeMap<String, Tensors> = files.map(|path| (name(&path), tensors(&path))).collect();
    assert!(files.len() >= 2, "{run} ends with {:?}", files.keys());
    Outcome { metrics, files }
}

impl Outcome {
    /// Panics with the names of what differs.
    #[track_caller]
    pub fn assert_same(&self, expected: &Self, what: &str) {
        for (found, expected) in self.metrics.iter().zip(&expected.metrics) {
            assert_eq!(found, expected, "{what}");
        }
        assert_eq!(self.metrics.len(), expected.metrics.len(), "{what}: lines of the log");
        assert_eq!(self.files.keys().collect::<Vec<_>>(), expected.files.keys().collect::<Vec<_>>(), "{what}");
        for (file, expected) in &expected.files {
            let found = &self.files[file];
            let differing: Vec<&String> =
                expected.keys().filter(|name| found.get(*name) != expected.get(*name)).collect();
            assert!(differing.is_empty() && found.len() == expected.len(), "{what}: {file}: {differing:?}");
        }
    }
}

/// Complete lines of the log of a run.
pub fn log_lines(run: &Path) -> usize {
    fs::read(run.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Waits until `done` or until the process ends; returns whether it still runs. Two minutes are a hang.
#[track_caller]
pub fn wait_while_running(child: &mut Child, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("nothing happened for two minutes");
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// Sends a signal, such as `TERM`.
pub fn send_signal(child: &Child, signal: &str) {
    let status = std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}
