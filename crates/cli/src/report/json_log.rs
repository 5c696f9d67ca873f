//! Progress and errors as JSON lines on stderr, one object per event. Each has `timestamp`, `level` and `kind`.

use std::error::Error;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use dualenc_train::Event;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::report::errors;

const INFO: &str = "INFO";
const WARN: &str = "WARN";
const ERROR: &str = "ERROR";

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Whether stderr is JSON.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::SeqCst)
}

/// Writes a note.
pub fn write_note(text: &str) {
    print(INFO, "note", json!({"text": text}));
}

/// Makes every line of stderr JSON: the messages of libraries, and panics too.
pub fn init() {
    let form = tracing_subscriber::fmt().json().flatten_event(true).with_writer(std::io::stderr).with_target(false);
    // Below warnings, the compiler of GPU kernels prints every kernel after every pass.
    form.with_max_level(tracing::Level::WARN).init();
    IS_ON.store(true, Ordering::SeqCst);
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        // A decoder's panic is caught, so this need not be the end.
        print(WARN, "panic", json!({"message": info.to_string()}));
    }));
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'a str,
    kind: &'a str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

fn print(level: &str, kind: &str, fields: Value) {
    let mut timestamp = String::new();
    // A clock that cannot be read leaves it empty.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let fields = match fields {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_owned(), other)]),
    };
    if let Ok(line) = serde_json::to_string(&Line { timestamp: &timestamp, level, kind, fields }) {
        // A closed stderr does not stop a run. One write, so that lines of several threads do not mix.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

/// Writes the error that ends the program.
pub fn write_error(error: &(dyn Error + 'static), exit_code: u8) {
    let text = errors::render(error, false);
    write_message(text.strip_prefix("error: ").unwrap_or(&text), exit_code);
}

/// Writes the message of the error that ends the program.
pub fn write_message(message: &str, exit_code: u8) {
    print(ERROR, "error", json!({"message": message.trim_end(), "exit_code": exit_code}));
}

/// Writes an event as one line, or as one line per part. NaN and infinite numbers are null.
pub fn write(event: &Event<'_>) {
    match event {
        Event::Note(text) => print(INFO, "note", json!({"text": text})),
        Event::Warning(text) => print(WARN, "warning", json!({"text": text})),
        Event::Audit { part, audit } => {
            let fields =
                json!({"part": part, "loaded": audit.loaded, "missing": audit.missing, "unused": audit.unused});
            print(INFO, "audit", fields);
        }
        Event::Parts(parts) => {
            for part in *parts {
                let fields = json!({
                    "group": part.name,
                    "trainable": part.trainable,
                    "locked": part.locked,
                    "learning_rates": part.rates,
                    "weight_decays": part.decays,
                });
                print(INFO, "parameters", fields);
            }
        }
        Event::Start { step, total_steps, steps_per_epoch } => {
            let fields = json!({"step": step, "total_steps": total_steps, "steps_per_epoch": steps_per_epoch});
            print(INFO, "start", fields);
        }
        Event::Step(record) => print(INFO, "train", json!(record)),
        Event::Skipped { image, of, .. } => {
            print(WARN, "skipped", json!({"image": image.key, "of": of, "reason": image.reason}));
        }
        Event::Work { name, done, total } => print(INFO, "work", json!({"name": name, "done": done, "total": total})),
        Event::Best(best) => {
            let fields = json!({"step": best.step, "metric": best.metric.to_string(), "value": best.value});
            print(INFO, "best", fields);
        }
        Event::Eval(record) => {
            let fields =
                json!({"step": record.step, "name": record.name, "task": record.task, "metrics": record.metrics});
            print(INFO, "eval", fields);
        }
        Event::Saved { path, took } => {
            print(INFO, "saved", json!({"path": path.display().to_string(), "secs": took.as_secs_f64()}));
        }
        _ => {}
    }
}
