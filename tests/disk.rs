//! A disk that is full, read-only, or loses the run directory: the checkpoints written before stay as they are, the
//! error names the path, and the run goes on from there once the disk is well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::soak::{
    Draws, Outcome, copy_run, figure, log_lines, outcome, scaled, wait_while_running, whole_checkpoints,
};
use crate::support::{Session, stderr};

/// 3 of an epoch, 4 epochs, each with a checkpoint.
const STEPS: u64 = 12;
/// The checkpoint that exists before the disk fails.
const SAVED: u64 = 4;

fn session() -> Session {
    let session = Session::new();
    session.write_config("ema_decay = 0.9\n[checkpoint]\nevery_steps = 1\nkeep = 100\n");
    session
}

fn arguments(run: &str) -> Vec<String> {
    let run = format!("run.dir={run}");
    ["train", "--config", "lit.toml", "--resume", "--set", &run].map(str::to_owned).to_vec()
}

fn resume(session: &Session, run: &str) {
    let arguments = arguments(run);
    session.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

fn uninterrupted(session: &Session) -> Outcome {
    resume(session, "whole");
    outcome(session, "whole", STEPS)
}

/// Resumes with files limited to `blocks` of 512 bytes, the unit of POSIX `ulimit`; a longer write is an error.
fn resume_with_file_limit(session: &Session, run: &str, blocks: u64) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_dualenc")).args(arguments(run)).current_dir(session.path(""));
    command.env("POSIXLY_CORRECT", "1").stdin(Stdio::null()).output().unwrap()
}

/// What holds after a failed save: exit code 1, the path in the error, and every earlier checkpoint whole.
#[track_caller]
fn assert_failed_cleanly(output: &Output, run: &Path, what: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
    let name = run.file_name().unwrap().to_str().unwrap();
    let error = text.lines().find(|line| line.starts_with("error")).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(error.contains(&format!("/{name}")), "{what}: {error}");
    let steps = whole_checkpoints(run);
    assert!(steps.len() >= SAVED as usize && steps[..SAVED as usize] == [1, 2, 3, 4], "{what}: {steps:?}");
}

/// `limit` places, spread over `places` with a random offset.
fn spread(draws: &mut Draws, places: u64, count: u64) -> Vec<u64> {
    let offset = draws.below(places.div_ceil(count) as usize) as u64;
    (0..count).map(|n| (n * places / count + offset) % places).collect()
}

#[test]
fn file_size_limit_keeps_checkpoints() {
    let session = session();
    let whole = uninterrupted(&session);
    let size = |name: &str| fs::metadata(session.path("whole/checkpoints/step-000004").join(name)).unwrap().len();
    let largest = ["model", "optimizer", "ema"].map(|name| size(&format!("{name}.safetensors"))).into_iter().max();
    let largest = largest.unwrap() / 512;
    let mut draws = Draws::new("file_size_limit_keeps_checkpoints");
    let limits = spread(&mut draws, largest, scaled(32).min(largest));
    for limit in &limits {
        let name = format!("limit-{limit}");
        let run = session.path(&name);
        copy_run(&session.path("whole"), &run, SAVED, 100);
        let output = resume_with_file_limit(&session, &name, *limit);
        assert_failed_cleanly(&output, &run, &name);
        resume(&session, &name);
        outcome(&session, &name, STEPS).assert_same(&whole, &name);
        fs::remove_dir_all(run).unwrap();
    }
    figure(
        "file_size_limit_keeps_checkpoints",
        &format!("{} limits from 0 to {} bytes, 0 lost", limits.len(), largest * 512),
    );
}

#[test]
fn file_limit_is_an_error_of_the_file() {
    // The signal of the limit would end the program without a word.
    let session = session();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 8; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_dualenc")]).args(arguments("run"));
    let output = command.current_dir(session.path("")).env("POSIXLY_CORRECT", "1").output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("File too large") && text.contains("bytes"), "{text}");
}

/// A file system in memory, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where `DUALENC_NO_MOUNT` is set, for users who may not mount. Without it, such a user's test fails: it
    /// must not pass without having run.
    fn mount(at: PathBuf, options: &str) -> Option<Self> {
        if std::env::var_os("DUALENC_NO_MOUNT").is_some() {
            return None;
        }
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output().unwrap();
        let hint = "run as root, in `unshare --map-root-user --mount`, or with DUALENC_NO_MOUNT=1 to leave it out";
        assert!(mounted.status.success(), "cannot mount a file system in memory: {}; {hint}", stderr(&mounted));
        Some(Self(at))
    }

    /// Fills the disk but for `pages` of 4 KiB.
    fn fill_but(&self, pages: u64) {
        let path = self.0.join("filler");
        let _ = fs::remove_file(&path);
        let mut file = fs::File::create(&path).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        let full = file.metadata().unwrap().len() / 4096;
        file.set_len(full.checked_sub(pages).unwrap() * 4096).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn full_disk_keeps_checkpoints() {
    let session = session();
    let Some(disk) = Tmpfs::mount(session.path("disk"), "size=8m") else {
        return figure("full_disk_keeps_checkpoints", "SKIPPED, 0 places: DUALENC_NO_MOUNT is set");
    };
    let whole = uninterrupted(&session);
    let checkpoint = fs::read_dir(session.path("whole/checkpoints/step-000004")).unwrap();
    let needed: u64 = checkpoint.map(|file| file.unwrap().metadata().unwrap().len().div_ceil(4096)).sum();
    let mut draws = Draws::new("full_disk_keeps_checkpoints");
    let places = spread(&mut draws, needed, scaled(32).min(needed));
    for pages in &places {
        let run = session.path("disk/run");
        copy_run(&session.path("whole"), &run, SAVED, 100);
        disk.fill_but(*pages);
        let output = session.command(&arguments("disk/run").iter().map(String::as_str).collect::<Vec<_>>()).output();
        let output = output.unwrap();
        assert_failed_cleanly(&output, &run, &format!("{pages} pages free"));
        assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
        disk.empty();
        resume(&session, "disk/run");
        outcome(&session, "disk/run", STEPS).assert_same(&whole, &format!("{pages} pages were free"));
        fs::remove_dir_all(run).unwrap();
    }
    figure(
        "full_disk_keeps_checkpoints",
        &format!("full at {} places of a save of {needed} pages of 4 KiB, 0 lost", places.len()),
    );
}

#[test]
fn read_only_disk_is_refused() {
    let session = session();
    let Some(disk) = Tmpfs::mount(session.path("disk"), "size=8m") else {
        return figure("read_only_disk_is_refused", "SKIPPED: DUALENC_NO_MOUNT is set");
    };
    resume(&session, "disk/run");
    let before = whole_checkpoints(&session.path("disk/run"));
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().unwrap();
    assert!(remounted.success());
    for run in ["disk/run", "disk/new"] {
        let arguments = arguments(run);
        let text = session.fail(2, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(text.contains("cannot write to the run directory") && text.contains(run), "{text}");
        assert!(text.contains("choose another `run.dir`"), "{text}");
    }
    assert_eq!(whole_checkpoints(&session.path("disk/run")), before);
    figure("read_only_disk_is_refused", "2 directories");
}

#[test]
fn lost_run_directory_ends_the_run() {
    let session = session();
    let whole = uninterrupted(&session);
    // With `run` or `checkpoints` out of the way, as when someone tidies up or a network disk goes.
    for lost in ["", "checkpoints"] {
        let name = format!("run-{lost}");
        let dir = session.path(&name).join(lost);
        let away = session.path(&format!("away-{lost}"));
        let long = [arguments(&name), ["--set", "train.epochs=10000"].map(str::to_owned).to_vec()].concat();
        let mut command = session.command(&long.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_while_running(&mut child, || log_lines(&session.path(&name)) >= 6), "{name} ended early");
        fs::rename(&dir, &away).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let expected = if lost.is_empty() { "run.lock` was deleted, moved or changed" } else { "No such file" };
        assert!(text.contains(&format!("/{name}/")) && text.contains(expected), "{text}");
        let moved = if lost.is_empty() { away } else { session.path("restored") };
        if !lost.is_empty() {
            fs::create_dir_all(&moved).unwrap();
            fs::rename(session.path("away-checkpoints"), moved.join("checkpoints")).unwrap();
        }
        let steps = whole_checkpoints(&moved);
        assert!(steps.starts_with(&[1, 2, 3, 4, 5]), "{steps:?}");
    }
    // A run directory that is deleted with everything in it leaves nothing to resume: the run starts over.
    let mut command = session.command(&arguments("gone").iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_while_running(&mut child, || log_lines(&session.path("gone")) >= 2);
    while fs::remove_dir_all(session.path("gone")).is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound) {
        sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    let _ = fs::remove_dir_all(session.path("gone"));
    resume(&session, "gone");
    outcome(&session, "gone", STEPS).assert_same(&whole, "started over");
    figure("lost_run_directory_ends_the_run", "3 cases");
}

#[test]
fn three_failed_saves_end_the_run() {
    let session = session();
    let whole = uninterrupted(&session);
    copy_run(&session.path("whole"), &session.path("run"), SAVED, 100);
    // 12 KiB: enough for the log, too little for a checkpoint.
    let output = resume_with_file_limit(&session, "run", 24);
    assert_failed_cleanly(&output, &session.path("run"), "no save succeeds");
    let text = stderr(&output);
    assert_eq!(log_lines(&session.path("run")), 7, "three steps with a failed save each: {text}");
    let warnings = text.lines().filter(|line| line.starts_with("warning") && line.contains("File too large"));
    assert_eq!(warnings.count(), 2, "{text}");
    resume(&session, "run");
    outcome(&session, "run", STEPS).assert_same(&whole, "run");
    figure("three_failed_saves_end_the_run", "2 warnings, then exit code 1");
}

#[test]
fn run_outlives_a_passing_fault() {
    let session = session();
    let sets = ["--set", "train.epochs=200", "--set", "checkpoint.every_steps=100"].map(str::to_owned);
    let long = |run: &str| [arguments(run), sets.to_vec()].concat();
    let run = |name: &str| {
        let arguments = long(name);
        session.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run("whole");
    let arguments = long("run");
    let mut command = session.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The directory is away when step 200 is saved, and back before step 400.
    let (there, away) = (session.path("run/checkpoints"), session.path("away"));
    let at = |lines: usize| log_lines(&session.path("run")) >= lines;
    assert!(wait_while_running(&mut child, || at(105)));
    fs::rename(&there, &away).unwrap();
    assert!(wait_while_running(&mut child, || at(205)), "one failed save ended the run");
    fs::rename(&away, &there).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    let warning = text.lines().find(|line| line.starts_with("warning") && line.contains("checkpoints"));
    assert!(warning.is_some_and(|line| line.contains("No such file")), "{text}");
    outcome(&session, "run", 600).assert_same(&outcome(&session, "whole", 600), "after a failed save");
    figure("run_outlives_a_passing_fault", "1 failed save, 0 differing");
}

#[test]
fn failed_deletion_is_a_warning() {
    let session = session();
    let sets = ["--set", "train.epochs=200", "--set", "checkpoint.every_steps=100", "--set", "checkpoint.keep=1"];
    let arguments = [arguments("run"), sets.map(str::to_owned).to_vec()].concat();
    let mut command = session.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(wait_while_running(&mut child, || log_lines(&session.path("run")) >= 105));
    // A file where a checkpoint goes before it is deleted.
    session.write("run/checkpoints/.trash-step-000100", "in the way");
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.lines().any(|line| line.starts_with("warning") && line.contains("step-000100")), "{text}");
    assert!(whole_checkpoints(&session.path("run")).ends_with(&[600]), "{text}");
    assert_eq!(session.metrics("run", "train").len(), 600);
}
