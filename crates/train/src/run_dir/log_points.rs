//! The numbers of `metrics.jsonl` under the names that trackers show them by, such as `train/loss` and
//! `eval/held/acc1`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Map, Value};

use crate::error::TrainError;

/// Keys of a line that are no metrics.
pub(crate) const NO_METRICS: [&str; 6] = ["kind", "step", "name", "task", "fingerprint", "time"];

/// The end of the name of a metric's 95 % interval, a list of two numbers.
const INTERVAL: &str = "_ci95";

/// What a line of the log says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogPoints {
    pub step: u64,
    /// Seconds since 1970; `None` in lines of older versions.
    pub time: Option<f64>,
    /// Values by their tags, in the order of the tags. A value that is not finite is NaN.
    pub values: Vec<(String, f64)>,
    /// The name and the message of a warning.
    pub warning: Option<(String, String)>,
}

impl LogPoints {
    /// The numbers of a line; `None`: it is no line of a log.
    pub fn of(line: &Value) -> Option<Self> {
        let fields = line.as_object()?;
        let (step, time) = (line["step"].as_u64()?, line["time"].as_f64());
        let mut points = Self { step, time, values: Vec::new(), warning: None };
        match (line["kind"].as_str()?, line["name"].as_str()) {
            ("train", _) => points.add("train", fields),
            ("fit", _) => points.add("fit", fields),
            ("eval", Some(name)) => {
                points.add(&format!("eval/{name}"), fields);
                points.add_intervals(name, fields);
            }
            ("warning", Some(name)) => {
                points.warning = Some((name.to_owned(), line["message"].as_str()?.to_owned()));
            }
            _ => return None,
        }
        Some(points)
    }

    fn add(&mut self, prefix: &str, fields: &Map<String, Value>) {
        for (key, value) in fields.iter().filter(|(key, _)| !NO_METRICS.contains(&key.as_str())) {
            let tag = format!("{prefix}/{key}");
            match value {
                Value::Number(_) | Value::Null => self.values.push((tag, number(value))),
                Value::Object(parts) => self.add(&tag, parts),
                Value::String(_) | Value::Bool(_) | Value::Array(_) => {}
            }
        }
    }

    /// The ends of intervals, under a first name of their own, so that they do not stand between the metrics.
    fn add_intervals(&mut self, evaluation: &str, fields: &Map<String, Value>) {
        for (key, value) in fields {
            if let (Some(metric), Some([low, high])) = (key.strip_suffix(INTERVAL), value.as_array().map(Vec::as_slice))
            {
                for (end, value) in [("low", low), ("high", high)] {
                    self.values.push((format!("eval_ci95/{evaluation}/{metric}_{end}"), number(value)));
                }
            }
        }
    }
}

/// Numbers that JSON does not have are null.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// What is wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Damage {
    /// Complete lines that are no lines of a log.
    pub lines: usize,
    /// Whether the last line is incomplete: a process is writing it, or was killed while it did.
    pub is_torn: bool,
}

/// Reads the log at `path` line by line, without holding it in memory. A missing log is empty.
///
/// # Errors
/// [`TrainError::Read`] when the log exists and cannot be read, and those of `visit`.
pub(crate) fn read_points(
    path: &Path,
    mut visit: impl FnMut(LogPoints) -> Result<(), TrainError>,
) -> Result<Damage, TrainError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Damage::default()),
        file => file.map_err(TrainError::read(path))?,
    };
    let (mut reader, mut line, mut damage) = (BufReader::new(file), Vec::new(), Damage::default());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(TrainError::read(path))? == 0 {
            return Ok(damage);
        }
        if line.last() != Some(&b'\n') {
            damage.is_torn = true;
            return Ok(damage);
        }
        match serde_json::from_slice::<Value>(&line).ok().as_ref().and_then(LogPoints::of) {
            Some(points) => visit(points)?,
            None => damage.lines += usize::from(!line.trim_ascii().is_empty()),
        }
    }
}

/// The time of lines that have none, those of older versions: when the log was last written, in seconds since 1970.
pub(crate) fn fallback_time(path: &Path) -> f64 {
    let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
    modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs() as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_have_tags() {
        let line = json!({"kind": "train", "step": 3, "loss": 1.5, "grad_norms": {"text_tower": 2}, "time": 9.5});
        let points = LogPoints::of(&line).unwrap();
        let values = vec![("train/grad_norms/text_tower".to_owned(), 2.0), ("train/loss".to_owned(), 1.5)];
        assert_eq!(points, LogPoints { step: 3, time: Some(9.5), values, warning: None });

        let line = json!({"kind": "eval", "step": 0, "name": "held", "task": "zero-shot", "fingerprint": "0a",
            "acc1": 0.5, "acc1_ci95": [0.4, 0.6], "ece": null, "train_side": "split"});
        let points = LogPoints::of(&line).unwrap();
        let tags: Vec<&str> = points.values.iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(
            tags,
            ["eval/held/acc1", "eval/held/ece", "eval_ci95/held/acc1_low", "eval_ci95/held/acc1_high"],
            "a string is no point"
        );
        assert!(points.values[1].1.is_nan(), "what is not finite is not left out");
        assert_eq!((points.values[3].1, points.time), (0.6, None));

        let line = json!({"kind": "fit", "step": 0, "method": "cca", "ridge": 0.1});
        assert_eq!(LogPoints::of(&line).unwrap().values, [("fit/ridge".to_owned(), 0.1)]);

        let line = json!({"kind": "warning", "step": 2, "name": "n", "message": "m"});
        assert_eq!(LogPoints::of(&line).unwrap().warning, Some(("n".to_owned(), "m".to_owned())));
        for line in [json!(3), json!({"step": 1, "loss": 2.0}), json!({"kind": "train", "loss": 2.0})] {
            assert_eq!(LogPoints::of(&line), None, "{line}");
        }
    }

    #[test]
    fn damaged_lines_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let train = "{\"kind\":\"train\",\"step\":1,\"loss\":2.0}\n";
        fs::write(&path, format!("{train}oops\n{}{{\"kind\":\"train\",\"step\":3", train.replace(":1", ":2"))).unwrap();
        let mut steps = Vec::new();
        let damage = read_points(&path, |points| {
            steps.push(points.step);
            Ok(())
        });
        assert_eq!((damage.unwrap(), steps), (Damage { lines: 1, is_torn: true }, vec![1, 2]));
        assert_eq!(read_points(&dir.path().join("none"), |_| Ok(())).unwrap(), Damage::default());
    }
}
