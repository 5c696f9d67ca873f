//! The first SIGINT or SIGTERM stops every long command, with its exit code and no half-written file. What a killed
//! command leaves harms nothing.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Session, floats, goldens};

/// Turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// Enough images that a command is not done when its first progress message is read.
const IMAGES: usize = 3000;

/// Enough rows of a table that a command that reads it is not done when that is seen.
#[cfg(target_os = "linux")]
const ROWS: usize = 1_000_000;

/// A session with many different images in `many`, and their captions in `many.csv`.
fn session() -> Session {
    let session = Session::new();
    session.write_config("[eval.pairs]\ntask = \"retrieval\"\ndata = \"many.csv\"\n");
    let image = fs::read(goldens("train/images/00.png")).unwrap();
    fs::create_dir(session.path("many")).unwrap();
    for number in 0..IMAGES {
        // Bytes after the end of a PNG make it another file with the same pixels.
        let bytes = [&image[..], number.to_string().as_bytes()].concat();
        fs::write(session.path(&format!("many/{number:05}.png")), bytes).unwrap();
    }
    let rows: String = (0..IMAGES).map(|number| format!("many/{number:05}.png,caption {number}\n")).collect();
    session.write("many.csv", format!("image,caption\n{rows}"));
    session
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap().success());
}

fn wait(child: &mut Child) -> i32 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("{status}"));
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running {DEADLINE:?} after the signal");
        }
        sleep(Duration::from_millis(5));
    }
}

/// Runs a command until its first message about work, sends `signal`, and returns the exit code. Every line of stderr
/// must be JSON.
fn stop_at_work(session: &Session, arguments: &[&str], signal: &str) -> i32 {
    let mut command = session.command(&[arguments, &["--log", "json"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let parsed = |line: String| serde_json::from_str::<Value>(&line).unwrap_or_else(|_| panic!("{line}"));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line: &Value| line["kind"] != "work") {
        seen.push(parsed(lines.next().unwrap_or_else(|| panic!("no work: {seen:?}")).unwrap()));
    }
    send(signal, &child);
    let rest: Vec<Value> = lines.map(|line| parsed(line.unwrap())).collect();
    let code = wait(&mut child);
    let last = rest.last().unwrap_or_else(|| panic!("exit code {code}: {seen:?}"));
    assert!(last["text"].as_str().is_some_and(|text| text.starts_with("stopped by a signal")), "{last}");
    let done = rest.iter().rfind(|line| line["kind"] == "work").map_or(0, |line| line["done"].as_u64().unwrap());
    assert!(done < IMAGES as u64, "it went on to the end");
    code
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn first_signal_stops_embed_and_eval() {
    let session = session();
    let model = goldens("train/init");
    let model = model.to_str().unwrap();
    session.write("out/old.safetensors", "old");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let embed = ["embed", "--model", model, "--images", "many", "--raw", "--out", "out/old.safetensors"];
        assert_eq!(stop_at_work(&session, &embed, signal), code);
        assert_eq!(names(&session.path("out")), ["old.safetensors"]);
        assert_eq!(fs::read(session.path("out/old.safetensors")).unwrap(), b"old");
        let eval =
            ["eval", "--model", model, "--task", "retrieval", "--data", "many.csv", "--json", "out/metrics.json"];
        assert_eq!(stop_at_work(&session, &eval, signal), code);
        assert_eq!(names(&session.path("out")), ["old.safetensors"]);
    }
}

#[test]
fn first_signal_stops_interpolate_and_cache() {
    let session = session();
    session.succeed(&["train", "--config", "lit.toml", "--set", "eval={}", "--set", "train.epochs=1"]);
    let init = goldens("train/init");
    let interpolate = [
        "interpolate",
        "--model",
        "run",
        "--base",
        init.to_str().unwrap(),
        "--alpha",
        "0,1",
        "--config",
        "lit.toml",
        "--json",
        "metrics.json",
    ];
    assert_eq!(stop_at_work(&session, &interpolate, "INT"), 130);
    assert!(!session.path("metrics.json").exists());

    let set = ["--set", "model.lock=LL", "--set", "cache.dir=cache"];
    let cache = [&["cache", "--config", "lit.toml"][..], &set].concat();
    assert_eq!(stop_at_work(&session, &cache, "TERM"), 143);
    let done = session.succeed(&cache);
    assert!(done.contains("already there") && !done.contains(" 0 already there; "), "{done}");
}

/// While data and models are read, nothing has to be put in order.
#[cfg(target_os = "linux")]
#[test]
fn signal_ends_check_while_it_reads() {
    let session = Session::new();
    session.write_config("");
    let rows: String = (0..ROWS).map(|row| format!("{row}.png,caption {row}\n")).collect();
    session.write("data.csv", format!("image,caption\n{rows}"));
    let table = fs::canonicalize(session.path("data.csv")).unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = session.command(&["check", "--config", "lit.toml", "--set", "data.train.csv.path=data.csv"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let open_files = format!("/proc/{}/fd", child.id());
        let opens = |file: &fs::DirEntry| fs::read_link(file.path()).is_ok_and(|target| target == table);
        let deadline = Instant::now() + DEADLINE;
        while !fs::read_dir(&open_files).unwrap().flatten().any(|file| opens(&file)) {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it does not read its data");
            sleep(Duration::from_millis(1));
        }
        send(signal, &child);
        assert_eq!(wait(&mut child), code);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    }
}

#[test]
fn killed_embed_and_export_leave_no_harm() {
    let session = session();
    let model = goldens("train/init");
    let model = model.to_str().unwrap();
    session.write("texts.txt", (0..2000).map(|line| format!("text {line}\n")).collect::<String>());
    let embed = ["embed", "--model", model, "--texts", "texts.txt", "--out", "out/embeds.safetensors"];
    let export = ["export", "--model", model, "--out", "out/hf"];
    fs::create_dir(session.path("out")).unwrap();
    for (arguments, target) in [(&embed[..], "embeds.safetensors"), (&export, "hf")] {
        for delay in 0..6 {
            let mut child = session.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let deadline = Instant::now() + DEADLINE;
            // The first file that it writes is its temporary one.
            while names(&session.path("out")).is_empty() && child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "it wrote nothing");
                sleep(Duration::from_millis(1));
            }
            sleep(Duration::from_millis(delay * 3));
            child.kill().unwrap();
            child.wait().unwrap();
            let found = names(&session.path("out"));
            let is_whole = match (found.contains(&target.to_owned()), target) {
                (true, "hf") => session.path("out/hf/config.json").exists(),
                (true, _) => floats(&session.path("out/embeds.safetensors"), "text_embeds").len() == 2000 * 24,
                (false, _) => found.iter().all(|name| name.starts_with(&format!(".{target}.tmp-"))),
            };
            assert!(is_whole, "{target}: {found:?}");
            if target == "hf" {
                let _ = fs::remove_dir_all(session.path("out/hf"));
            }
        }
        session.succeed(arguments);
        assert_eq!(names(&session.path("out")), [target]);
        let path = session.path(&format!("out/{target}"));
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// Starts a run of slow steps, and returns it with its stderr after the first step.
fn slow_run(session: &Session) -> (Child, impl Iterator<Item = Value>) {
    let sets = ["train.epochs=100000", "run.log_every_steps=1", "checkpoint.every_steps=1000000"];
    let mut arguments = vec!["train", "--config", "lit.toml", "--log", "json", "--resume"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let mut child = session.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert!(lines.any(|line| line["kind"] == "train"));
    (child, lines)
}

#[test]
fn repeated_signal_still_saves() {
    // `timeout` and job schedulers signal a process, and then its group.
    for signals in [["INT", "INT"], ["TERM", "TERM"]] {
        let session = Session::new();
        session.write_config("[checkpoint]\nkeep = 1\n");
        let (mut child, lines) = slow_run(&session);
        signals.iter().for_each(|signal| send(signal, &child));
        let rest: Vec<Value> = lines.collect();
        let code = wait(&mut child);
        assert_eq!(code, if signals[0] == "INT" { 130 } else { 143 });
        let last = rest.last().unwrap();
        assert!(last["text"].as_str().is_some_and(|text| text.starts_with("stopped by a signal after step")), "{last}");
        assert_eq!(fs::read_dir(session.path("run/checkpoints")).unwrap().count(), 1);
    }
}
