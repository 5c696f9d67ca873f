//! `dualenc check`: everything that training checks before its first step, without training.

use dualenc_data::Dataset;
use dualenc_model::DualEncoder;

use crate::config::RunConfig;
use crate::device::Compute;
use crate::error::TrainError;
use crate::eval::evaluation::Evaluation;
use crate::events::{Event, Observer};
use crate::models::load::LoadedModel;
use crate::optim::lr_schedule::LrSchedule;
use crate::optim::param_groups::ParamGroups;
use crate::optim::part_summary::summarize_parts;
use crate::training::stages::Stages;
use crate::training::training_data::too_few_pairs;

/// Missing files that are listed by name.
const MAX_LISTED: usize = 10;

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Facts about data and models, for people.
    pub facts: Vec<String>,
    /// Problems that would stop a run or spoil its result.
    pub problems: Vec<String>,
}

/// Opens everything that `config` names. The first broken tower, data set or evaluation is an error; all missing image
/// files are counted.
///
/// # Errors
/// Every [`TrainError`] that training can return before its first step, except those of the run directory and of images
/// that cannot be read.
pub fn check(config: &RunConfig, observer: &mut dyn Observer) -> Result<Findings, TrainError> {
    let mut findings = Findings::default();
    let compute = Compute::select(&config.run.device, config.run.threads)?.computing_as(&config.run)?;
    let dataset = config.data.train.read()?;
    count_data(config, &dataset, &mut findings);
    let loaded = LoadedModel::from_config(config, &compute, observer)?;
    let groups = ParamGroups::resolve(&config.train, &loaded.model)?;
    observer.on(Event::Parts(&summarize_parts(&loaded.model, &groups, config.train.learning_rate)?));
    check_schedules(config, &dataset, &loaded.model, &mut findings);
    findings.facts.push(format!("images: {}", loaded.processor.describe()));
    if let Some(augment) = &config.data.augment {
        findings.facts.push(format!("training images are augmented: {}", augment.describe()));
    }
    for evaluation in Evaluation::open_all(config)? {
        findings.facts.push(format!("evaluation `{}` is ready", evaluation.name));
    }
    Ok(findings)
}

/// Checks the learning-rate schedule and reports the stages: both depend on the number of pairs.
fn check_schedules(config: &RunConfig, dataset: &Dataset, model: &DualEncoder, findings: &mut Findings) {
    let steps_per_epoch = config.plan(dataset).batches_per_epoch() as u64;
    if steps_per_epoch == 0 {
        return;
    }
    let total_steps = config.total_steps(steps_per_epoch);
    findings.problems.extend(LrSchedule::new(&config.train, total_steps).err().map(|error| error.to_string()));
    match Stages::new(config, model, steps_per_epoch, total_steps) {
        Ok(stages) if stages.len() > 1 => {
            findings.facts.extend((0..stages.len()).map(|number| stages.describe(number)));
        }
        Ok(_) => {}
        Err(error) => findings.problems.push(error.to_string()),
    }
}

fn count_data(config: &RunConfig, dataset: &Dataset, findings: &mut Findings) {
    let pairs = dataset.num_pairs(config.data.captions);
    let (images, captions) = (dataset.images.len(), dataset.captions.len());
    findings.facts.push(format!("{images} images, {captions} captions, {pairs} pairs per epoch"));
    if config.plan(dataset).batches_per_epoch() == 0 {
        findings.problems.push(too_few_pairs(pairs, config.train.batch_size));
    }
    let missing = dataset.missing_files(MAX_LISTED);
    if missing.count > 0 {
        let first: Vec<String> = missing.first.iter().map(|path| format!("  {}", path.display())).collect();
        findings.problems.push(format!("{} of {images} image files are missing:\n{}", missing.count, first.join("\n")));
    }
}
