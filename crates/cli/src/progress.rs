//! Tells on stderr what a run does: a bar on a terminal, plain lines elsewhere, JSON lines for machines.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use dualenc_train::{Best, EvalRecord, Event, Observer, ParamGroup, TrainRecord};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Log;
use crate::figures;

/// Between two plain lines about long work.
const WORK_EVERY: Duration = Duration::from_secs(10);

/// Images that cannot be used are named up to this many; the rest is counted.
const MOST_SKIPPED: usize = 20;

/// Weight of the newest step in the shown speed.
const SPEED_SMOOTHING: f64 = 0.1;

/// Share of the time in which a run may wait for its images without being told to bound it by them: loader and model take
/// turns on the same cores, so a little waiting is everywhere.
const MOST_WAITING: f64 = 0.1;

/// The one who tells.
pub struct Reporter {
    form: Form,
    log_every_steps: u64,
    started: Instant,
    total_steps: u64,
    first_step: u64,
    /// Pairs a second, smoothed.
    speed: Option<f64>,
    /// Share of the time spent waiting for the loader, smoothed.
    waiting: f64,
    skipped: usize,
    last_work: Option<Instant>,
    /// The newest figures of each evaluation.
    evals: BTreeMap<String, EvalRecord>,
    best: Option<Best>,
}

enum Form {
    Bar { bar: Option<ProgressBar> },
    Plain,
    Json,
}

impl Reporter {
    pub fn new(log: Log) -> Self {
        let form = match log {
            Log::Json => {
                tracing_subscriber::fmt()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr)
                    .with_target(false)
                    .init();
                Form::Json
            }
            Log::Auto if std::io::stderr().is_terminal() => Form::Bar { bar: None },
            Log::Auto | Log::Plain => Form::Plain,
        };
        Self {
            form,
            log_every_steps: 1,
            started: Instant::now(),
            total_steps: 0,
            first_step: 0,
            speed: None,
            waiting: 0.0,
            skipped: 0,
            last_work: None,
            evals: BTreeMap::new(),
            best: None,
        }
    }

    /// Steps between two plain lines.
    pub fn log_every_steps(&mut self, steps: u64) {
        self.log_every_steps = steps.max(1);
    }

    /// The newest figures of every evaluation, by name.
    pub fn last_evals(&self) -> impl Iterator<Item = &EvalRecord> {
        self.evals.values()
    }

    /// The best checkpoint so far.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Form::Bar { bar } = &mut self.form
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }

    /// A line for a person, above the bar if there is one.
    fn line(&self, text: &str) {
        match &self.form {
            Form::Bar { bar: Some(bar) } => bar.suspend(|| to_stderr(text)),
            Form::Bar { bar: None } | Form::Plain => to_stderr(text),
            Form::Json => {}
        }
    }

    fn bar(&mut self, length: u64, template: &str) -> Option<&ProgressBar> {
        let Form::Bar { bar } = &mut self.form else { return None };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.get_or_insert_with(ProgressBar::no_length);
        if bar.length() != Some(length) {
            bar.reset();
            bar.set_length(length);
            bar.set_style(style.progress_chars("=> "));
        }
        Some(bar)
    }

    fn step(&mut self, record: &TrainRecord) {
        let speed = match self.speed {
            Some(speed) => speed + SPEED_SMOOTHING * (record.pairs_per_sec - speed),
            None => record.pairs_per_sec,
        };
        self.speed = Some(speed);
        self.waiting += SPEED_SMOOTHING * (record.loader_wait - self.waiting);
        let rest = self.started.elapsed().as_secs_f64() / (record.step - self.first_step).max(1) as f64
            * self.total_steps.saturating_sub(record.step) as f64;
        let text = format!(
            "epoch {:.1}  loss {:.4}  logit_scale {:.2}  {speed:.0} pairs/s{}",
            record.epoch,
            record.loss,
            record.logit_scale,
            bound(self.waiting)
        );
        let total = self.total_steps;
        if let Some(bar) = self.bar(total, "{bar:24} step {pos}/{len}  {msg}") {
            bar.set_message(format!("{text}  {} left", clock(rest)));
            bar.set_position(record.step);
            return;
        }
        if record.step.is_multiple_of(self.log_every_steps) || record.step == total {
            let rate = record.learning_rate;
            self.line(&format!("step {}/{total}  {text}  learning_rate {rate:.2e}  {} left", record.step, clock(rest)));
        }
    }

    fn work(&mut self, name: &str, done: usize, total: usize) {
        if let Some(bar) = self.bar(total as u64, "{bar:24} {pos}/{len}  {msg}  {eta} left") {
            bar.set_message(name.to_owned());
            bar.set_position(done as u64);
            return;
        }
        let due = self.last_work.is_none_or(|last| last.elapsed() >= WORK_EVERY);
        if due && done < total {
            // Short work never speaks: the first call only starts the clock.
            if self.last_work.is_some() {
                self.line(&format!("{name}: {done}/{total}"));
            }
            self.last_work = Some(Instant::now());
        }
        if done == total {
            self.last_work = None;
        }
    }
}

impl Observer for Reporter {
    fn on(&mut self, event: Event<'_>) {
        if let Event::Eval(record) = &event {
            self.evals.insert(record.name.clone(), (*record).clone());
        }
        if let Event::Best(best) = &event {
            self.best = Some((*best).clone());
        }
        if matches!(self.form, Form::Json) {
            return json(&event);
        }
        match event {
            Event::Note(text) => self.line(&text),
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Audit { part, audit } => {
                let named = |names: &[String]| {
                    let first: Vec<&str> = names.iter().take(6).map(String::as_str).collect();
                    let more = if names.len() > 6 { format!(" and {} more", names.len() - 6) } else { String::new() };
                    format!("{}{more}", first.join(", "))
                };
                if !audit.missing.is_empty() {
                    self.line(&format!(
                        "warning: {part}: not in the weights, starts at random: {}",
                        named(&audit.missing)
                    ));
                }
                if !audit.unused.is_empty() {
                    self.line(&format!("{part}: in the weights, not used: {}", named(&audit.unused)));
                }
            }
            Event::Groups(groups) => self.line(&table(groups)),
            Event::Start { step, total_steps, steps_per_epoch } => {
                (self.first_step, self.total_steps, self.started) = (step, total_steps, Instant::now());
                let from = if step > 0 { format!("going on after step {step}: ") } else { String::new() };
                self.line(&format!("{from}{total_steps} steps, {steps_per_epoch} an epoch"));
            }
            Event::Step(record) => self.step(record),
            Event::Skipped(skipped) => {
                self.skipped += 1;
                match self.skipped.cmp(&(MOST_SKIPPED + 1)) {
                    std::cmp::Ordering::Less => {
                        self.line(&format!("warning: skipped `{}`: {}", skipped.key, skipped.reason));
                    }
                    std::cmp::Ordering::Equal => {
                        self.line("warning: more images are skipped; they are not named any more")
                    }
                    std::cmp::Ordering::Greater => {}
                }
            }
            Event::Work { name, done, total } => self.work(name, done, total),
            Event::Eval(record) => {
                self.line(&format!("step {}  {}: {}", record.step, record.name, figures::summary(record)))
            }
            Event::Best(best) => {
                self.line(&format!("step {}  the best so far: {} {:.4}", best.step, best.goal, best.value));
            }
            Event::Saved { path, took } => {
                self.line(&format!("saved {} ({:.1} s)", path.display(), took.as_secs_f64()));
            }
            _ => {}
        }
    }
}

fn to_stderr(text: &str) {
    // A closed stderr is no reason to stop a run.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The event as one JSON line.
fn json(event: &Event<'_>) {
    match event {
        Event::Note(text) => tracing::info!(kind = "note", text),
        Event::Warning(text) => tracing::warn!(kind = "warning", text),
        Event::Audit { part, audit } => {
            tracing::info!(kind = "audit", part, loaded = audit.loaded, missing = ?audit.missing, unused = ?audit.unused);
        }
        Event::Groups(groups) => {
            for group in *groups {
                tracing::info!(
                    kind = "parameters",
                    group = group.name,
                    trainable = group.trainable,
                    locked = group.locked,
                    learning_rates = ?group.rates.unwrap_or_default(),
                    weight_decays = ?group.decays.unwrap_or_default()
                );
            }
        }
        Event::Start { step, total_steps, steps_per_epoch } => {
            tracing::info!(kind = "start", step, total_steps, steps_per_epoch);
        }
        Event::Step(record) => tracing::info!(
            kind = "train",
            step = record.step,
            epoch = record.epoch,
            samples_seen = record.samples_seen,
            loss = record.loss,
            learning_rate = record.learning_rate,
            logit_scale = record.logit_scale,
            grad_norm = record.grad_norm,
            pairs_per_sec = record.pairs_per_sec,
            loader_wait = record.loader_wait
        ),
        Event::Skipped(skipped) => tracing::warn!(kind = "skipped", image = skipped.key, reason = skipped.reason),
        Event::Work { name, done, total } => tracing::info!(kind = "work", name, done, total),
        Event::Best(best) => {
            tracing::info!(kind = "best", step = best.step, metric = %best.goal, value = best.value);
        }
        Event::Eval(record) => {
            let metrics = serde_json::Value::Object(record.metrics.clone()).to_string();
            tracing::info!(kind = "eval", step = record.step, name = record.name, task = record.task, metrics);
        }
        Event::Saved { path, took } => {
            tracing::info!(kind = "saved", path = %path.display(), secs = took.as_secs_f64());
        }
        _ => {}
    }
}

/// What trains and what does not, as a table; with rates and decays where they differ.
fn table(groups: &[ParamGroup]) -> String {
    let count = |values: usize| match values {
        0 => "-".to_owned(),
        1..1_000 => values.to_string(),
        1_000..1_000_000 => format!("{:.1} k", values as f64 / 1e3),
        _ => format!("{:.2} M", values as f64 / 1e6),
    };
    let total = |values: fn(&ParamGroup) -> usize| count(groups.iter().map(values).sum());
    let mut lines = vec![format!("{:18} {:>10} {:>10}", "parameters", "trainable", "locked")];
    for group in groups {
        lines.push(format!("{:18} {:>10} {:>10}", group.name, count(group.trainable), count(group.locked)));
    }
    type Range = fn(&ParamGroup) -> Option<[f64; 2]>;
    for (title, range) in [("learning rate", (|group| group.rates) as Range), ("weight decay", |group| group.decays)] {
        let mut values = groups.iter().filter_map(range).flatten();
        let first = values.next();
        if values.all(|value| Some(value) == first) {
            continue;
        }
        let shown = std::iter::once(title.to_owned()).chain(groups.iter().map(|group| match range(group) {
            None => "-".to_owned(),
            Some([lowest, highest]) if lowest == highest => number(lowest),
            Some([lowest, highest]) => format!("{} to {}", number(lowest), number(highest)),
        }));
        lines.iter_mut().zip(shown).for_each(|(line, shown)| *line += &format!(" {shown:>20}"));
    }
    lines.push(format!("{:18} {:>10} {:>10}", "all", total(|group| group.trainable), total(|group| group.locked)));
    lines.join("\n")
}

/// With three digits, without needless zeros.
fn number(value: f64) -> String {
    let rounded = format!("{value:.2e}").parse().unwrap_or(value);
    if (1e-2..1e3).contains(&value) || value == 0.0 { format!("{rounded}") } else { format!("{rounded:e}") }
}

/// What bounds a run that waits for this share of its time, if it is not the model.
fn bound(waiting: f64) -> String {
    match waiting > MOST_WAITING {
        true => format!("  waiting for images {:.0} %", waiting * 100.0),
        false => String::new(),
    }
}

/// Seconds as `1:02:03` or `2:03`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_waits_for_its_images_says_so() {
        assert_eq!(bound(0.344), "  waiting for images 34 %");
        assert_eq!(bound(0.05), "");
    }
}
