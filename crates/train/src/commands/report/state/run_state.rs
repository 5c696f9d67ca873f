//! How far a run is, and why it is not further, by its files.

use std::fs;
use std::path::Path;

use dualenc_report::{Status, Warning};
use serde_json::Value;

use crate::commands::report::state::run_lock::RunLock;
use crate::error::TrainError;

/// What the files of a run tell of its state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traces<'a> {
    pub lock: RunLock,
    /// Whether its last step is saved: by the length of the config, or by `checkpoint.patience`.
    pub is_complete: bool,
    /// Whether the log or a checkpoint says that it has begun.
    pub has_begun: bool,
    /// Whether the last line of the log is incomplete.
    pub is_torn: bool,
    /// Updates so far, by the log and the checkpoints.
    pub step: u64,
    /// Updates so far, by the log.
    pub logged: u64,
    /// Step of the newest checkpoint.
    pub saved: Option<u64>,
    /// The newest step that was not finite.
    pub not_finite: Option<&'a NotFinite>,
    /// If the run is a fit that is saved, the evaluations that it lacks.
    pub fit_without: Option<&'a [String]>,
}

impl Traces<'_> {
    /// What the run is doing.
    pub fn status(&self) -> Status {
        match self.lock {
            RunLock::Held => Status::Running,
            _ if self.is_complete => Status::Finished,
            // A step that was passed over or made later is not where the run ended.
            _ if self.not_finite.is_some_and(|found| found.step > self.step) => Status::Diverged,
            RunLock::Unknown => Status::Unknown,
            // The evaluations are the last thing that a fit does. A line that is cut is of training that began.
            RunLock::Free if !self.is_torn && self.fit_without.is_some_and(<[String]>::is_empty) => Status::Fitted,
            RunLock::Free if !self.has_begun => Status::NotStarted,
            // A run that is asked to stop saves its last step; a killed one does so by chance at most.
            RunLock::Free if !self.is_torn && self.logged > 0 && self.saved == Some(self.logged) => Status::Stopped,
            RunLock::Free => Status::Killed,
        }
    }

    /// What the status means, and how the run goes on.
    pub fn note(&self) -> Option<String> {
        Some(match (self.status(), self.saved, self.not_finite, self.fit_without) {
            (Status::Diverged, _, Some(found), _) => found.note(),
            (Status::NotStarted, ..) => {
                "No step is logged and no checkpoint is saved: `dualenc train` starts it.".to_owned()
            }
            (Status::Fitted, ..) => {
                "Its heads are fitted in closed form and saved; no step is trained. `dualenc train --resume` trains \
                 from here."
                    .to_owned()
            }
            (Status::Killed, .., Some(without @ [_, ..])) => {
                let names: Vec<String> = without.iter().map(|name| format!("`{name}`")).collect();
                format!(
                    "It ended before it was measured. Its heads are fitted in closed form and saved: `dualenc eval` \
                     gives the figures of {}, and `dualenc train --resume` trains from here.",
                    names.join(", ")
                )
            }
            (Status::Stopped, Some(step), ..) => format!(
                "No process on this machine trains it. Its last step is saved: when it is resumed, it goes on after \
                 step {step} and loses nothing."
            ),
            (Status::Killed, Some(step), ..) => format!(
                "No process on this machine trains it. When it is resumed, it goes on after step {step}, its newest \
                 checkpoint."
            ),
            (Status::Killed, None, ..) => {
                "No process on this machine trains it, and it has no checkpoint: it starts anew.".to_owned()
            }
            (Status::Unknown, ..) => "This system does not say whether a process trains it.".to_owned(),
            _ => return None,
        })
    }
}

/// A step without an update, since its loss or gradient was not finite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotFinite {
    pub step: u64,
    /// Name of the file that holds its batch.
    file: String,
    /// Such as `the loss was NaN`.
    what: String,
}

impl NotFinite {
    /// The steps that were not finite, by the files `not-finite-step-N.json` of the run in `dir`, in ascending order.
    ///
    /// # Errors
    /// [`TrainError::Read`] when the directory cannot be read.
    pub fn all_of(dir: &Path) -> Result<Vec<Self>, TrainError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(TrainError::read(dir))? {
            let file = entry.map_err(TrainError::read(dir))?.file_name().to_string_lossy().into_owned();
            let number = file.strip_prefix("not-finite-step-").and_then(|name| name.strip_suffix(".json"));
            if let Some(step) = number.and_then(|number| number.parse().ok()) {
                let what = what(fs::read(dir.join(&file)).ok().and_then(|text| serde_json::from_slice(&text).ok()));
                found.push(Self { step, file, what });
            }
        }
        found.sort_by_key(|found| found.step);
        Ok(found)
    }

    /// The step as a warning, for the list of what went wrong.
    pub fn warning(&self) -> Warning {
        let message = format!("{}, and no update was made; `{}` holds the batch", self.what, self.file);
        Warning { step: Some(self.step), name: "not-finite".to_owned(), message }
    }

    fn note(&self) -> String {
        format!(
            "It ended with exit code 3 at step {}: {}. `{}` holds the batch. A plain `--resume` meets the same batch \
             with the same weights: lower `train.learning_rate`, lengthen the warm-up, or set another \
             `train.clip_grad_norm`, and resume; or pass over the batch with `--resume --skip-steps 1`. If the loss \
             rose before, delete the newest checkpoints first. See \"Non-finite steps\" in docs/TRAINING.md.",
            self.step, self.what, self.file
        )
    }
}

/// Which number of a step was not finite.
fn what(content: Option<Value>) -> String {
    let number = |name: &str| {
        let text = content.as_ref()?[name].as_str()?;
        text.parse::<f64>().ok().filter(|value| !value.is_finite()).map(|_| text.to_owned())
    };
    let found = [("the loss", "loss"), ("the gradient's norm", "grad_norm")]
        .into_iter()
        .find_map(|(name, key)| Some(format!("{name} was {}", number(key)?)));
    found.unwrap_or_else(|| "the loss or the gradient was not finite".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces() -> Traces<'static> {
        Traces {
            lock: RunLock::Free,
            is_complete: false,
            has_begun: true,
            is_torn: false,
            step: 5,
            logged: 5,
            saved: Some(3),
            not_finite: None,
            fit_without: None,
        }
    }

    #[test]
    fn status_is_what_the_files_tell() {
        let fit = Traces { step: 0, logged: 0, saved: Some(0), ..traces() };
        let without = ["pairs".to_owned()];
        for (found, status, said) in [
            (traces(), Status::Killed, "goes on after step 3"),
            (Traces { saved: None, ..traces() }, Status::Killed, "no checkpoint: it starts anew"),
            (Traces { saved: Some(5), logged: 0, ..traces() }, Status::Killed, "goes on after step 5"),
            (Traces { saved: Some(5), is_torn: true, ..traces() }, Status::Killed, "goes on after step 5"),
            (Traces { saved: Some(5), ..traces() }, Status::Stopped, "loses nothing"),
            (Traces { has_begun: false, step: 0, saved: None, ..traces() }, Status::NotStarted, "No step is logged"),
            (Traces { fit_without: Some(&[]), ..fit }, Status::Fitted, "no step is trained"),
            (Traces { fit_without: Some(&[]), is_torn: true, ..fit }, Status::Killed, "goes on after step 0"),
            (Traces { fit_without: Some(&without), ..fit }, Status::Killed, "gives the figures of `pairs`, and"),
            (fit, Status::Killed, "goes on after step 0"),
            (Traces { lock: RunLock::Unknown, ..traces() }, Status::Unknown, "does not say"),
        ] {
            assert_eq!(found.status(), status, "{found:?}");
            assert!(found.note().unwrap().contains(said), "{:?}", found.note());
        }
        for (found, status) in [
            (Traces { is_complete: true, ..traces() }, Status::Finished),
            (Traces { lock: RunLock::Held, ..traces() }, Status::Running),
            (Traces { lock: RunLock::Held, fit_without: Some(&[]), ..fit }, Status::Running),
        ] {
            assert_eq!((found.status(), found.note()), (status, None));
        }
    }

    #[test]
    fn diverged_run_names_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let write = |step: u64, text: &str| {
            fs::write(dir.path().join(format!("not-finite-step-{step:06}.json")), text).unwrap();
        };
        write(6, "{\"loss\":\"2.5\",\"grad_norm\":\"inf\"}");
        write(2, "{\"loss\":\"NaN\",\"grad_norm\":\"NaN\"}");
        fs::write(dir.path().join("not-finite-step-x.json"), "").unwrap();
        let found = NotFinite::all_of(dir.path()).unwrap();
        assert_eq!(found.iter().map(|found| found.step).collect::<Vec<_>>(), [2, 6]);
        let warning = found[0].warning();
        assert_eq!((warning.step, warning.name.as_str()), (Some(2), "not-finite"));
        assert!(warning.message.starts_with("the loss was NaN"), "{}", warning.message);

        let ended = Traces { saved: Some(5), not_finite: found.last(), ..traces() };
        assert_eq!(ended.status(), Status::Diverged);
        let note = ended.note().unwrap();
        for part in ["at step 6: the gradient's norm was inf", "`not-finite-step-000006.json`", "--skip-steps 1"] {
            assert!(note.contains(part), "{note}");
        }
        let went_on = Traces { step: 6, logged: 6, saved: Some(6), not_finite: found.last(), ..traces() };
        assert_eq!(went_on.status(), Status::Stopped, "it went on after the batch");
        write(9, "cut");
        assert!(NotFinite::all_of(dir.path()).unwrap()[2].warning().message.starts_with("the loss or the gradient"));
    }
}
