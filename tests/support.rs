//! A working directory with a config, `dualenc` run in it, and what it wrote.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A path below `tests/goldens`.
pub fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name).canonicalize().unwrap()
}

/// A temporary working directory, in which `dualenc` runs.
pub struct Session {
    dir: TempDir,
}

impl Session {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Copies the files of a golden directory to `name` and returns the path.
    pub fn copy(&self, golden: &str, name: &str) -> PathBuf {
        let target = self.path(name);
        fs::create_dir_all(&target).unwrap();
        for entry in fs::read_dir(goldens(golden)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                let below = entry.file_name();
                self.copy(&format!("{golden}/{}", below.to_str().unwrap()), target.join(&below).to_str().unwrap());
            } else {
                fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
        }
        target
    }

    /// Writes `lit.toml`: the config of the golden training run, with `more` appended.
    pub fn write_config(&self, more: &str) {
        let config = format!(
            "[run]\ndir = \"run\"\nseed = 1\nthreads = 2\n\
             [model]\ninit = {init:?}\nlock = \"UU\"\n\
             [data]\nshuffle = false\n[data.train.csv]\npath = {data:?}\n\
             [train]\nepochs = 4\nbatch_size = 8\nlearning_rate = 1e-3\nwarmup_steps = 3\n\
             duplicates = \"ignore\"\n{more}",
            init = goldens("train/init"),
            data = goldens("train/train.csv"),
        );
        self.write("lit.toml", config);
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualenc"));
        command.current_dir(self.dir.path()).args(arguments).stdin(Stdio::null());
        command.env_remove("DUALENC_FAIL_AT").env_remove("RUST_BACKTRACE");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `dualenc`, asserts success, and returns stdout.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `dualenc`, asserts that it reports problems (exit code 2) without an error, and returns stdout.
    #[track_caller]
    pub fn problems(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{text}");
        assert!(!text.contains("error: "), "{text}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `dualenc`, asserts this exit code, and returns stderr.
    #[track_caller]
    pub fn fail(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// The lines of `metrics.jsonl` of one kind, such as `train` or `eval`.
    pub fn metrics(&self, run: &str, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["kind"] == kind).collect()
    }
}

/// Keys of a line of `metrics.jsonl` that depend on time.
const OF_TIME: [&str; 3] = ["time", "pairs_per_sec", "loader_wait"];

impl Session {
    /// [`Session::metrics`] without what depends on time.
    pub fn reproducible(&self, run: &str, kind: &str) -> Vec<Value> {
        let mut lines = self.metrics(run, kind);
        for line in &mut lines {
            let expected = if kind == "train" { OF_TIME.len() } else { 1 };
            let line = line.as_object_mut().unwrap();
            let found = OF_TIME.iter().filter(|key| line.remove(**key).is_some_and(|value| value.is_number())).count();
            assert_eq!(found, expected, "values of time in {line:?}");
        }
        lines
    }

    /// Writes a table of the golden pairs.
    pub fn write_pairs(&self, name: &str) {
        let golden = goldens("train");
        let table = fs::read_to_string(golden.join("train.csv")).unwrap();
        self.write(name, table.replace("images/", &format!("{}/", golden.join("images").display())));
    }

    /// Compares two runs of `steps` steps to the bit: weights, optimiser and all lines of the log.
    #[track_caller]
    pub fn assert_same_run(&self, found: &str, expected: &str, steps: usize) {
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let of = |run: &str| tensors(&self.path(run).join(format!("checkpoints/step-{steps:06}")).join(file));
            assert!(of(found) == of(expected), "{file} of `{found}` differs");
        }
        for kind in ["train", "eval", "warning"] {
            assert_eq!(self.reproducible(found, kind), self.reproducible(expected, kind), "{kind} of `{found}`");
        }
        assert_eq!(self.metrics(found, "train").len(), steps);
    }
}

/// When to kill a run: once during start-up, then after each ninth of its log. Each item is a fraction of the log and a
/// delay. Progress, not the clock, decides, so a busy machine changes nothing.
pub fn kill_moments() -> impl Iterator<Item = (f64, Duration)> {
    let delay = |n: u64| Duration::from_millis(7 * n % 23);
    std::iter::once((0.0, delay(4))).chain((1..=8).map(move |n| (n as f64 / 9.0, delay(n))))
}

impl Session {
    /// Starts a command and kills it once the log of `run` has `lines` lines and `delay` has passed. Returns whether it
    /// was still running then; if not, it must have succeeded. Starts nothing if the log has that many lines already.
    #[track_caller]
    pub fn kill_after_lines(&self, arguments: &[&str], run: &str, lines: usize, delay: Duration) -> bool {
        let log = self.path(run).join("metrics.jsonl");
        let written = || fs::read(&log).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
        if lines > 0 && written() >= lines {
            return false;
        }
        let mut child = self.command(arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while written() < lines && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "fewer than {lines} lines after two minutes");
            sleep(Duration::from_millis(1));
        }
        sleep(delay);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{status}");
        !status.success()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number at `name` of every line.
pub fn column(lines: &[Value], name: &str) -> Vec<f64> {
    lines.iter().map(|line| line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"))).collect()
}

/// Dtype, shape and bytes of every tensor of a safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            (name.to_owned(), (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec()))
        })
        .collect()
}

/// The values of one `f32` tensor.
pub fn floats(path: &Path, name: &str) -> Vec<f32> {
    let all = tensors(path);
    let (_, _, bytes) = all.get(name).unwrap_or_else(|| panic!("{name} is not in {}", path.display()));
    as_floats(bytes)
}

/// Little-endian `f32` values.
pub fn as_floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Changes the values of one `f32` tensor of a file of `f32` tensors.
pub fn edit_floats(path: &Path, name: &str, edit: impl Fn(f32) -> f32) {
    let mut all = tensors(path);
    let (_, _, bytes) = all.get_mut(name).unwrap_or_else(|| panic!("{name} is not in {}", path.display()));
    for value in bytes.chunks_exact_mut(4) {
        let edited = edit(f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        value.copy_from_slice(&edited.to_le_bytes());
    }
    let views = all.iter().map(|(name, (_, shape, bytes))| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes.as_slice()).unwrap())
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Copies a run as it was when `step` was its newest checkpoint.
pub fn copy_run_at(from: &Path, to: &Path, step: usize) {
    fs::create_dir_all(to.join("checkpoints")).unwrap();
    for name in ["config.toml", "metrics.jsonl"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for step in 1..=step {
        let name = format!("checkpoints/step-{step:06}");
        fs::create_dir(to.join(&name)).unwrap();
        for file in fs::read_dir(from.join(&name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(&name).join(file.file_name())).unwrap();
        }
    }
}

/// Compares with a relative tolerance. Values below 1e-3 have the tolerance of 1e-3.
#[track_caller]
pub fn assert_close(what: &str, found: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let limit = relative * expected.abs().max(1e-3);
        assert!((found - expected).abs() <= limit, "{what} {at}: found {found}, expected {expected}");
    }
}

/// A session with 24 images, their embeddings in `embeds.safetensors`, and the path of the model.
pub fn embedded() -> (Session, String) {
    let session = Session::new();
    session.copy("train/images", "images");
    let model = goldens("train/init").to_str().unwrap().to_owned();
    session.write("texts.txt", "a red circle\na green square\nblue stripes\n");
    let arguments = ["embed", "--model", &model, "--images", "images", "--texts", "texts.txt"];
    session.succeed(&[&arguments[..], &["--out", "embeds.safetensors"]].concat());
    (session, model)
}

/// A bitmap of 32 x 32 pixels of one colour with some noise.
pub fn bitmap(colour: [u8; 3], number: usize) -> Vec<u8> {
    let pixels = 32 * 32_usize;
    let mut bytes = b"BM".to_vec();
    for field in [54 + 3 * pixels as u32, 0, 54, 40, 32, 32, 1 | 24 << 16, 0, 3 * pixels as u32, 2835, 2835, 0, 0] {
        bytes.extend(field.to_le_bytes());
    }
    for pixel in 0..pixels {
        for (channel, value) in colour.iter().rev().enumerate() {
            bytes.push(value.saturating_add(((pixel * 31 + channel * 17 + number * 101) % 40) as u8));
        }
    }
    bytes
}
