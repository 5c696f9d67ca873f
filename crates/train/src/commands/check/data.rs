//! The training pairs: how many there are, from which sources, and which are left out.

use dualenc_data::{CaptionMode, Dataset, SkippedRows, counted};

use crate::commands::check::findings::Findings;
use crate::config::RunConfig;
use crate::pairs::Pairs;
use crate::training::training_data::too_few_pairs;

/// Reports the numbers of images, captions and pairs, and what the sources said.
pub(crate) fn report_data(config: &RunConfig, pairs: &Pairs, findings: &mut Findings) {
    let (key, dataset) = ("data.train", &*pairs.train);
    let num_pairs = dataset.num_pairs(config.data.captions);
    let (images, captions) = (dataset.num_images(), dataset.num_captions());
    let slots = config.caption_slots().count;
    let mut message = format!(
        "{}, {}, {} per epoch",
        counted(images, "image"),
        counted(captions, "caption"),
        counted(num_pairs, "pair")
    );
    if slots > 1 {
        message += &format!(", each of an image and {slots} of its captions");
    }
    let finding = findings.fact("pairs", key, message);
    finding.value("images", images).value("captions", captions).value("pairs", num_pairs);
    if slots > 1 {
        finding.value("captions_per_pair", slots);
    }
    report_sources(config, dataset, findings);
    for note in &dataset.notes {
        findings.fact("note", key, note.clone());
    }
    for warning in &dataset.warnings {
        findings.warn("data_warning", key, warning.clone());
    }
    for warning in config.caption_warnings(dataset) {
        findings.warn("few_captions_per_image", "data.captions", warning);
    }
    if let Some(validation) = &pairs.validation {
        let (images, captions) = (validation.num_images(), validation.num_captions());
        let message =
            format!("validation: {} with {} held out", counted(images, "image"), counted(captions, "caption"));
        let finding = findings.fact("validation", "data.validation_fraction", message);
        finding.value("images", images).value("captions", captions);
    }
    report_skipped(key, "", &dataset.skipped, findings);
    report_captions_per_image(dataset, findings);
    report_unused_pairs(config, num_pairs, findings);
}

fn report_sources(config: &RunConfig, dataset: &Dataset, findings: &mut Findings) {
    let parts = dataset.parts();
    for (number, part) in parts.iter().enumerate().filter(|_| parts.len() > 1) {
        let samples = match config.data.captions {
            CaptionMode::All => part.captions.len(),
            CaptionMode::One | CaptionMode::Slots => part.images.len(),
        };
        let (images, captions, weight) = (part.images.len(), part.captions.len(), part.weight);
        let draws = (samples as f64 * weight).round();
        let message = format!(
            "source {number}: {}, {}, weight {weight}: {} per epoch",
            counted(images, "image"),
            counted(captions, "caption"),
            counted(draws as usize, "pair")
        );
        let finding = findings.fact("source", &format!("data.train[{number}]"), message);
        finding.value("images", images).value("captions", captions).value("weight", weight).value("pairs", draws);
    }
}

/// Reports the rows that a source leaves out. `what`: the data set, unless it is for training.
pub(crate) fn report_skipped(key: &str, what: &str, skipped: &SkippedRows, findings: &mut Findings) {
    if skipped.count == 0 {
        return;
    }
    let message = format!("{what}{} could not be used: {}:", counted(skipped.count, "row"), skipped.by_cause());
    let items = skipped.rows.iter().map(|row| row.message.clone()).collect();
    let finding = findings.warn("skipped_rows", key, message);
    for (cause, count) in &skipped.causes {
        finding.value(cause, *count);
    }
    finding.value("count", skipped.count).items(items);
}

fn report_captions_per_image(dataset: &Dataset, findings: &mut Findings) {
    let mut counts: Vec<usize> = (0..dataset.num_images()).map(|image| dataset.captions_of(image).len()).collect();
    counts.sort_unstable();
    let (Some(&least), Some(&most)) = (counts.first(), counts.last()) else { return };
    let median = counts[counts.len() / 2];
    let message = match least == most {
        true => format!("captions per image: {least}"),
        false => format!("captions per image: {least} to {most}, median {median}"),
    };
    let finding = findings.fact("captions_per_image", "data.train", message);
    finding.value("min", least).value("median", median).value("max", most);
}

/// Reports the pairs that no batch of an epoch takes.
fn report_unused_pairs(config: &RunConfig, pairs: usize, findings: &mut Findings) {
    let size = config.train.batch_size;
    let left = pairs % size.max(1);
    if config.data.shuffle && pairs < size || pairs < 2 {
        findings.problem("too_few_pairs", "train.batch_size", too_few_pairs(pairs, size)).value("pairs", pairs);
    } else if !config.data.shuffle && left == 1 {
        let message = format!(
            "{pairs} pairs in batches of {size} leave one, which is never trained on: a batch needs two; use another \
             `train.batch_size`, or set `data.shuffle = true`, which leaves out other pairs each epoch"
        );
        findings.warn("unused_pairs", "train.batch_size", message).value("count", 1);
    } else if config.data.shuffle && left > 0 {
        let message = format!("{left} of {pairs} pairs are left out of each epoch, others each time");
        findings.fact("unused_pairs", "train.batch_size", message).value("count", left);
    }
}
