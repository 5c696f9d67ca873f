//! The exit code of each kind of error that a user can meet: 2 what the user can mend, 1 what may pass. 3 is in
//! `guards`, 130 and 143 are in `signals` and `resume`.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Session, goldens, stderr};

const TRAIN: [&str; 3] = ["train", "--config", "lit.toml"];

fn session() -> Session {
    let session = Session::new();
    session.write_config("");
    session
}

#[test]
fn input_errors_exit_with_2() {
    let session = session();
    session.succeed(&[&TRAIN[..], &["--set", "run.dir=done", "--set", "train.epochs=1"]].concat());
    session.write("bad.csv", "image,caption\n");
    session.write("columns.csv", "file,text\na.png,a\n");
    session.write("empty.txt", "");
    session.write("blank.txt", "a\n\nb\n");
    fs::create_dir(session.path("empty")).unwrap();
    let init = goldens("train/init");
    let init = init.to_str().unwrap();
    let images = goldens("train/images");
    let images = images.to_str().unwrap();
    let config = |set: &'static str| vec!["train", "--config", "lit.toml", "--set", set];
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["train"], "--config"),
        (vec!["train", "--config", "none.toml"], "none.toml"),
        (config("train.epoch=1"), "did you mean"),
        (config("train.batch_size=0"), "train.batch_size"),
        (config("run.device=tpu"), "devices of this build"),
        (config("data.train.csv.path=none.csv"), "none.csv"),
        (config("data.train.csv.path=bad.csv"), "bad.csv"),
        (config("data.train.csv.path=columns.csv"), "columns.csv"),
        (config("model.init=./none"), "none"),
        (config("run.dir=done"), "already holds a run"),
        (vec!["eval", "--model", "none", "--task", "retrieval", "--data", "bad.csv"], "bad.csv"),
        (vec!["eval", "--model", init, "--task", "zero-shot", "--images", "empty"], "empty"),
        (vec!["embed", "--model", init, "--out", "x.safetensors"], "nothing to embed"),
        (vec!["embed", "--model", init, "--images", "empty", "--out", "x.safetensors"], "has no images"),
        (vec!["embed", "--model", init, "--images", "none", "--out", "x.safetensors"], "none"),
        (vec!["embed", "--model", init, "--texts", "empty.txt", "--out", "x.safetensors"], "is empty"),
        (vec!["embed", "--model", init, "--texts", "blank.txt", "--out", "x.safetensors"], "line 2 is blank"),
        (vec!["embed", "--model", init, "--images", images, "--out", "empty"], "is a directory"),
        (vec!["export", "--model", init, "--out", "done"], "is not empty"),
        (vec!["inspect", "empty"], "empty"),
        (vec!["interpolate", "--model", init, "--alpha", "2"], "from 0 to 1"),
    ];
    for (arguments, expected) in cases {
        let text = session.fail(2, &arguments);
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    assert!(!session.path("x.safetensors").exists() && !session.path("run/metrics.jsonl").exists());
}

/// Runs a command in a shell that limits the size of files, in blocks of 1024 bytes, as a full disk would.
fn run_limited(session: &Session, blocks: u64, arguments: &[&str]) -> (Option<i32>, String) {
    let command = session.command(arguments);
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = std::process::Command::new("bash")
        .current_dir(session.path(""))
        .args(["-c", &script])
        .arg(command.get_program())
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), stderr(&output))
}

#[test]
fn full_disk_exits_with_1() {
    let session = session();
    let init = goldens("train/init");
    let init = init.to_str().unwrap();
    let texts: String = (0..3000).map(|line| format!("text {line}\n")).collect();
    session.write("texts.txt", texts);
    session.write("out/embeds.safetensors", "old");
    let cases: [&[&str]; 3] = [
        &["embed", "--model", init, "--texts", "texts.txt", "--out", "out/embeds.safetensors"],
        &["export", "--model", init, "--out", "out/hf"],
        &["eval", "--model", init, "--task", "retrieval", "--data", "pairs.csv", "--json", "/dev/full"],
    ];
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("pairs.csv", rows.replace("images/", &format!("{}/images/", goldens("train").display())));
    for arguments in cases {
        let (code, text) = run_limited(&session, 20, arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {text}");
        assert!(text.contains("error: cannot write `"), "{text}");
        assert_eq!(fs::read(session.path("out/embeds.safetensors")).unwrap(), b"old");
        assert_eq!(fs::read_dir(session.path("out")).unwrap().count(), 1, "{arguments:?} left files");
    }
    // stdout itself is full.
    let command = session.command(&["schema"]).stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(command.status.code(), Some(1), "{}", stderr(&command));
}

#[test]
fn unreachable_hub_exits_with_1() {
    let session = session();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for command in ["train", "check"] {
        let mut command = session.command(&[command, "--config", "lit.toml", "--set", "model.init=org/tiny"]);
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}")).env("HF_HOME", session.path("hf"));
        command.env_remove("HF_HUB_OFFLINE").env_remove("TRANSFORMERS_OFFLINE").env_remove("HF_HUB_CACHE");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("check the path, the network"), "{}", stderr(&output));
        command.env("HF_HUB_OFFLINE", "1");
        assert_eq!(command.output().unwrap().status.code(), Some(2));
    }
}

/// Standard output that nobody reads is no failure, wherever the reader stopped.
#[test]
fn closed_stdout_exits_with_0() {
    let session = session();
    for arguments in ["schema", "check --config lit.toml", "train --config lit.toml --log plain", "man"] {
        let program = session.command(&[]).get_program().to_owned();
        let output = std::process::Command::new("bash")
            .current_dir(session.path(""))
            .args(["-c", &format!("\"$0\" {arguments} | true; echo ${{PIPESTATUS[0]}}")])
            .arg(program)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"0\n", "{arguments}: {}", stderr(&output));
        assert!(!stderr(&output).contains("error") && !stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
    // Nor is a closed stderr.
    let mut command = session.command(&["train", "--config", "lit.toml", "--set", "run.dir=quiet"]);
    command.stderr(fs::File::create("/dev/full").unwrap()).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

#[test]
fn plain_lines_without_terminal() {
    let session = session();
    let output = session.run(&[&TRAIN[..], &["--set", "run.log_every_steps=3"]].concat());
    let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains(['\u{1b}', '\r']), "{text:?}");
    assert_eq!(text.lines().filter(|line| line.starts_with("step ") && line.contains("loss")).count(), 4, "{text}");
}

/// The lines of stderr, every one of which must be JSON with a level and a kind.
#[track_caller]
fn json_lines(session: &Session, code: i32, arguments: &[&str]) -> Vec<Value> {
    let output = session.run(&[arguments, &["--log", "json"]].concat());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["kind"].is_string()), "{text}");
    lines
}

#[test]
fn json_log_is_json_to_the_last_line() {
    let session = session();
    session.write_config("[eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\n");
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("pairs.csv", rows.replace("images/", &format!("{}/images/", goldens("train").display())));
    let lines = json_lines(&session, 0, &[&TRAIN[..], &["--set", "run.log_every_steps=5"]].concat());
    let of_kind = |lines: &[Value], kind: &str| -> Vec<Value> {
        lines.iter().filter(|line| line["kind"] == kind).cloned().collect()
    };
    let steps = of_kind(&lines, "train");
    assert_eq!(steps.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 10, 12]);
    for line in &steps {
        for name in ["loss", "chance_loss", "grad_norm", "image_spread", "text_spread", "learning_rate"] {
            assert!(line[name].is_f64(), "{name}: {line}");
        }
        assert!(line["grad_norms"]["text_tower"].is_f64(), "{line}");
    }
    let logged = session.metrics("run", "eval");
    let evals = of_kind(&lines, "eval");
    assert_eq!(evals.len(), logged.len());
    for (line, logged) in evals.iter().zip(&logged) {
        let recall = &line["metrics"]["text_retrieval_recall@1"];
        assert!(recall.is_f64() && *recall == logged["text_retrieval_recall@1"], "{line}");
    }
    let eval = json_lines(&session, 0, &["eval", "--config", "lit.toml"]);
    assert_eq!(of_kind(&eval, "eval").len() + of_kind(&eval, "error").len(), 0);

    for (code, arguments, expected) in [
        (2, vec!["train", "--config", "lit.toml", "--set", "train.epoch=1", "--set", "run.dri=x"], "did you mean"),
        (2, vec!["train", "--config", "none.toml"], "none.toml"),
        (2, vec!["train", "--config", "lit.toml"], "already holds a run"),
        (2, vec!["train"], "required arguments"),
        (2, vec!["nonsense"], "unrecognized subcommand"),
        (1, vec!["eval", "--config", "lit.toml", "--json", "/dev/full"], "cannot write `/dev/full`"),
    ] {
        let lines = json_lines(&session, code, &arguments);
        let last = lines.last().unwrap();
        assert_eq!((&last["level"], &last["exit_code"]), (&"ERROR".into(), &code.into()), "{arguments:?}: {last}");
        let message = last["message"].as_str().unwrap();
        assert!(message.contains(expected) && !message.starts_with("error"), "{arguments:?}: {message}");
    }
}
