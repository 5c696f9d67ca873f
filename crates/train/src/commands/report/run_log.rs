//! `metrics.jsonl` as curves and evaluations. The run may be writing it, or may have been killed while it did.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use dualenc_data::counted;
use dualenc_report::{EvalPoint, Evaluation, TrainStep, Warning};
use serde_json::Value;

use crate::error::TrainError;
use crate::run_dir::log_points::NO_METRICS;

/// The log of a run.
#[derive(Debug, Default)]
pub(super) struct RunLog {
    /// The training steps.
    pub steps: Vec<TrainStep>,
    /// The evaluations, in the order of their first lines.
    pub evaluations: Vec<Evaluation>,
    /// The fit that the heads started from, as a sentence.
    pub fit: Option<String>,
    /// What the run warned about, and what is wrong with the log.
    pub warnings: Vec<Warning>,
    /// Steps of an epoch, once a step was trained.
    pub steps_per_epoch: Option<u64>,
    /// Time of the training steps, in seconds.
    pub seconds: f64,
    /// Whether the last line is incomplete.
    pub is_torn: bool,
}

impl RunLog {
    /// Reads the log at `path`. A missing log is empty.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the file exists and cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(TrainError::read(path)(error)),
            Ok(bytes) => Ok(Self::of(&bytes)),
        }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut log = Self::default();
        let (mut damaged, mut samples_seen) = (0, 0);
        let mut evaluations: Vec<(Evaluation, usize)> = Vec::new();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let parsed = serde_json::from_slice::<Value>(line).ok();
            let Some((line, step)) = parsed.and_then(|line| line["step"].as_u64().map(|step| (line, step))) else {
                let is_last = line.last() != Some(&b'\n');
                log.is_torn |= is_last;
                damaged += usize::from(!is_last && !line.trim_ascii().is_empty());
                continue;
            };
            match line["kind"].as_str() {
                Some("train") => {
                    let seen = line["samples_seen"].as_u64().unwrap_or(samples_seen);
                    let pairs = seen.saturating_sub(std::mem::replace(&mut samples_seen, seen));
                    let speed = line["pairs_per_sec"].as_f64().filter(|speed| *speed > 0.0);
                    log.seconds += speed.map_or(0.0, |speed| pairs as f64 / speed);
                    let epoch = line["epoch"].as_f64().filter(|epoch| *epoch > 0.0);
                    log.steps_per_epoch =
                        epoch.map(|epoch| (step as f64 / epoch).round() as u64).or(log.steps_per_epoch);
                    match serde_json::from_value(line) {
                        Ok(step) => log.steps.push(step),
                        Err(_) => damaged += 1,
                    }
                }
                Some("fit") => log.fit = Some(fit_sentence(&line)),
                Some("eval") => add_evaluation(&mut evaluations, step, &line),
                Some("warning") => log.warnings.push(Warning {
                    step: Some(step),
                    name: line["name"].as_str().unwrap_or("warning").to_owned(),
                    message: line["message"].as_str().unwrap_or("").to_owned(),
                }),
                _ => damaged += 1,
            }
        }
        for (evaluation, others) in evaluations {
            if others > 0 {
                let message = format!(
                    "the data of evaluation `{}` changed: {} that measured something else {} left out",
                    evaluation.name,
                    counted(others, "earlier result"),
                    if others == 1 { "is" } else { "are" }
                );
                log.warnings.push(Warning { step: None, name: "evaluation-changed".to_owned(), message });
            }
            log.evaluations.push(evaluation);
        }
        if damaged > 0 {
            let are = if damaged == 1 { "is" } else { "are" };
            let message = format!("{} of `metrics.jsonl` cannot be read and {are} left out", counted(damaged, "line"));
            log.warnings.push(Warning { step: None, name: "damaged-log".to_owned(), message });
        }
        log
    }

    /// Whether anything is logged, be it the start of a line.
    pub fn has_begun(&self) -> bool {
        self.is_torn
            || self.fit.is_some()
            || !(self.steps.is_empty() && self.evaluations.is_empty() && self.warnings.is_empty())
    }

    /// The last step in the log.
    pub fn last_step(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.step)
    }
}

/// What a line says about the fit of the heads.
fn fit_sentence(line: &Value) -> String {
    let number = |key: &str| line[key].as_f64().map_or_else(|| "unknown".to_owned(), |number| format!("{number}"));
    let chosen = match (line["mean_recall"].as_f64(), line["held_out_images"].as_u64()) {
        (Some(recall), Some(images)) => {
            format!("mean recall {recall:.4} on {} that were held out", counted(images as usize, "image"))
        }
        _ => "no image was held out".to_owned(),
    };
    format!(
        "The heads started fitted in closed form ({}): {} pairs, ridge {}, power {}, {chosen}; {} s.",
        line["method"].as_str().unwrap_or("unknown method"),
        number("pairs"),
        number("ridge"),
        number("power"),
        line["seconds"].as_f64().map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds:.1}"))
    )
}

/// Adds a line to its evaluation. Results of something else, by the fingerprint, give way to it and are counted.
fn add_evaluation(all: &mut Vec<(Evaluation, usize)>, step: u64, line: &Value) {
    let (Some(name), Some(metrics)) = (line["name"].as_str(), line.as_object()) else { return };
    let mut metrics = metrics.clone();
    metrics.retain(|key, _| !NO_METRICS.contains(&key.as_str()));
    let point = EvalPoint::from_metrics(step, &metrics);
    // Lines of older versions have none.
    let fingerprint = line["fingerprint"].as_str().unwrap_or("");
    match all.iter_mut().find(|(evaluation, _)| evaluation.name == name) {
        Some((evaluation, others)) => {
            if evaluation.fingerprint != fingerprint {
                *others += evaluation.points.len();
                evaluation.points.clear();
                fingerprint.clone_into(&mut evaluation.fingerprint);
            }
            evaluation.points.push(point);
        }
        None => {
            let evaluation = Evaluation {
                name: name.to_owned(),
                task: line["task"].as_str().unwrap_or("").to_owned(),
                fingerprint: fingerprint.to_owned(),
                points: vec![point],
                ..Evaluation::default()
            };
            all.push((evaluation, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"kind":"eval","step":0,"name":"v","task":"zero-shot","fingerprint":"a","acc1":0.1}
{"kind":"train","step":1,"epoch":0.25,"samples_seen":8,"loss":2.0,"pairs_per_sec":4.0}
oops
{"kind":"warning","step":1,"name":"loss-at-chance","message":"m"}
{"kind":"eval","step":1,"name":"v","task":"zero-shot","fingerprint":"b","acc1":0.2,"acc1_ci95":[0.1,0.3]}
{"kind":"train","step":2,"epoch":0.5,"samples_seen":16,"loss":1.0,"pairs_per_sec":8.0}
{"kind":"train","step":3,"ep"#;

    #[test]
    fn cut_and_damaged_lines_are_noted() {
        let log = RunLog::of(LOG.as_bytes());
        assert_eq!((log.last_step(), log.steps_per_epoch, log.is_torn), (2, Some(4), true));
        assert!((log.seconds - 3.0).abs() < 1e-9);
        let names: Vec<&str> = log.warnings.iter().map(|warning| warning.name.as_str()).collect();
        assert_eq!(names, ["loss-at-chance", "evaluation-changed", "damaged-log"]);
    }

    #[test]
    fn fit_is_one_sentence() {
        let fit = |more: &str| {
            let line = format!("{{\"kind\":\"fit\",\"step\":0,\"method\":\"cca\",\"pairs\":9,\"ridge\":0.1{more}}}\n");
            let log = RunLog::of(line.as_bytes());
            assert!(log.has_begun() && log.warnings.is_empty(), "{line}");
            log.fit.unwrap()
        };
        assert_eq!(
            fit(",\"power\":1.5,\"held_out_images\":4,\"mean_recall\":0.25,\"seconds\":2.04"),
            "The heads started fitted in closed form (cca): 9 pairs, ridge 0.1, power 1.5, mean recall 0.2500 on 4 \
             images that were held out; 2.0 s."
        );
        assert!(fit("").contains("power unknown, no image was held out; unknown s."));
    }

    #[test]
    fn changed_evaluation_starts_anew() {
        let log = RunLog::of(LOG.as_bytes());
        assert_eq!(log.evaluations[0].fingerprint, "b");
        assert_eq!(log.evaluations[0].points.len(), 1, "the figure before the change cannot be compared");
        assert_eq!(log.evaluations[0].points[0].metrics["acc1"].interval, Some([0.1, 0.3]));
        assert_eq!(log.evaluations[0].points[0].metrics.len(), 1, "the step is no metric");
    }
}
