//! Trains from a config with an observer of its own, and stops early when the loss is low enough.
//!
//! ```sh
//! cargo run --release -p dualenc-train --example train_with_observer -- configs/tiny.toml 0.5
//! ```

#![allow(clippy::print_stdout, reason = "an example prints what it observes")]

use std::error::Error;
use std::path::Path;

use dualenc_train::config::RunConfig;
use dualenc_train::{Event, Observer, Outcome, Start, StopFlag, train};

/// Prints the loss now and then, and asks the run to stop once it is below `target`.
struct StopAtLoss {
    target: f64,
    stop: StopFlag,
}

/// Stands for a signal in [`Outcome::Stopped`]; any number but 0 will do.
const TARGET_REACHED: usize = 1;

impl Observer for StopAtLoss {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Step(record) => {
                if record.step.is_multiple_of(10) {
                    println!("step {:>5}  loss {:.4}", record.step, record.loss);
                }
                if record.loss < self.target {
                    self.stop.request(TARGET_REACHED);
                }
            }
            Event::Eval(record) => println!("step {:>5}  {}: {:?}", record.step, record.name, record.metrics),
            Event::Warning(warning) => println!("warning: {warning}"),
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, target] = &arguments[..] else {
        return Err("usage: train_with_observer CONFIG TARGET_LOSS".into());
    };
    let config = RunConfig::load(Path::new(config), &[])?;
    let stop = StopFlag::default();
    let mut observer = StopAtLoss { target: target.parse()?, stop: stop.clone() };

    // With `true` instead, a run that was stopped continues from its newest checkpoint.
    match train(&config, Start::New, &stop, &mut observer)? {
        Outcome::Stopped { step, .. } => println!("reached the target after step {step}; the state is saved"),
        Outcome::Finished { step } => println!("finished after step {step} without reaching the target"),
        _ => {}
    }
    Ok(())
}
