//! `dualenc fit`: aligns two towers in closed form, as the step 0 of a run.

use std::sync::Arc;

use crate::closed_form::fit_report::FitReport;
use crate::config::{HeadInit, RunConfig};
use crate::error::TrainError;
use crate::events::Observer;
use crate::ranks::alone::Alone;
use crate::ranks::launcher::refuse_several;
use crate::stop_flag::StopFlag;
use crate::training::position::Start;
use crate::training::run::Run;

/// Fits the heads of the model that `config` describes to its training pairs, saves a checkpoint of step 0 in
/// `run.dir`, and runs every evaluation. A training run of the same config may go on from there.
///
/// # Errors
/// [`TrainError::Usage`] when `run.dir` holds a run already, or the features do not allow a fit; and every error that
/// training can return before its first step.
pub fn fit(config: &RunConfig, stop: &StopFlag, observer: &mut dyn Observer) -> Result<FitReport, TrainError> {
    refuse_several()?;
    let mut config = config.clone();
    if config.model.head_init == HeadInit::Random {
        config.model.head_init = HeadInit::Cca;
    }
    let mut run = Run::open(&config, Start::Fit, Arc::new(Alone), stop, observer).map_err(|error| match error {
        TrainError::RunExists { dir, step } => TrainError::Usage(format!(
            "`{}` already holds a run (step {step}), which a fit does not replace; choose another `run.dir` (`--set \
             run.dir=...`)",
            dir.display()
        )),
        error => error,
    })?;
    run.save_fit(observer)?;
    run.evaluate_where(|_| true, observer)?;
    run.report_end(observer);
    run.fitted.take().ok_or_else(|| TrainError::Internal("a fit without a report".to_owned()))
}
