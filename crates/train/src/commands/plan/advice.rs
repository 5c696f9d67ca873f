//! Which one key to change first. Each piece of advice follows from figures of the plan.

use crate::commands::plan::report::{Advice, Plan, StepPlan};
use crate::commands::plan::stage::MeasuredStage;

/// Smallest fraction of the run's time that is worth a change.
const NOTABLE: f64 = 0.1;

/// Fraction of the available memory above which a run may be ended by the system.
const FULL: f64 = 0.9;

/// Fraction of the run's time that checkpoints take when they are as rare as advised.
const CHECKPOINT_SHARE: f64 = 0.01;

/// What the advice needs besides the plan.
pub(super) struct Facts<'a> {
    /// `cache.enabled`.
    pub cache_enabled: bool,
    /// Whether training images are augmented.
    pub is_augmented: bool,
    /// `checkpoint.every_steps`.
    pub checkpoint_every: u64,
    /// The longest stage.
    pub stage: &'a MeasuredStage,
    /// Whether tensors are in host memory, and loader and model share the cores.
    pub on_host: bool,
    /// Whether this processor trains faster in bf16, and the run does not use it.
    pub bf16_is_faster: bool,
}

/// The change that saves the most time, if that is a tenth of the run; before all, one without which the run does not
/// fit into memory.
pub(super) fn choose(plan: &Plan, facts: &Facts<'_>) -> Advice {
    if let Some(advice) = memory(plan) {
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
    let bf16 = match facts.bf16_is_faster {
        true => "; on this processor, `run.precision = \"bf16\"` is faster and rounds (docs/TRAINING.md, Precision)",
        false => "",
    };
    Advice {
        key: None,
        text: format!("nothing stands out: no key is seen to save {:.0} % of the run{largest}{bf16}", NOTABLE * 100.0),
        saves_seconds: None,
    }
}

fn memory(plan: &Plan) -> Option<Advice> {
    let (peak, available) = (plan.memory.peak?, plan.memory.available?);
    if (peak as f64) < FULL * available as f64 {
        return None;
    }
    let size = plan.data.micro_batch_size.unwrap_or(plan.data.batch_size);
    let fits = plan.memory.batch_that_fits.filter(|fits| *fits > 0 && *fits < size).unwrap_or(size / 2).max(1);
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let same = if plan.data.micro_batch_size.is_some() { "" } else { "; the gradients stay the same" };
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
    if facts.cache_enabled {
        return None;
    }
    let step = &facts.stage.plan.step;
    let image = seconds_of(step, "locked image tower");
    let waiting = if image > 0.0 { seconds_of(step, "waiting for images") } else { 0.0 };
    let each = image + waiting + seconds_of(step, "locked text tower");
    let views = if facts.is_augmented && image > 0.0 { ", with `cache.views` since images are augmented" } else { "" };
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
    let meanwhile = if images.keeps_up {
        "on cores that the model needs too".to_owned()
    } else {
        format!("and a step waits {percent:.0} % of its time")
    };
    Some(Advice {
        key: Some("data.train"),
        text: format!("{what}: reading and decoding takes {:.1} ms an image on one thread, {meanwhile}", each * 1e3),
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
            "set it to {twice}, with a learning rate to match: {:.0} % of the time of a batch of {size} does not \
             depend on its size",
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
    let every = facts.checkpoint_every.max(1);
    let per_step = plan.time.training / plan.data.total_steps.max(1) as f64;
    let better = (each / (CHECKPOINT_SHARE * per_step.max(f64::MIN_POSITIVE))).ceil().min(plan.data.total_steps as f64);
    if better <= every as f64 {
        return None;
    }
    let saves = plan.time.checkpoints - each * plan.data.total_steps as f64 / better.max(1.0);
    Some(Advice {
        key: Some("checkpoint.every_steps"),
        text: format!(
            "set it to {better:.0}: a checkpoint takes {each:.2} s, as long as {:.1} steps, and one is written every \
             {every}",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::plan::memory::Probe;
    use crate::commands::plan::parts::Parts;
    use crate::commands::plan::report::{
        CheckpointPlan, DataPlan, EvaluationPlan, LoadingPlan, MemoryPlan, Share, StagePlan, TimePlan,
    };
    use crate::commands::plan::stage::Filling;

    /// A run of 1000 steps of one second in which nothing stands out.
    fn even() -> (Plan, MeasuredStage) {
        let share = |part, share| Share { part, seconds: share, share };
        let parts = vec![share("waiting for images", 0.0), share("locked image tower", 0.5), share("text tower", 0.5)];
        let step = StepPlan { measured: 5, seconds: 1.0, pairs_per_second: 100.0, parts };
        let stage =
            StagePlan { lock: "LU".to_owned(), from_step: 0, steps: 1000, step, cached_step: None, seconds: 1000.0 };
        let probe = |pairs, seconds| Probe { pairs, seconds, peak: None };
        let measured = MeasuredStage {
            plan: stage.clone(),
            probes: [probe(50, 0.5), probe(100, 1.0)],
            peak: None,
            trainable: 1,
            filling: Filling::default(),
            parts: Parts::default(),
            loaded_per_step: 100.0,
        };
        let plan = Plan {
            device: "cpu".to_owned(),
            threads: 4,
            parameters: Vec::new(),
            data: DataPlan {
                images: 10_000,
                captions: 10_000,
                pairs: 10_000,
                batch_size: 100,
                captions_per_pair: 1,
                micro_batch_size: None,
                steps_per_epoch: 100,
                total_steps: 1000,
                epochs: 10.0,
            },
            stages: vec![stage],
            fit: None,
            images: LoadingPlan {
                measured: 32,
                unusable: 0,
                read_seconds: 0.0,
                decode_seconds: 0.001,
                workers: 4,
                images_per_second: Some(4000.0),
                needed_per_second: 100.0,
                waiting: 0.0,
                keeps_up: true,
            },
            evaluations: Vec::new(),
            checkpoints: CheckpointPlan { count: 10, bytes: 1, seconds: Some(0.1) },
            memory: MemoryPlan {
                parameters: 1,
                gradients: 1,
                optimizer: 1,
                teacher: 0,
                loaded: None,
                activations: None,
                activations_per_pair: None,
                measured_pairs: [50, 100],
                peak: Some(1_000_000_000),
                available: Some(8_000_000_000),
                batch_that_fits: None,
            },
            cache: Vec::new(),
            cache_disk_free: None,
            time: TimePlan {
                start: 0.0,
                fit: 0.0,
                fit_alone: None,
                first_epoch: 100.0,
                later_epoch: 100.0,
                training: 1000.0,
                filling_cache: 0.0,
                teacher: 0.0,
                evaluations: 0.0,
                checkpoints: 1.0,
                run: 1001.0,
            },
            advice: Advice { key: None, text: String::new(), saves_seconds: None },
            notes: Vec::new(),
        };
        (plan, measured)
    }

    /// The advice for a run that `change` has made stand out.
    #[test]
    fn bf16_is_named_where_it_is_faster() {
        let (plan, stage) = even();
        let text = |bf16_is_faster| choose(&plan, &facts(true, &stage, bf16_is_faster)).text;
        assert!(text(true).contains("`run.precision = \"bf16\"` is faster"), "{}", text(true));
        assert!(!text(false).contains("bf16"), "{}", text(false));
    }

    fn facts(cache_enabled: bool, stage: &MeasuredStage, bf16_is_faster: bool) -> Facts<'_> {
        Facts { cache_enabled, is_augmented: false, checkpoint_every: 100, stage, on_host: true, bf16_is_faster }
    }

    fn advice(cache_enabled: bool, change: impl FnOnce(&mut Plan, &mut MeasuredStage)) -> Advice {
        let (mut plan, mut stage) = even();
        change(&mut plan, &mut stage);
        choose(&plan, &facts(cache_enabled, &stage, false))
    }

    #[test]
    fn nothing_stands_out() {
        let found = advice(true, |_, _| {});
        assert_eq!((found.key, found.saves_seconds), (None, None));
        assert!(
            found.text.starts_with("nothing stands out") && found.text.contains("takes 50 % of a step"),
            "{found:?}"
        );
    }

    #[test]
    fn largest_saving_is_named() {
        // A locked tower computes half of each step again in 900 of 1000 steps.
        let found = advice(false, |_, _| {});
        assert_eq!((found.key, found.saves_seconds), (Some("cache.enabled"), Some(450.0)));
        assert!(found.text.contains("50 % of each step"), "{found:?}");

        let waits = |stage: &mut MeasuredStage| {
            stage.plan.step.parts[0].seconds = 0.4;
            stage.plan.step.parts[1].seconds = 0.1;
        };
        let found = advice(true, |plan, stage| {
            plan.images.workers = 1;
            waits(stage);
        });
        assert_eq!((found.key, found.saves_seconds), (Some("data.workers"), Some(400.0)));
        assert!(found.text.contains("set it to 4") && found.text.contains("waits 40 % of its time"), "{found:?}");

        let found = advice(true, |plan, stage| {
            plan.images.keeps_up = false;
            waits(stage);
        });
        assert_eq!((found.key, found.saves_seconds), (Some("data.train"), Some(400.0)));
        assert!(found.text.contains("1.0 ms an image") && found.text.contains("waits 40 %"), "{found:?}");
    }

    #[test]
    fn rare_work_may_be_too_frequent() {
        let found = advice(true, |plan, _| {
            plan.checkpoints = CheckpointPlan { count: 10, bytes: 1, seconds: Some(30.0) };
            (plan.time.checkpoints, plan.time.run) = (300.0, 1300.0);
        });
        // 30 s are 1 % of 3000 steps, more than the run has.
        assert_eq!((found.key, found.saves_seconds), (Some("checkpoint.every_steps"), Some(270.0)));
        assert!(found.text.contains("set it to 1000: a checkpoint takes 30.00 s"), "{found:?}");

        let found = advice(true, |plan, _| {
            let (name, images, texts) = ("val".to_owned(), 1, 1);
            let [first_seconds, later_seconds] = [40.0; 2];
            plan.evaluations = vec![EvaluationPlan { name, images, texts, runs: 11, first_seconds, later_seconds }];
            (plan.time.evaluations, plan.time.run) = (440.0, 1440.0);
        });
        assert_eq!((found.key, found.saves_seconds), (Some("eval.NAME.every_epochs"), Some(200.0)));
        assert!(found.text.contains("`val` half as often: its 11 runs take 28 %"), "{found:?}");
    }

    #[test]
    fn batch_size_follows_from_measurements() {
        // 0.6 s of each step are there whatever the size: a batch of 200 takes 1.4 s instead of twice 1.
        let fixed = |stage: &mut MeasuredStage| stage.probes[0].seconds = 0.8;
        let found = advice(true, |_, stage| fixed(stage));
        assert_eq!(found.key, Some("train.batch_size"));
        assert!(found.text.contains("set it to 200") && found.text.contains("60 %"), "{found:?}");
        assert!((found.saves_seconds.unwrap() - 300.0).abs() < 1.0, "{found:?}");
        let found = advice(true, |plan, stage| {
            plan.memory.batch_that_fits = Some(128);
            fixed(stage);
        });
        assert_eq!(found.key, None, "it would not fit");

        let found = advice(true, |plan, stage| {
            plan.data.micro_batch_size = Some(25);
            plan.memory.batch_that_fits = Some(128);
            stage.parts = Parts { text: 1.0, forward: [0.0, 0.25], ..Parts::default() };
        });
        assert_eq!((found.key, found.saves_seconds), (Some("train.micro_batch_size"), Some(250.0)));
    }

    #[test]
    fn memory_comes_first() {
        let found = advice(false, |plan, _| {
            plan.memory.peak = Some(7_500_000_000);
            plan.memory.batch_that_fits = Some(64);
        });
        assert_eq!((found.key, found.saves_seconds), (Some("train.micro_batch_size"), None));
        assert!(found.text.contains("set it to 64") && found.text.contains("7.5 GB of the 8.0 GB"), "{found:?}");
    }
}
