//! Progress of a run on stderr: a bar on a terminal, plain lines elsewhere, JSON lines for machines.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use dualenc_data::Skipped;
use dualenc_train::{Best, EvalRecord, Event, Observer, TrainRecord, counted};
use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};

use crate::report::notice;
use crate::report::{errors, json_log, metrics, param_table};

/// Format of progress messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A progress bar on a terminal, plain lines elsewhere
    Auto,
    /// Plain lines
    Plain,
    /// One JSON object per line
    Json,
}

/// Time between two plain lines about work besides training.
const WORK_INTERVAL: Duration = Duration::from_secs(10);

/// Maximum number of skipped images of one source or evaluation that are named.
const MAX_SKIPPED: usize = 3;

/// Weight of the newest step in the moving averages of speed and waiting time.
const SMOOTHING: f64 = 0.1;

/// Fraction of the time spent waiting for images above which it is reported. Loader and model share the same cores,
/// so a little waiting is normal.
const MAX_LOADER_WAIT: f64 = 0.1;

/// Maximum number of parameter names in a message.
const MAX_NAMED: usize = 6;

/// Reports events to stderr, and remembers the newest metrics.
pub struct Reporter {
    form: Form,
    /// Steps between two lines.
    log_every_steps: u64,
    started: Instant,
    total_steps: u64,
    /// Step that the run resumed from, or 0.
    first_step: u64,
    /// Pairs per second, a moving average.
    speed: Option<f64>,
    /// Fraction of the time spent waiting for the loader, a moving average.
    loader_wait: f64,
    /// Number of skipped images by what they belong to.
    skipped: BTreeMap<String, usize>,
    /// Where a command lists all skipped images that no event says it of.
    skipped_list: Option<String>,
    /// These images, each with the reason, by what they belong to; empty without such a list.
    listed: BTreeMap<String, Vec<Skipped>>,
    last_work: Option<Instant>,
    /// The newest record of each evaluation.
    evals: BTreeMap<String, EvalRecord>,
    best: Option<Best>,
    is_muted: bool,
}

enum Form {
    Bar { bar: Option<ProgressBar> },
    Plain,
    Json,
}

impl Reporter {
    pub fn new(format: LogFormat) -> Self {
        let form = match format {
            LogFormat::Json => {
                json_log::init();
                Form::Json
            }
            LogFormat::Auto if std::io::stderr().is_terminal() => Form::Bar { bar: None },
            LogFormat::Auto | LogFormat::Plain => Form::Plain,
        };
        Self {
            form,
            log_every_steps: 1,
            started: Instant::now(),
            total_steps: 0,
            first_step: 0,
            speed: None,
            loader_wait: 0.0,
            skipped: BTreeMap::new(),
            skipped_list: None,
            listed: BTreeMap::new(),
            last_work: None,
            evals: BTreeMap::new(),
            best: None,
            is_muted: false,
        }
    }

    /// Reports no events from now on: another process does.
    pub fn mute(&mut self) {
        self.is_muted = true;
    }

    /// The command lists all images that are skipped, which [`Reporter::skipped_of`] returns. `place`: where, such as
    /// "the JSON lists all".
    pub fn list_skipped(&mut self, place: String) {
        self.skipped_list = Some(place);
    }

    /// The images of `of` that were skipped, after [`Reporter::list_skipped`].
    pub fn skipped_of(&self, of: &str) -> &[Skipped] {
        self.listed.get(of).map_or(&[], Vec::as_slice)
    }

    /// Sets the number of steps between two lines of the plain or the JSON format, 1 by default.
    pub fn log_every_steps(&mut self, steps: u64) {
        self.log_every_steps = steps.max(1);
    }

    /// Reports the error that ends the program.
    pub fn report_error(&self, error: &(dyn Error + 'static), exit_code: u8) {
        match self.form {
            Form::Json => json_log::write_error(error, exit_code),
            Form::Bar { .. } | Form::Plain => to_stderr(&errors::render(error, std::io::stderr().is_terminal())),
        }
    }

    /// The newest record of each evaluation, sorted by name.
    pub fn last_evals(&self) -> impl Iterator<Item = &EvalRecord> {
        self.evals.values()
    }

    /// The best checkpoint so far.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Removes the progress bar.
    pub fn finish(&mut self) {
        notice::end();
        if let Form::Bar { bar } = &mut self.form
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }

    /// Prints a line, above the bar if there is one.
    fn print_line(&self, text: &str) {
        match &self.form {
            Form::Bar { bar: Some(bar) } => bar.suspend(|| to_stderr(text)),
            Form::Bar { bar: None } | Form::Plain => to_stderr(text),
            Form::Json => {}
        }
    }

    /// The progress bar, `None` unless this is its form.
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

    /// Whether the line of a step is printed.
    fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.log_every_steps) || step == self.total_steps
    }

    fn report_step(&mut self, record: &TrainRecord) {
        let speed = match self.speed {
            Some(speed) => speed + SMOOTHING * (record.pairs_per_sec - speed),
            None => record.pairs_per_sec,
        };
        self.speed = Some(speed);
        self.loader_wait += SMOOTHING * (record.loader_wait - self.loader_wait);
        let secs_per_step = self.started.elapsed().as_secs_f64() / (record.step - self.first_step).max(1) as f64;
        let secs_left = secs_per_step * self.total_steps.saturating_sub(record.step) as f64;
        let left = FormattedDuration(Duration::from_secs(secs_left.round() as u64));
        let text = format!(
            "epoch {:.1}  loss {:.4}  exp(logit_scale) {:.2}  {speed:.0} pairs/s{}",
            record.epoch,
            record.loss,
            record.logit_scale,
            format_loader_wait(self.loader_wait)
        );
        let total = self.total_steps;
        if let Some(bar) = self.bar(total, "{bar:24} step {pos}/{len}  {msg}") {
            bar.set_message(format!("{text}  {left} left"));
            bar.set_position(record.step);
            return;
        }
        if self.is_due(record.step) {
            let rate = record.learning_rate;
            self.print_line(&format!("step {}/{total}  {text}  learning_rate {rate:.2e}  {left} left", record.step));
        }
    }

    fn report_work(&mut self, name: &str, done: usize, total: usize) {
        if let Some(bar) = self.bar(total as u64, "{bar:24} {pos}/{len}  {msg}  {eta} left") {
            bar.set_message(name.to_owned());
            bar.set_position(done as u64);
            return;
        }
        let due = self.last_work.is_none_or(|last| last.elapsed() >= WORK_INTERVAL);
        if due && done < total {
            // The first call only starts the clock, so short work prints nothing.
            if self.last_work.is_some() {
                self.print_line(&format!("{name}: {done}/{total}"));
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
        if self.is_muted {
            return;
        }
        if let Event::Eval(record) = &event {
            self.evals.insert(record.name.clone(), (*record).clone());
        }
        if let Event::Best(best) = &event {
            self.best = Some((*best).clone());
        }
        if let (Event::Skipped { image, of, .. }, Some(_)) = (&event, &self.skipped_list) {
            self.listed.entry((*of).to_owned()).or_default().push((*image).clone());
        }
        if matches!(self.form, Form::Json) {
            if let Event::Start { total_steps, .. } = &event {
                self.total_steps = *total_steps;
            }
            match &event {
                Event::Step(record) if !self.is_due(record.step) => {}
                event => json_log::write(event),
            }
            return;
        }
        match event {
            Event::Note(text) => self.print_line(&text),
            Event::Warning(text) => self.print_line(&format!("warning: {text}")),
            Event::Audit { part, audit } => {
                if !audit.missing.is_empty() {
                    let names = format_names(&audit.missing);
                    self.print_line(&format!("warning: {part}: not in the weights, starts at random: {names}"));
                }
                if !audit.unused.is_empty() {
                    self.print_line(&format!("{part}: in the weights, not used: {}", format_names(&audit.unused)));
                }
            }
            Event::Parts(parts) => self.print_line(&param_table::render(parts)),
            Event::Start { step, total_steps, steps_per_epoch } => {
                (self.first_step, self.total_steps, self.started) = (step, total_steps, Instant::now());
                let from = if step > 0 { format!("resuming after step {step}: ") } else { String::new() };
                let steps = counted(total_steps as usize, "step");
                self.print_line(&format!("{from}{steps}, {steps_per_epoch} per epoch"));
            }
            Event::Step(record) => self.report_step(record),
            Event::Skipped { image, of, listed_in } => {
                let count = self.skipped.entry(of.to_owned()).or_insert(0);
                *count += 1;
                let count = *count;
                match count.cmp(&(MAX_SKIPPED + 1)) {
                    Ordering::Less => {
                        self.print_line(&format!("warning: skipped `{}`: {}", image.key, image.reason));
                    }
                    Ordering::Equal => {
                        let list = match (listed_in, &self.skipped_list) {
                            (Some(path), _) => format!("`{}` lists all", path.display()),
                            (None, Some(list)) => list.clone(),
                            (None, None) => "their names are not printed".to_owned(),
                        };
                        self.print_line(&format!("warning: more images of {of} are skipped: {list}"));
                    }
                    Ordering::Greater => {}
                }
            }
            Event::Work { name, done, total } => self.report_work(name, done, total),
            Event::Eval(record) => {
                self.print_line(&format!("step {}  {}: {}", record.step, record.name, metrics::summary(record)))
            }
            Event::Best(best) => {
                let note = match best.better_baseline() {
                    Some(baseline) => format!("best after step 0, but worse than the baseline {baseline:.4}"),
                    None => "new best".to_owned(),
                };
                self.print_line(&format!("step {}  {note}: {} {:.4}", best.step, best.metric, best.value));
            }
            Event::Saved { path, took } => {
                self.print_line(&format!("saved {} ({:.1} s)", path.display(), took.as_secs_f64()));
            }
            _ => {}
        }
    }
}

/// The first names, and the number of the others.
fn format_names(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names[..names.len().min(MAX_NAMED)].join(", "))
}

fn to_stderr(text: &str) {
    // A closed stderr does not stop a run.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says that the loader bounds the speed, if it does.
fn format_loader_wait(fraction: f64) -> String {
    if fraction > MAX_LOADER_WAIT { format!("  waiting for images {:.0} %", fraction * 100.0) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_loader_wait() {
        assert_eq!(format_loader_wait(0.344), "  waiting for images 34 %");
        assert_eq!(format_loader_wait(0.05), "");
    }
}
