//! The plan of a run, as text.

use std::io::{self, Write};

use dualenc_train::{CachePlan, Plan, StagePlan, StepPlan};
use indicatif::HumanCount;

use crate::report::param_table;

/// Width of the column of labels.
const LABEL_WIDTH: usize = 14;

/// Prints the plan.
pub fn print(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let data = &plan.data;
    let captions = match data.captions_per_pair {
        1 => String::new(),
        several => format!(" of {several} captions"),
    };
    writeln!(
        out,
        "{} steps, {} per epoch, {} pairs{captions} each; {} images, {} captions; {}, {} threads\n",
        grouped(data.total_steps),
        grouped(data.steps_per_epoch),
        grouped(data.batch_size as u64),
        grouped(data.images as u64),
        grouped(data.captions as u64),
        plan.device,
        plan.threads
    )?;
    writeln!(out, "{}\n", param_table::render(&plan.parameters))?;
    for stage in &plan.stages {
        print_stage(out, stage, plan.stages.len() > 1)?;
    }
    print_images(out, plan)?;
    print_time(out, plan)?;
    print_fit(out, plan)?;
    print_memory(out, plan)?;
    print_cache(out, plan)?;
    for note in &plan.notes {
        row(out, "note", note)?;
    }
    writeln!(out)?;
    let saves = plan.advice.saves_seconds.map_or(String::new(), |saved| format!(" (saves up to {})", time(saved)));
    match plan.advice.key {
        Some(key) => row(out, "change first", &format!("`{key}`: {}{saves}", plan.advice.text)),
        None => row(out, "change first", &plan.advice.text),
    }
}

fn print_stage(out: &mut impl Write, stage: &StagePlan, is_one_of_several: bool) -> io::Result<()> {
    if is_one_of_several {
        let (steps, from) = (grouped(stage.steps), grouped(stage.from_step));
        row(out, "stage", &format!("`{}`: {steps} steps from step {from}, {}", stage.lock, time(stage.seconds)))?;
    }
    let what = if stage.cached_step.is_some() { ", which computes features for the cache" } else { "" };
    print_step(out, "step", &stage.step, what)?;
    match &stage.cached_step {
        Some(step) => print_step(out, "later step", step, ", which reads them from the cache"),
        None => Ok(()),
    }
}

fn print_step(out: &mut impl Write, label: &str, step: &StepPlan, what: &str) -> io::Result<()> {
    let (measured, speed) = (step.measured, step.pairs_per_second);
    let median = if measured == 1 { "measured once".to_owned() } else { format!("the median of {measured}") };
    row(out, label, &format!("{}, {median}: {speed:.0} pairs/s{what}", time(step.seconds)))?;
    for part in &step.parts {
        let percent = part.share * 100.0;
        writeln!(out, "  {:22} {:>10} {percent:>5.1} %", part.part, time(part.seconds))?;
    }
    Ok(())
}

fn print_images(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let images = &plan.images;
    let Some(speed) = images.images_per_second else {
        let text = match images.unusable {
            0 => "none is decoded".to_owned(),
            unusable => format!("none of {unusable} can be used"),
        };
        return row(out, "images", &text);
    };
    let (read, decode) = (time(images.read_seconds), time(images.decode_seconds));
    row(out, "images", &format!("{read} to read and {decode} to decode one, on one thread"))?;
    if images.unusable > 0 {
        let all = images.measured + images.unusable;
        row(out, "", &format!("{} of {all} that were looked at cannot be used", images.unusable))?;
    }
    let verdict = if images.keeps_up { "keeps up" } else { "does not keep up" };
    let (workers, needed, waiting) = (images.workers, images.needed_per_second, images.waiting * 100.0);
    row(
        out,
        "",
        &format!(
            "{workers} loader threads load up to {speed:.0}/s, the model takes {needed:.0}/s: the loader {verdict} \
             (steps wait {waiting:.0} %)"
        ),
    )
}

fn print_time(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let times = &plan.time;
    let is_cached = plan.stages.first().is_some_and(|stage| stage.cached_step.is_some());
    if is_cached {
        let (first, later) = (time(times.first_epoch), time(times.later_epoch));
        let fills = if times.filling_cache > 0.0 { ", which fills the cache" } else { "" };
        row(out, "epoch", &format!("{first} the first{fills}; {later} each later one"))?;
    } else {
        row(out, "epoch", &time(times.first_epoch))?;
    }
    row(out, "run", &format!("{}, an estimate: {} to start", time(times.run), time(times.start)))?;
    if let Some(fit) = &plan.fit {
        let (features, form) = (time(fit.features_seconds), time(fit.closed_form_seconds));
        let (images, texts) = (grouped(fit.images as u64), grouped(fit.texts as u64));
        let fit = time(times.fit);
        row(
            out,
            "",
            &format!(
                "{fit} to fit the heads: {features} for features of {images} images and {texts} texts, then {form}"
            ),
        )?;
    }
    let teacher = match times.teacher {
        0.0 => String::new(),
        seconds => format!(", {} to compute features of the teacher", time(seconds)),
    };
    let filling = if times.filling_cache > 0.0 {
        format!(", {} of it to fill the cache", time(times.filling_cache))
    } else {
        String::new()
    };
    row(out, "", &format!("{} for {} epochs{filling}{teacher}", time(times.training), short(plan.data.epochs)))?;
    for evaluation in &plan.evaluations {
        let (first, later) = (time(evaluation.first_seconds), time(evaluation.later_seconds));
        let (images, texts) = (grouped(evaluation.images as u64), grouped(evaluation.texts as u64));
        let runs = match evaluation.runs {
            1 => format!("{first} once"),
            runs => format!("{first}, then {later}, {runs} times in all"),
        };
        row(
            out,
            "",
            &format!("evaluation `{}`: {runs} ({images} images, {texts} texts; scoring left out)", evaluation.name),
        )?;
    }
    let (count, size) = (grouped(plan.checkpoints.count), bytes(plan.checkpoints.bytes));
    let each = match plan.checkpoints.seconds {
        Some(seconds) => format!("{} each", time(seconds)),
        None => "too large to measure how long one takes".to_owned(),
    };
    row(out, "", &format!("checkpoints: {count} of {size}, {each}"))
}

/// What `dualenc fit` takes, which makes no step.
fn print_fit(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let Some(seconds) = plan.time.fit_alone else { return Ok(()) };
    row(out, "dualenc fit", &format!("{}, an estimate: no step, and each evaluation once", time(seconds)))
}

fn print_memory(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    let memory = &plan.memory;
    let teacher = match memory.teacher {
        0 => String::new(),
        size => format!(" (teacher {})", bytes(size)),
    };
    let known = |size: Option<u64>| size.map_or_else(|| "unknown".to_owned(), bytes);
    row(
        out,
        "memory",
        &format!(
            "parameters {}{teacher}, gradients {}, optimiser {}, activations {}",
            bytes(memory.parameters),
            bytes(memory.gradients),
            bytes(memory.optimizer),
            known(memory.activations)
        ),
    )?;
    if let Some(per_pair) = memory.activations_per_pair {
        let [small, large] = memory.measured_pairs;
        row(out, "", &format!("{} a pair, from steps of {small} and {large} pairs", bytes(per_pair)))?;
    }
    let (peak, available) = (known(memory.peak), known(memory.available));
    row(out, "", &format!("peak of the process {peak}, available {available} (evaluations may need more)"))?;
    if let Some(fits) = memory.batch_that_fits {
        let parts = plan.data.micro_batch_size.map_or(String::new(), |size| {
            format!("; `train.micro_batch_size = {size}` bounds activations whatever the batch")
        });
        let all = if fits * 2 > plan.data.pairs { ", limited by the number of pairs" } else { "" };
        row(out, "", &format!("largest batch that fits whole: {fits}, a prediction{all}{parts}"))?;
    }
    Ok(())
}

fn print_cache(out: &mut impl Write, plan: &Plan) -> io::Result<()> {
    for (number, entry) in plan.cache.iter().enumerate() {
        let CachePlan { what, rows, present, bytes: size } = entry;
        let there = if *present > 0 { format!(", up to {} already there", grouped(*present)) } else { String::new() };
        let label = if number == 0 { "cache" } else { "" };
        row(out, label, &format!("{} for {} {what}{there}", bytes(*size), grouped(*rows)))?;
    }
    match plan.cache_disk_free {
        Some(free) => row(out, "", &format!("{} free on its disk", bytes(free))),
        None => Ok(()),
    }
}

fn row(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{label:LABEL_WIDTH$}{text}")
}

/// A time with two or three digits.
fn time(seconds: f64) -> String {
    match seconds {
        ..0.001 => format!("{:.0} us", seconds * 1e6),
        ..0.01 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..10.0 => format!("{seconds:.2} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..600.0 => format!("{:.1} min", seconds / 60.0),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// A number without a fraction that is 0.
fn short(number: f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> HumanCount {
    HumanCount(number)
}

/// A number of bytes in decimal units.
fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", count as f64 / *size as f64),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let shown = [0.000_25, 0.004_21, 0.25, 2.5, 90.0, 1800.0, 9000.0, 400_000.0].map(time);
        assert_eq!(shown, ["250 us", "4.2 ms", "250 ms", "2.50 s", "90 s", "30 min", "2.5 h", "4.6 days"]);
        assert_eq!([12, 1_500, 2_500_000, 3_200_000_000].map(bytes), ["12 bytes", "1.5 kB", "2.5 MB", "3.2 GB"]);
        assert_eq!([2.0, 2.5].map(short), ["2", "2.50"]);
    }
}
