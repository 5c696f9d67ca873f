//! Which one key to change first. Each piece of advice follows from figures of the plan.

use crate::commands::plan::report::{Advice, Plan, StepPlan};
use crate::commands::plan::stage::MeasuredStage;
use crate::config::RunConfig;

/// Smallest fraction of the run's time that is worth a change.
const NOTABLE: f64 = 0.1;

/// Fraction of the available memory above which a run may be ended by the system.
const FULL: f64 = 0.9;

/// Fraction of the run's time that checkpoints take when they are as rare as advised.
const CHECKPOINT_SHARE: f64 = 0.01;

/// What the advice needs besides the plan.
pub(super) struct Facts<'a> {
    pub config: &'a RunConfig,
    /// The longest stage.
    pub stage: &'a MeasuredStage,
    /// Whether tensors are in host memory, and loader and model share the cores.
    pub on_host: bool,
}

/// The change that saves the most time, if that is a tenth of the run; before all, one without which the run does not
/// fit into memory.
pub(super) fn choose(plan: &Plan, facts: &Facts<'_>) -> Advice {
    if let Some(advice) = memory(plan, facts) {
        return advice;
    }
    let candidates = [cache(plan, facts), loading(plan, facts), batch(plan, facts), parts(plan, facts)];
    let candidates = candidates.into_iter().chain([checkpoints(plan, facts), evaluations(plan)]).flatten();
    let saves = |advice: &Advice| advice.saves_seconds.unwrap_or(0.0);
    let best = candidates.max_by(|left, right| saves(left).total_cmp(&saves(right)));
    best.filter(|advice| saves(advice) > NOTABLE * plan.time.run).unwrap_or_else(|| nothing(facts))
}

/// That no key stands out, and what takes the time.
fn nothing(facts: &Facts<'_>) -> Advice {
    let stage = &facts.stage.plan;
    let step = stage.cached_step.as_ref().unwrap_or(&stage.step);
    let largest = step.parts.iter().max_by(|left, right| left.share.total_cmp(&right.share));
    let largest =
        largest.map_or(String::new(), |part| format!("; {} takes {:.0} % of a step", part.part, part.share * 100.0));
    Advice {
        key: None,
        text: format!("nothing stands out: no key is seen to save {:.0} % of the run{largest}", NOTABLE * 100.0),
        saves_seconds: None,
    }
}

fn memory(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    let (peak, available) = (plan.memory.peak?, plan.memory.available?);
    if (peak as f64) < FULL * available as f64 {
        return None;
    }
    let size = plan.data.micro_batch_size.unwrap_or(plan.data.batch_size);
    let fits = plan.memory.batch_that_fits.filter(|fits| *fits > 0 && *fits < size).unwrap_or(size / 2).max(1);
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let same = if facts.config.train.micro_batch_size.is_some() { "" } else { "; losses and gradients stay the same" };
    Some(Advice {
        key: Some("train.micro_batch_size"),
        text: format!(
            "set it to {fits}: the run is predicted to need {} of the {} that are available{same}",
            gigabytes(peak),
            gigabytes(available)
        ),
        saves_seconds: None,
    })
}

/// Seconds of a part of a step.
fn seconds_of(step: &StepPlan, name: &str) -> f64 {
    step.parts.iter().filter(|part| part.part == name).map(|part| part.seconds).sum()
}

/// A cache that is off, while a locked tower computes the same features in every epoch.
fn cache(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    if facts.config.cache.enabled {
        return None;
    }
    let step = &facts.stage.plan.step;
    let image = seconds_of(step, "locked image tower");
    let waiting = if image > 0.0 { seconds_of(step, "waiting for images") } else { 0.0 };
    let each = image + waiting + seconds_of(step, "locked text tower");
    let views = if facts.config.data.augment.is_some() && image > 0.0 {
        ", with `cache.views` since images are augmented"
    } else {
        ""
    };
    let later = facts.stage.plan.steps.saturating_sub(plan.data.steps_per_epoch);
    Some(Advice {
        key: Some("cache.enabled"),
        text: format!(
            "set it to true{views}: locked towers compute the same features in every epoch, {:.0} % of each step",
            100.0 * each / step.seconds.max(f64::MIN_POSITIVE)
        ),
        saves_seconds: Some(each * later as f64),
    })
}

/// Images that come too slowly, or take the cores from the model.
fn loading(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    let (stage, images) = (&facts.stage, &plan.images);
    let step = &stage.plan.step;
    // Steps that decode images: all, or those that fill the cache.
    let steps = match &stage.plan.cached_step {
        None => stage.plan.steps as f64,
        Some(_) => stage.filling.features / stage.filling.per_step.max(1.0),
    };
    let waiting = seconds_of(step, "waiting for images") * steps;
    let percent = 100.0 * seconds_of(step, "waiting for images") / step.seconds.max(f64::MIN_POSITIVE);
    if images.workers < plan.threads && waiting > NOTABLE * plan.time.run {
        return Some(Advice {
            key: Some("data.workers"),
            text: format!(
                "set it to {}: a step waits {percent:.0} % of its time for images, with {} loader threads on {} cores",
                plan.threads, images.workers, plan.threads
            ),
            saves_seconds: Some(waiting),
        });
    }
    let each = images.read_seconds + images.decode_seconds;
    let busy = each * stage.loaded_per_step * steps / plan.threads.max(1) as f64;
    let saves = if facts.on_host { waiting.max(busy) } else { waiting };
    let what = if images.read_seconds > images.decode_seconds {
        "put the data on a faster disk or into shards (`dualenc data pack`)"
    } else {
        "store the images near the size that the tower takes (`dualenc data pack` resizes)"
    };
    Some(Advice {
        key: Some("data.train"),
        text: format!(
            "{what}: reading and decoding takes {:.1} ms an image on one thread, and a step waits {percent:.0} % of its \
             time",
            each * 1e3
        ),
        saves_seconds: Some(saves),
    })
}

/// A batch so small that its fixed time counts.
fn batch(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    let [small, large] = facts.stage.probes;
    let size = plan.data.batch_size;
    let twice = size * 2;
    let fits = plan.memory.batch_that_fits.is_none_or(|fits| fits >= twice) && twice * 2 <= plan.data.pairs;
    if plan.data.micro_batch_size.is_some() || !fits || large.pairs <= small.pairs {
        return None;
    }
    let per_pair = (large.seconds - small.seconds).max(0.0) / (large.pairs - small.pairs) as f64;
    let fixed = (large.seconds - per_pair * large.pairs as f64).max(0.0);
    let step = facts.stage.plan.cached_step.as_ref().unwrap_or(&facts.stage.plan.step);
    let share = fixed / (fixed + per_pair * size as f64).max(f64::MIN_POSITIVE);
    Some(Advice {
        key: Some("train.batch_size"),
        text: format!(
            "set it to {twice}, with a learning rate to match: {:.0} % of the time of a batch of {size} does not depend \
             on its size",
            share * 100.0
        ),
        saves_seconds: Some(share / 2.0 * step.seconds * facts.stage.plan.steps as f64),
    })
}

/// A step in parts, although the whole batch fits.
fn parts(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    let size = plan.data.micro_batch_size?;
    let fits = plan.memory.batch_that_fits.filter(|fits| *fits >= plan.data.batch_size)?;
    let parts = &facts.stage.parts;
    let share = parts.forward.iter().sum::<f64>() / parts.sum().max(f64::MIN_POSITIVE);
    let step = facts.stage.plan.cached_step.as_ref().unwrap_or(&facts.stage.plan.step);
    Some(Advice {
        key: Some("train.micro_batch_size"),
        text: format!(
            "remove it: parts of {size} pairs run the towers forward twice, {:.0} % of a step, and a batch of up to \
             {fits} is predicted to fit whole",
            share * 100.0
        ),
        saves_seconds: Some(share * step.seconds * facts.stage.plan.steps as f64),
    })
}

fn checkpoints(plan: &Plan, facts: &Facts<'_>) -> Option<Advice> {
    let each = plan.checkpoints.seconds?;
    let every = facts.config.checkpoint.every_steps.max(1);
    let per_step = plan.time.training / plan.data.total_steps.max(1) as f64;
    let better = (each / (CHECKPOINT_SHARE * per_step.max(f64::MIN_POSITIVE))).ceil().min(plan.data.total_steps as f64);
    if better <= every as f64 {
        return None;
    }
    let saves = plan.time.checkpoints - each * plan.data.total_steps as f64 / better.max(1.0);
    Some(Advice {
        key: Some("checkpoint.every_steps"),
        text: format!(
            "set it to {better:.0}: a checkpoint takes {each:.2} s, as long as {:.1} steps, and is written every {every}",
            each / per_step.max(f64::MIN_POSITIVE)
        ),
        saves_seconds: Some(saves.max(0.0)),
    })
}

/// Evaluations at half the rate.
fn evaluations(plan: &Plan) -> Option<Advice> {
    let repeated = |runs: u64, seconds: f64| runs.saturating_sub(1) as f64 * seconds;
    let all = plan.evaluations.iter();
    let longest = all.max_by(|left, right| {
        repeated(left.runs, left.later_seconds).total_cmp(&repeated(right.runs, right.later_seconds))
    })?;
    let seconds = repeated(longest.runs, longest.later_seconds);
    Some(Advice {
        key: Some("eval.NAME.every_epochs"),
        text: format!(
            "evaluate `{}` half as often: its {} runs take {:.0} % of the run",
            longest.name,
            longest.runs,
            100.0 * seconds / plan.time.run.max(f64::MIN_POSITIVE)
        ),
        saves_seconds: Some(seconds / 2.0),
    })
}
