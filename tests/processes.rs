//! Processes that mpirun starts share each batch, and compute what one process computes. With the feature `mpi`.
//!
//! With another MPI than the default: `MPICC=mpicc.mpich DUALENC_MPIRUN=mpirun.mpich`. Two tests of
//! `faults_of_processes.rs` fail then, as they assert how Open MPI's mpirun ends processes (docs/SCALE.md).

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::soak::{Draws, figure, whole_checkpoints};
use crate::support::{Session, goldens, stderr};

/// Turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(180);

/// All processes end so soon after one is killed: mpirun waits a second before it kills the others too.
pub const SOON: Duration = Duration::from_secs(20);

/// What the several processes of a step have by default.
pub const EIGHTHS: &str = "train.micro_batch_size=1";

pub fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "[checkpoint]\nevery_steps = 5\nkeep = 100\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\nevery_steps = 20\n",
    );
    session.write_pairs("pairs.csv");
    session
}

/// The arguments of `dualenc train`: `sets`, and `steps` steps with dropout.
pub fn arguments(run: &str, steps: usize, sets: &[&str]) -> Vec<String> {
    let own = [
        format!("run.dir={run}"),
        "train.epochs=".to_owned(),
        format!("train.steps={steps}"),
        "model.text_dropout=0.2".to_owned(),
    ];
    let sets = own.into_iter().chain(sets.iter().map(|set| (*set).to_owned()));
    let start = ["train", "--config", "lit.toml", "--resume"].map(str::to_owned);
    start.into_iter().chain(sets.flat_map(|set| ["--set".to_owned(), set])).collect()
}

/// `mpirun -n PROCESSES dualenc ...`, and so on for each further group of processes.
pub fn mpirun(session: &Session, groups: &[(usize, Vec<String>)]) -> Command {
    let launcher = std::env::var("DUALENC_MPIRUN").unwrap_or_else(|_| "mpirun".to_owned());
    let mut command = Command::new(launcher);
    command.current_dir(session.path("")).stdin(Stdio::null()).env_remove("DUALENC_FAIL_AT");
    for (key, value) in [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "true"),
        ("OMPI_MCA_hwloc_base_binding_policy", "none"),
    ] {
        command.env(key, value);
    }
    for (number, (processes, arguments)) in groups.iter().enumerate() {
        if number > 0 {
            command.arg(":");
        }
        command.args(["-n", &processes.to_string(), env!("CARGO_BIN_EXE_dualenc")]).args(arguments);
    }
    command
}

pub fn started(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs to the end, which comes before [`DEADLINE`].
#[track_caller]
pub fn finished(mut child: Child) -> Output {
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running after {DEADLINE:?}: {}", stderr(&child.wait_with_output().unwrap()));
        }
        sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[track_caller]
pub fn succeed(session: &Session, processes: usize, arguments: Vec<String>) -> Output {
    let output = finished(started(&mut mpirun(session, &[(processes, arguments)])));
    assert!(output.status.success(), "{}\n{}", output.status, stderr(&output));
    output
}

/// One process without mpirun.
pub fn alone(session: &Session, arguments: &[String]) {
    session.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The process of `rank`, of those that `mpirun` has started.
pub fn process_of(mpirun: &Child, rank: usize) -> Option<String> {
    let own = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].map(|name| format!("{name}={rank}"));
    let is_rank = |process: &str| {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| own.iter().any(|own| variable == own.as_bytes()))
    };
    // MPICH's mpirun starts a process that starts them.
    let mut processes = vec![mpirun.id().to_string()];
    while let Some(process) = processes.pop() {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        for child in children.split_whitespace().map(str::to_owned) {
            if is_rank(&child) {
                return Some(child);
            }
            processes.push(child);
        }
    }
    None
}

pub fn send(signal: &str, process: &str) {
    assert!(Command::new("kill").args([signal, process]).status().unwrap().success(), "{signal} {process}");
}

fn lines(log: &Path) -> usize {
    fs::read(log).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Waits until the log has `expected` lines. Returns whether the run is still going on.
#[track_caller]
pub fn reaches(child: &mut Child, log: &Path, expected: usize) -> bool {
    let deadline = Instant::now() + DEADLINE;
    while lines(log) < expected {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "{} of {expected} lines", lines(log));
        sleep(Duration::from_millis(1));
    }
    true
}

/// The time that a process has computed, in hundredths of a second.
fn ticks(process: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in brackets, may have spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often `part` is in `text`.
pub fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn processes_train_as_threads_and_as_one() {
    const STEPS: usize = 50;
    for (lock, dropout) in [("LU", "0"), ("UU", "0.2"), ("LL", "0")] {
        for loss in ["softmax", "sigmoid"] {
            let session = session();
            let sets =
                [format!("model.lock={lock}"), format!("model.image_dropout={dropout}"), format!("train.loss={loss}")];
            let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
            alone(&session, &arguments("one", STEPS, &[&sets[..], &[EIGHTHS]].concat()));
            alone(&session, &arguments("threads", STEPS, &[&sets[..], &["run.device=cpu,cpu"]].concat()));
            session.assert_same_run("threads", "one", STEPS);
            for processes in [2, 4] {
                let run = format!("processes-{processes}");
                succeed(&session, processes, arguments(&run, STEPS, &sets));
                session.assert_same_run(&run, "one", STEPS);
            }
        }
    }
}

#[test]
fn first_process_reports_for_all() {
    let session = session();
    let output = succeed(&session, 2, arguments("run", 12, &[]));
    let (out, text) = (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output));
    assert_eq!(count(&out, "trained 12 steps"), 1, "{out}");
    assert_eq!(count(&text, "step 10/12"), 1, "{text}");
    assert_eq!(count(&text, "2 processes on 1 machine: "), 1, "{text}");
    let config = fs::read_to_string(session.path("run/config.toml")).unwrap();
    assert!(config.contains("device = \"cpu\"\n") && config.contains("micro_batch_size = 1\n"), "{config}");
    // One process is a run as without a launcher: it has no parts.
    succeed(&session, 1, arguments("one", 12, &[]));
    let config = fs::read_to_string(session.path("one/config.toml")).unwrap();
    assert!(!config.contains("micro_batch_size"), "{config}");
}

#[test]
fn run_goes_on_with_any_number_of_processes() {
    const STEPS: usize = 30;
    let session = session();
    succeed(&session, 2, arguments("whole", STEPS, &[]));
    let mut draws = Draws::new("run_goes_on_with_any_number_of_processes");
    let (mut kills, mut longest) = (0, Duration::ZERO);
    let log = session.path("parts/metrics.jsonl");
    for (number, processes) in [2, 4, 1, 2, 4].into_iter().enumerate() {
        let sets: &[&str] = if processes == 1 { &[EIGHTHS] } else { &[] };
        let mut child = started(&mut mpirun(&session, &[(processes, arguments("parts", STEPS, sets))]));
        if reaches(&mut child, &log, 1 + 5 * number) {
            sleep(draws.up_to(Duration::from_millis(30)));
            if let Some(process) = process_of(&child, draws.below(processes)) {
                let killed = Instant::now();
                // It may have ended by itself.
                let _ = Command::new("kill").args(["-KILL", &process]).stderr(Stdio::null()).status().unwrap();
                let output = finished(child);
                longest = longest.max(killed.elapsed());
                kills += usize::from(!output.status.success());
                assert!(killed.elapsed() < SOON, "{:?} after the kill: {}", killed.elapsed(), stderr(&output));
                whole_checkpoints(&session.path("parts"));
                continue;
            }
        }
        finished(child);
    }
    assert!(kills > 2, "{kills} kills");
    figure("run_goes_on_with_any_number_of_processes", &format!("{kills} kills, the last end after {longest:?}"));
    // Threads of one process go on where processes were killed.
    alone(&session, &arguments("parts", STEPS, &["run.device=cpu,cpu"]));
    session.assert_same_run("parts", "whole", STEPS);
}

#[test]
fn signal_to_any_process_stops_all() {
    let session = session();
    for (rank, signal, code) in [(0, "-TERM", 143), (1, "-INT", 130)] {
        let run = format!("run-{rank}");
        let sets = ["checkpoint.every_steps=1000000"];
        let mut child = started(&mut mpirun(&session, &[(2, arguments(&run, 1_000_000, &sets))]));
        assert!(reaches(&mut child, &session.path(&run).join("metrics.jsonl"), 3));
        send(signal, &process_of(&child, rank).unwrap());
        let output = finished(child);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(count(&text, "stopped by a signal after step"), 1, "{text}");
        let steps = session.metrics(&run, "train").len() as u64;
        assert_eq!(whole_checkpoints(&session.path(&run)), [steps], "saved once");
    }
}

#[test]
fn process_that_hangs_is_left_behind() {
    let session = session();
    let mut child = started(&mut mpirun(&session, &[(2, arguments("run", 1_000_000, &[]))]));
    assert!(reaches(&mut child, &session.path("run/metrics.jsonl"), 12));
    let (waiting, hanging) = (process_of(&child, 0).unwrap(), process_of(&child, 1).unwrap());
    let stopped = Instant::now();
    send("-STOP", &hanging);
    sleep(Duration::from_secs(1));
    let before = ticks(&waiting);
    sleep(Duration::from_secs(8));
    let used = ticks(&waiting) - before;
    assert!(used < 100, "a rank that waits uses {used} of 800 ticks of a core");
    let output = finished(child);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("error: rank 1 (") && text.contains(", cpu): nothing was heard of its process for"),
        "{text}"
    );
    assert!(stopped.elapsed() < Duration::from_secs(90), "{:?}", stopped.elapsed());
    let steps = whole_checkpoints(&session.path("run"));
    assert!(steps.len() >= 2, "{steps:?}");
}

#[test]
fn error_of_a_process_ends_all() {
    let session = session();
    session.copy("train/images", "images");
    fs::copy(goldens("train/train.csv"), session.path("data.csv")).unwrap();
    for bad in ["03", "10", "17", "22"] {
        session.write(&format!("images/{bad}.png"), "no image");
    }
    let sets = ["data.train.csv.path=data.csv", "data.max_bad_fraction=0.1", "model.lock=UU"];
    let output = finished(started(&mut mpirun(&session, &[(2, arguments("run", 12, &sets))])));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(count(&text, "error: rank "), 1, "{text}");
    assert!(text.contains(", cpu): ") && text.contains("more than `data.max_bad_fraction` = 0.1 allows"), "{text}");
}

#[test]
fn processes_that_differ_do_not_train() {
    let session = session();
    let refused = |first: &[&str], second: &[&str], lines: usize| {
        let groups = [(1, arguments("run", 12, first)), (1, arguments("run", 12, second))];
        let output = finished(started(&mut mpirun(&session, &groups)));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(count(&text, "error: "), lines, "{text}");
        assert!(!session.path("run").exists(), "{text}");
        text
    };
    let text = refused(&[], &["train.batch_size=4", "run.seed=7"], 1);
    assert!(text.contains("error: rank 1 (") && text.contains(", cpu): it was started with another config"), "{text}");
    assert!(text.contains("`run.seed` is 7, on rank 0 1; `train.batch_size` is 4, on rank 0 8"), "{text}");
    // An error of the config of one process, and of both.
    let text = refused(&[], &["train.batch_size=0"], 1);
    assert!(text.contains("error: rank 1 (") && !text.contains("another process"), "{text}");
    assert!(text.contains("train.batch_size"), "{text}");
    let text = refused(&["train.batch_size=0"], &["train.batch_size=0"], 2);
    assert!(!text.contains("rank") && text.contains("train.batch_size"), "{text}");
    let text = refused(&["run.device=cpu,cpu,cpu"], &["run.device=cpu,cpu,cpu"], 1);
    assert!(text.contains("`run.device` lists 3 devices, and 2 processes were started on this machine"), "{text}");
    // What belongs to a machine may differ.
    let groups = [(1, arguments("run", 12, &["data.workers=1"])), (1, arguments("run", 12, &["run.threads=1"]))];
    let output = finished(started(&mut mpirun(&session, &groups)));
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Runs two processes, the second where `instead` is mounted in the place of `place`. `None` where nobody may mount,
/// as in `tests/disk.rs`.
fn with_other_files(session: &Session, arguments: &[String], instead: &str, place: &str) -> Option<Output> {
    if std::env::var_os("DUALENC_NO_MOUNT").is_some() {
        return None;
    }
    let mut command = mpirun(session, &[(1, arguments.to_vec())]);
    let script = format!("mount {instead} {place} && exec \"$0\" \"$@\"");
    command.args([":", "-n", "1", "unshare", "--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_dualenc")]);
    Some(finished(started(command.args(arguments))))
}

#[test]
fn processes_that_read_other_files_do_not_train() {
    let session = session();
    session.write("other.csv", fs::read_to_string(session.path("pairs.csv")).unwrap().replace("a ", "the "));
    let sets = ["data.train.csv.path=pairs.csv"];
    let Some(output) = with_other_files(&session, &arguments("run", 12, &sets), "--bind other.csv", "pairs.csv") else {
        return;
    };
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("error: rank 1 (") && text.contains("it reads other training data than rank 0"), "{text}");
    assert_eq!(session.metrics("run", "train").len(), 0);

    session.copy("train/init", "init");
    session.copy("train/init", "other");
    let weights = session.path("other/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    for byte in bytes.iter_mut().rev().take(40_000).step_by(4) {
        *byte ^= 1;
    }
    fs::write(&weights, bytes).unwrap();
    let sets = ["model.init=init", "model.lock=LL", "model.text_dropout=0"];
    let output = with_other_files(&session, &arguments("run", 12, &sets), "--bind other", "init").unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("error: rank 1 (") && text.contains("it reads other locked weights than rank 0"), "{text}");

    // An error of one process, which is not the first, is reported once and with its exit code.
    fs::create_dir(session.path("cache")).unwrap();
    let sets = ["model.lock=LU", "cache.dir=cache"];
    let output = with_other_files(&session, &arguments("run", 12, &sets), "-t tmpfs -o ro tmpfs", "cache").unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error: rank 1 (") && text.contains("cannot write `"), "{text}");
    assert_eq!(count(&text, "cannot write `"), 1, "{text}");
}

#[test]
fn launcher_of_another_mpi_is_refused() {
    let session = session();
    let command = || session.command(&["train", "--config", "lit.toml"]);
    // A launcher that this MPI does not know leaves each process alone.
    let output = finished(started(command().env("PMI_SIZE", "2")));
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("2 processes were started together (`PMI_SIZE` is set), and the MPI of this build knows of 1"),
        "{text}"
    );
    assert!(!session.path("run").exists());
}
