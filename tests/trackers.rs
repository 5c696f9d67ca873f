//! TensorBoard's event file and `dualenc metrics`: both say what `metrics.jsonl` says, each step once. The reader below
//! shares no code with the writer; `scripts/check_trackers.py` reads the same with TensorBoard and MLflow themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::{Session, goldens, stderr};

/// 3 of an epoch, 4 epochs.
const STEPS: usize = 12;

const TRAIN: [&str; 6] = ["train", "--config", "lit.toml", "--resume", "--set", "run.tensorboard=true"];

/// An evaluation every third step, a checkpoint every other.
fn session() -> Session {
    let session = Session::new();
    session.write_config(&format!(
        "[checkpoint]\nevery_steps = 2\nkeep = 100\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = {:?}\nevery_steps = 3\n",
        goldens("train/train.csv"),
    ));
    session
}

/// CRC-32C, bit by bit (RFC 3720, reflected polynomial 0x82f63b78), masked as in TFRecord.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The messages of an event file up to the first incomplete one, and how many bytes follow. Panics at a wrong checksum.
fn records(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut found, mut rest) = (Vec::new(), bytes);
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    while rest.len() >= 12 {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(u32_at(rest, 8), masked_crc(&rest[..8]), "checksum of the length of record {}", found.len());
        if rest.len() < 16 + length {
            break;
        }
        let message = &rest[12..12 + length];
        assert_eq!(u32_at(rest, 12 + length), masked_crc(message), "checksum of record {}", found.len());
        found.push(message);
        rest = &rest[16 + length..];
    }
    (found, rest.len())
}

/// The fields of a protocol buffer: their numbers, and their bytes without the length.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut message) as usize,
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, message[..length].to_vec()));
        message = &message[length..];
    }
    found
}

fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
    fields(message).into_iter().find(|(found, _)| *found == number).map(|(_, bytes)| bytes)
}

/// The scalars of an event file by tag and step, with their wall times.
type Scalars = BTreeMap<(String, u64), (u32, u64)>;

/// What an event file says.
#[derive(Default)]
struct Events {
    scalars: Scalars,
    /// Texts by tag.
    texts: BTreeMap<String, String>,
    /// Tags of hyperparameters.
    hyperparameters: Vec<String>,
    /// Whether the file ends with an incomplete record.
    is_torn: bool,
}

/// Reads the one event file in `dir` that is not empty. Panics if a point stands there twice.
#[track_caller]
fn events(dir: &Path) -> Events {
    let files = event_files(dir);
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = fs::read(&files[0]).unwrap();
    let (records, rest) = records(&bytes);
    assert_eq!(field(records[0], 3).unwrap(), b"brain.Event:2");
    assert_eq!(field(&field(records[1], 7).unwrap(), 1).unwrap()[0], 1, "the start makes earlier files void");
    assert_eq!(field(records[1], 2), None, "from step 0 on");
    let mut events = Events { is_torn: rest > 0, ..Events::default() };
    for record in &records[2..] {
        let step = field(record, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
        let time = u64::from_le_bytes(field(record, 1).unwrap().try_into().unwrap());
        for (_, value) in fields(&field(record, 5).unwrap()) {
            let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
            let plugin = field(&value, 9).and_then(|metadata| field(&field(&metadata, 1)?, 1));
            match plugin.as_deref() {
                None => {
                    let bits = u32::from_le_bytes(field(&value, 2).unwrap().try_into().unwrap());
                    let old = events.scalars.insert((tag.clone(), step), (bits, time));
                    assert_eq!(old, None, "{tag} of step {step} stands there twice");
                }
                Some(b"text") => {
                    let text = field(&field(&value, 8).unwrap(), 8).unwrap();
                    events.texts.insert(tag, String::from_utf8(text).unwrap());
                }
                Some(b"hparams") => events.hyperparameters.push(tag),
                Some(other) => panic!("{other:?}"),
            }
        }
    }
    events
}

/// The event files in `dir` that are not empty.
fn event_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_str().unwrap().contains("tfevents"));
    files.filter(|path| fs::metadata(path).unwrap().len() > 0).collect()
}

/// What the event file of the log has to say.
fn expected(session: &Session, run: &str) -> Scalars {
    let mut scalars = Scalars::new();
    let bits = |value: &Value| value.as_f64().map_or(f32::NAN, |value| value as f32).to_bits();
    for line in [session.metrics(run, "train"), session.metrics(run, "eval")].concat() {
        let time = line["time"].as_f64().unwrap().to_bits();
        let (step, kind) = (line["step"].as_u64().unwrap(), line["kind"].as_str().unwrap());
        let prefix = if kind == "eval" { "eval/pairs" } else { kind };
        for (key, value) in line.as_object().unwrap() {
            match (key.as_str(), value) {
                ("step" | "time", _) | (_, Value::String(_)) => {}
                ("grad_norms", value) => {
                    for (part, value) in value.as_object().unwrap() {
                        scalars.insert((format!("train/grad_norms/{part}"), step), (bits(value), time));
                    }
                }
                (key, Value::Array(ends)) => {
                    for (end, value) in ["low", "high"].iter().zip(ends) {
                        let tag = format!("eval_ci95/pairs/{}_{end}", key.strip_suffix("_ci95").unwrap());
                        scalars.insert((tag, step), (bits(value), time));
                    }
                }
                (key, value) => drop(scalars.insert((format!("{prefix}/{key}"), step), (bits(value), time))),
            }
        }
    }
    scalars
}

#[track_caller]
fn assert_equals_log(session: &Session, run: &str) -> Events {
    let (found, expected) = (events(&session.path(run)), expected(session, run));
    assert!(expected.len() > 12 * STEPS, "{} points", expected.len());
    assert_eq!(found.scalars.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert_eq!(found.scalars, expected);
    assert!(!found.is_torn);
    found
}

#[test]
fn event_file_equals_the_log() {
    let session = session();
    session.succeed(&TRAIN);
    let found = assert_equals_log(&session, "run");
    for tag in ["train/loss", "train/logit_scale", "train/loader_wait", "eval/pairs/image_retrieval_recall@5"] {
        assert!(found.scalars.contains_key(&(tag.to_owned(), STEPS as u64)), "{tag}");
    }
    assert!(found.scalars.contains_key(&("eval_ci95/pairs/image_retrieval_recall@1_low".to_owned(), 0)));
    assert!(found.texts["config"].contains("    learning_rate = 0.001\n"), "{:?}", found.texts);
    assert_eq!(found.hyperparameters, ["_hparams_/session_start_info"]);
    // A run without the key has none.
    session.succeed(&["train", "--config", "lit.toml", "--set", "run.dir=plain"]);
    assert_eq!(event_files(&session.path("plain")), Vec::<PathBuf>::new());
}

#[test]
fn killed_run_leaves_a_readable_file() {
    let session = session();
    let train = [&TRAIN[..], &["--set", "train.epochs=20"]].concat();
    let mut kills = 0;
    for lines in [2, 20, 50] {
        kills += usize::from(session.kill_after_lines(&train, "run", lines, Duration::from_millis(3)));
        let path = session.path("run/metrics.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..=text.rfind('\n').unwrap()]).unwrap();
        // Reads it, with every checksum.
        let (found, log) = (events(&session.path("run")), expected(&session, "run"));
        let extra: Vec<_> = found.scalars.iter().filter(|(point, value)| log.get(*point) != Some(*value)).collect();
        assert!(extra.is_empty(), "{extra:?} are not in the log");
        let missing = log.iter().filter(|(point, _)| !found.scalars.contains_key(*point));
        let lines: BTreeSet<(u64, u64)> = missing.map(|((_, step), (_, time))| (*step, *time)).collect();
        assert!(lines.len() <= 1, "more than the last line is missing: {lines:?}");
    }
    assert!(kills >= 2, "{kills} kills");
    session.succeed(&train);
    assert_equals_log(&session, "run");
    assert_eq!(session.metrics("run", "train").len(), 5 * STEPS);
}

#[test]
fn resume_writes_the_event_file_anew() {
    let session = session();
    session.succeed(&TRAIN);
    let first = event_files(&session.path("run"));
    let losses = |events: &Events| events.scalars.keys().filter(|(tag, _)| tag == "train/loss").count();

    // From an older checkpoint: what came after it is gone, and computed again.
    for step in ["000010", "000012"] {
        fs::remove_dir_all(session.path(&format!("run/checkpoints/step-{step}"))).unwrap();
    }
    session.succeed(&TRAIN);
    assert_eq!(losses(&assert_equals_log(&session, "run")), STEPS);
    let second = event_files(&session.path("run"));
    assert!(second > first, "the later file has the later name: {first:?}, {second:?}");
    assert_eq!(fs::metadata(&first[0]).unwrap().len(), 0, "readers wait for a file that disappears");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    File::options().write(true).open(&first[0]).unwrap().set_modified(long_ago).unwrap();

    // Damaged, deleted, or never written: the next resume makes it whole.
    fs::write(&second[0], b"damaged").unwrap();
    session.succeed(&TRAIN);
    assert_equals_log(&session, "run");
    assert!(!first[0].exists(), "an empty file is removed when no reader can wait for it");
    fs::remove_file(&event_files(&session.path("run"))[0]).unwrap();
    session.succeed(&TRAIN);
    assert_equals_log(&session, "run");
}

#[test]
fn tracking_may_begin_in_mid_run() {
    let session = session();
    let short = ["train", "--config", "lit.toml", "--set", "train.schedule=constant", "--set", "train.epochs=2"];
    session.succeed(&short);
    let output = session.run(&[&TRAIN[..], &["--set", "train.schedule=constant"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert_equals_log(&session, "run");
}

#[test]
fn lost_event_file_ends_no_run() {
    let session = session();
    let arguments = [&TRAIN[..], &["--set", "train.epochs=40", "--set", "train.schedule=constant"]].concat();
    let child = session.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::metadata(session.path("run/metrics.jsonl")).map_or(0, |file| file.len()) < 400 {
        assert!(Instant::now() < deadline, "no step within a minute");
        sleep(Duration::from_millis(2));
    }
    fs::remove_file(&event_files(&session.path("run"))[0]).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("TensorBoard shows no further step").count(), 1, "{text}");
}

#[test]
fn metrics_are_written_for_other_programs() {
    let session = session();
    session.succeed(&["train", "--config", "lit.toml"]);
    let log = expected(&session, "run");
    let number = |tag: &str, step: u64| f32::from_bits(log[&(tag.to_owned(), step)].0);

    let csv = session.succeed(&["metrics", "run"]);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), &rows[0][..2]), (1 + 1 + STEPS, &["step", "time"][..]));
    let column = |tag: &str| rows[0].iter().position(|name| *name == tag).unwrap();
    for row in &rows[1..] {
        assert_eq!(row.len(), rows[0].len());
        let step: u64 = row[0].parse().unwrap();
        let cell = |tag: &str| row[column(tag)].parse::<f64>().ok().map(|value| value as f32);
        assert_eq!(cell("train/loss"), (step > 0).then(|| number("train/loss", step)));
        let recall = "eval/pairs/text_retrieval_recall@1";
        assert_eq!(cell(recall), step.is_multiple_of(3).then(|| number(recall, step)));
    }
    let lines = session.succeed(&["metrics", "run", "--format", "jsonl", "--out", "m.jsonl"]);
    assert_eq!(lines, "wrote m.jsonl\n");
    let lines = fs::read_to_string(session.path("m.jsonl")).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!((&last["step"], last["train/loss"].as_f64().unwrap() as f32), (&12.into(), number("train/loss", 12)));

    // The same points as in the event file that a run writes.
    for _ in 0..2 {
        session.succeed(&["metrics", "run", "--format", "tensorboard", "--out", "tb"]);
        assert_eq!(events(&session.path("tb")).scalars, log);
    }

    // A second export of a run replaces the first, another run stands beside it.
    session.succeed(&["train", "--config", "lit.toml", "--set", "run.dir=other", "--set", "train.epochs=1"]);
    for run in ["run", "run", "other"] {
        session.succeed(&["metrics", run, "--format", "mlflow", "--out", "mlruns"]);
    }
    let dirs = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    };
    let [experiment] = dirs(&session.path("mlruns")).try_into().unwrap();
    let runs = dirs(&experiment);
    assert_eq!(runs.len(), 2, "{runs:?}");
    let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let run = runs.iter().find(|dir| read(dir, "tags/mlflow.runName") == "run").unwrap();
    let meta = read(run, "meta.yaml");
    assert!(meta.contains("\nstatus: 3\n") && meta.contains("\nrun_name: 'run'\n"), "{meta}");
    assert_eq!(read(run, "params/train.batch_size"), "8");
    let losses = read(run, "metrics/train/loss");
    let losses: Vec<Vec<&str>> = losses.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(losses.len(), STEPS);
    assert_eq!((losses[4][2], losses[4][1].parse::<f64>().unwrap() as f32), ("5", number("train/loss", 5)));
    let time = f64::from_bits(log[&("train/loss".to_owned(), 5)].1);
    assert_eq!(losses[4][0], format!("{:.0}", time * 1e3), "milliseconds");
    assert!(run.join("metrics/eval/pairs/image_retrieval_recall_at_5").is_file());
}

#[test]
fn damaged_logs_are_exported_as_far_as_they_go() {
    let session = Session::new();
    session.write("run/config.toml", "");
    let line = "{\"kind\":\"train\",\"step\":1,\"loss\":2.5}\n";
    session.write("run/metrics.jsonl", format!("{line}oops\n{}{{\"kind\":\"tr", line.replace(":1", ":2")));
    let output = session.run(&["metrics", "run", "--format", "jsonl"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 line of `run/metrics.jsonl` cannot be read"), "{}", stderr(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap().matches("\"train/loss\":2.5").count(), 2);

    for format in ["tensorboard", "mlflow"] {
        assert!(session.fail(2, &["metrics", "run", "--format", format]).contains("--out DIR"));
    }
    session.write("run/metrics.jsonl", "");
    assert!(session.fail(2, &["metrics", "run"]).contains("has no metrics yet"));
    assert!(session.fail(2, &["metrics", "nowhere"]).contains("`nowhere` does not exist"));
    session.write_config("");
    let config = fs::read_to_string(session.path("lit.toml")).unwrap();
    session.write("run/config.toml", config.replace("[run]\n", "[run]\ntensorboard = true\n"));
    session.write("run/metrics.jsonl", line);
    let error = session.fail(2, &["metrics", "run", "--format", "tensorboard", "--out", "run"]);
    assert!(error.contains("name another directory"), "{error}");
}
