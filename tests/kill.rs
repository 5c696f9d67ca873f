//! SIGKILL, SIGINT and SIGTERM at random moments, and a crash at each point inside a save: nothing that was saved is
//! lost, nothing is half-written, and the resumed run ends with the bits of the uninterrupted one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::soak::{
    Draws, Outcome, copy_run, figure, log_lines, outcome, scaled, send_signal, wait_while_running, whole_checkpoints,
};
use crate::support::{Session, goldens, stderr};

/// 4 of an epoch, 15 epochs.
const STEPS: u64 = 60;

/// Averaged weights, a locked image tower with a cache, and two evaluations every third step, of which one selects the
/// best checkpoint.
fn session() -> Session {
    let session = Session::new();
    session.write_config(
        "ema_decay = 0.9\n[checkpoint]\nevery_steps = 7\nkeep = 2\nbest = \"pairs.image_retrieval_recall@5\"\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"data.csv\"\nevery_steps = 3\n\
         [eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\nevery_steps = 3\n",
    );
    session.copy("train/images", "images");
    session.write("data.csv", fs::read(goldens("train/train.csv")).unwrap());
    for (class, image) in [("one", "00.png"), ("one", "01.png"), ("two", "02.png"), ("two", "05.png")] {
        session.write(&format!("classes/{class}/{image}"), fs::read(session.path("images").join(image)).unwrap());
    }
    session
}

fn arguments<'a>(command: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    let always = [
        "data.train.csv.path=data.csv",
        "data.shuffle=true",
        "model.lock=LU",
        "model.text_dropout=0.2",
        "train.epochs=15",
        "train.batch_size=5",
    ];
    let mut arguments = vec![command, "--config", "lit.toml"];
    arguments.extend(always.iter().chain(sets).flat_map(|set| ["--set", *set]));
    arguments.extend((command == "train").then_some("--resume"));
    arguments
}

/// The outcome of a run that never stops.
fn uninterrupted(session: &Session) -> Outcome {
    session.succeed(&arguments("train", &["run.dir=whole", "cache.dir=cache-whole", "checkpoint.keep=100"]));
    let whole = outcome(session, "whole", STEPS);
    // Two evaluations run before the first step, too.
    assert_eq!(whole.metrics.len(), 60 + 40 + 2);
    assert_eq!(whole.files.len(), 3);
    whole
}

fn spawn(session: &Session, arguments: &[&str]) -> Child {
    session.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn random_kills_lose_nothing() {
    let session = session();
    let whole = uninterrupted(&session);
    let start_up = {
        let started = Instant::now();
        let mut child = spawn(&session, &arguments("train", &["run.dir=timed", "cache.dir=cache-timed"]));
        wait_while_running(&mut child, || log_lines(&session.path("timed")) > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        started.elapsed()
    };
    let mut draws = Draws::new("random_kills_lose_nothing");
    let (wanted, mut kills, mut runs) = (scaled(40), 0, 0);
    while kills < wanted {
        runs += 1;
        let (run, cache) = (format!("run.dir=run-{runs}"), format!("cache.dir=cache-{runs}"));
        let arguments = arguments("train", &[&run, &cache]);
        let dir = session.path(&format!("run-{runs}"));
        let mut newest = 0;
        while kills < wanted {
            let mut child = spawn(&session, &arguments);
            // A third of the kills hit the start: the cache fills then, and a resume cuts the log.
            let delay = if draws.below(3) == 0 {
                draws.up_to(start_up)
            } else {
                let lines = log_lines(&dir) + 1 + draws.below(25);
                wait_while_running(&mut child, || log_lines(&dir) >= lines);
                draws.up_to(Duration::from_millis(20))
            };
            sleep(delay);
            let _ = child.kill();
            let status = child.wait().unwrap();
            let found = whole_checkpoints(&dir).last().copied().unwrap_or(0);
            assert!(found >= newest, "run {runs}: step {newest} was saved, step {found} is the newest after a kill");
            newest = found;
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(9), "{status}");
            kills += 1;
        }
        session.succeed(&arguments);
        outcome(&session, &format!("run-{runs}"), STEPS).assert_same(&whole, &format!("run {runs}"));
        fs::remove_dir_all(dir).unwrap();
    }
    figure("random_kills_lose_nothing", &format!("{kills} kills in {runs} runs, 0 lost, 0 corrupt, 0 differing"));
}

#[test]
fn crashes_inside_saves_lose_nothing() {
    const POINTS: [&str; 13] = [
        "before_model.safetensors",
        "inside_model.safetensors",
        "before_optimizer.safetensors",
        "inside_optimizer.safetensors",
        "before_ema.safetensors",
        "inside_ema.safetensors",
        "before_config.toml",
        "inside_config.toml",
        "before_manifest.json",
        "before_rename",
        "after_rename",
        "while_pruning",
        "inside_manifest.json",
    ];
    let session = session();
    let whole = uninterrupted(&session);
    let mut draws = Draws::new("crashes_inside_saves_lose_nothing");
    let starts: Vec<u64> = whole_checkpoints(&session.path("whole")).into_iter().filter(|step| *step < 56).collect();
    let mut crashes = 0;
    for (point, round) in POINTS.into_iter().flat_map(|point| (0..scaled(1)).map(move |round| (point, round))) {
        let name = format!("{point}-{round}");
        let dir = session.path(&name);
        // At the first save of a run, and at the next save after one of its checkpoints.
        let start = if draws.below(4) == 0 { 0 } else { starts[draws.below(starts.len())] };
        if start > 0 {
            copy_run(&session.path("whole"), &dir, start, 2);
        }
        let run = format!("run.dir={name}");
        let arguments = arguments("train", &[&run, "cache.dir=cache-whole"]);
        let output = session.command(&arguments).env("DUALENC_FAIL_AT", point).output().unwrap();
        assert_eq!(output.status.signal(), Some(6), "{point} was not reached: {}", stderr(&output));
        let newest = whole_checkpoints(&dir).last().copied().unwrap_or(0);
        assert!(newest >= start, "{point}: step {start} was saved, step {newest} is the newest");
        session.succeed(&arguments);
        outcome(&session, &name, STEPS).assert_same(&whole, &name);
        let names = fs::read_dir(dir.join("checkpoints")).unwrap();
        let names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| name.starts_with("step-") && !name.contains("tmp")), "{point}: {names:?}");
        assert!(names.len() <= 3, "{point}: two of the newest and the best, not {names:?}");
        fs::remove_dir_all(dir).unwrap();
        crashes += 1;
    }
    figure("crashes_inside_saves_lose_nothing", &format!("{crashes} crashes at {} points, 0 lost", POINTS.len()));
}

#[test]
fn signals_stop_after_the_step() {
    let session = session();
    let whole = uninterrupted(&session);
    let mut draws = Draws::new("signals_stop_after_the_step");
    let (mut slowest, count) = (Duration::ZERO, scaled(6));
    let (mut most_steps, mut second) = (0, 0);
    for round in 0..count {
        let name = format!("signal-{round}");
        let run = format!("run.dir={name}");
        let dir = session.path(&name);
        let arguments = arguments("train", &[&run, "cache.dir=cache-whole"]);
        let mut child = session.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = 1 + draws.below(60);
        assert!(wait_while_running(&mut child, || log_lines(&dir) >= lines), "{name} ended early");
        let (signal, code) = [("INT", 130), ("TERM", 143)][round as usize % 2];
        send_signal(&child, signal);
        let (sent, step) = (Instant::now(), steps_logged(&session, &name));
        // The second signal of a kind ends the process at once; it may be over already.
        let twice = draws.below(4) == 0;
        if twice && child.try_wait().unwrap().is_none() {
            send_signal(&child, signal);
            second += 1;
        }
        let output = child.wait_with_output().unwrap();
        slowest = slowest.max(sent.elapsed());
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        // The step that was running ends, and one more if the signal came between two.
        let more = steps_logged(&session, &name) - step;
        most_steps = most_steps.max(more);
        assert!(more <= 2, "{name}: {more} more steps after the signal");
        let saved = whole_checkpoints(&dir);
        if !twice {
            assert_eq!(saved.last().copied(), Some(steps_logged(&session, &name) as u64), "{name}");
            assert!(stderr(&output).contains("use `--resume` to continue"), "{}", stderr(&output));
        }
        session.succeed(&arguments);
        outcome(&session, &name, STEPS).assert_same(&whole, &name);
        fs::remove_dir_all(dir).unwrap();
    }
    figure(
        "signals_stop_after_the_step",
        &format!("{count} signals, {second} twice, at most {most_steps} more steps, slowest stop {slowest:.1?}"),
    );
}

/// Complete training lines.
fn steps_logged(session: &Session, run: &str) -> usize {
    let text = fs::read_to_string(session.path(run).join("metrics.jsonl")).unwrap();
    text.split_inclusive('\n').filter(|line| line.starts_with("{\"kind\":\"train\"") && line.ends_with('\n')).count()
}

/// The files below `dir` that are not temporary.
fn visible_files(dir: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
    let files = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_file());
    let files = files.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    files.filter(|(name, _)| !name.contains(".tmp-")).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[test]
fn killed_commands_leave_whole_files() {
    let session = session();
    session.succeed(&arguments("train", &["run.dir=whole", "cache.dir=cache-whole"]));
    session.write("old.txt", "an old text\n");
    session.write("texts.txt", "a red circle\na green square on grey\n".repeat(40));
    let embed = |texts: &'static str, out: &'static str| {
        ["embed", "--model", "whole", "--images", "images", "--texts", texts, "--out", out]
    };
    session.succeed(&embed("old.txt", "x.safetensors"));
    let old = fs::read(session.path("x.safetensors")).unwrap();
    let started = Instant::now();
    session.succeed(&embed("texts.txt", "new.safetensors"));
    let embedding = started.elapsed();
    let new = fs::read(session.path("new.safetensors")).unwrap();
    assert!(old.len() < new.len());
    let started = Instant::now();
    session.succeed(&["export", "--model", "whole", "--out", "hf"]);
    let exporting = started.elapsed();
    let exported = visible_files(&session.path("hf"));
    assert!(exported.len() >= 4, "{:?}", exported.keys());
    let started = Instant::now();
    session.succeed(&arguments("cache", &["cache.dir=cache-timed"]));
    let caching = started.elapsed();

    let mut draws = Draws::new("killed_commands_leave_whole_files");
    let (mut kills, rounds) = (BTreeMap::<&str, u64>::new(), scaled(5));
    let mut kill = |name, mut child: Child, delay| {
        sleep(delay);
        let _ = child.kill();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{name}: {status}");
        *kills.entry(name).or_default() += u64::from(!status.success());
    };
    for round in 0..rounds {
        fs::write(session.path("x.safetensors"), &old).unwrap();
        let child = spawn(&session, &embed("texts.txt", "x.safetensors"));
        kill("embed", child, draws.up_to(embedding));
        let found = fs::read(session.path("x.safetensors")).unwrap();
        assert!(found == old || found == new, "embed left {} bytes", found.len());

        let out = format!("hf-{round}");
        kill("export", spawn(&session, &["export", "--model", "whole", "--out", &out]), draws.up_to(exporting));
        for (name, bytes) in visible_files(&session.path(&out)) {
            assert!(exported.get(&name) == Some(&bytes), "export left {} bytes of {name}", bytes.len());
        }
        // One cache for all rounds: each process finds what the killed ones left.
        let cache = arguments("cache", &["cache.dir=cache-killed"]);
        kill("cache", spawn(&session, &cache), draws.up_to(caching));
    }
    session.succeed(&embed("texts.txt", "x.safetensors"));
    assert!(fs::read(session.path("x.safetensors")).unwrap() == new);
    session.succeed(&["export", "--model", "whole", "--out", "hf-last"]);
    assert!(visible_files(&session.path("hf-last")) == exported);
    session.succeed(&arguments("train", &["run.dir=after", "cache.dir=cache-killed"]));
    outcome(&session, "after", STEPS).assert_same(&outcome(&session, "whole", STEPS), "a cache that was killed");
    figure("killed_commands_leave_whole_files", &format!("kills: {kills:?}, 0 half-written files"));
}
