//! `dualenc`: parse, run, exit code. Only this crate prints and exits.

mod args;
mod commands;
mod diagnostics;
mod figures;
mod inspection;
mod interpolation;
mod progress;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use dualenc_train::{Fault, TrainError};

use crate::args::{Arguments, Command};
use crate::progress::Reporter;

/// The run failed.
const FAILED: u8 = 1;
/// Bad usage, config or data; clap exits with the same.
const BAD_INPUT: u8 = 2;
/// Loss or gradient not finite.
const NOT_FINITE: u8 = 3;
/// Added to a signal's number.
const SIGNALLED: u8 = 128;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut reporter = Reporter::new(arguments.log);
    let result = match arguments.command {
        Command::Train(command) => commands::train(command, &mut reporter),
        Command::Eval(command) => commands::eval(command, &mut reporter),
        Command::Embed(command) => commands::embed(command, &mut reporter),
        Command::Interpolate(command) => interpolation::interpolate(command, &mut reporter),
        Command::Export(command) => commands::export(command, &mut reporter),
        Command::Inspect(command) => commands::inspect(command, &mut reporter),
        Command::Cache(command) => commands::cache(command, &mut reporter),
        Command::Check(command) => commands::check(command, &mut reporter),
    };
    reporter.finish();
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(signal)) => ExitCode::from(SIGNALLED + signal),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let text = diagnostics::render(error.as_ref(), std::io::stderr().is_terminal());
            // Nothing is left to be done if stderr is closed too.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The exit code of a failed command.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<TrainError>().map(TrainError::fault) {
        Some(Fault::NotFinite) => NOT_FINITE,
        Some(Fault::Run) => FAILED,
        Some(Fault::Input) => BAD_INPUT,
        None if error.is::<dualenc_train::config::ConfigError>() => BAD_INPUT,
        _ => FAILED,
    }
}

/// Whoever read the results has gone: that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref::<std::io::Error>().is_some_and(broken)
}
