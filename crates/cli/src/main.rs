//! The `dualenc` program: parses the command line, runs one command, and turns its result into an exit code.
//!
//! Results go to stdout, everything else to stderr. Only this crate prints and exits.
//!
//! - `cli`: the command line as a whole, and which command runs.
//! - `args`: options that several commands share.
//! - `commands`: one file per command, with its options.
//! - `report`: progress, metrics and errors for people and for machines.
//! - `exit`: exit codes.
//! - `signals`: SIGINT, SIGTERM and SIGHUP.

mod args;
mod cli;
mod commands;
mod exit;
mod report;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use dualenc_train::{Processes, catch_device_failures};

use crate::cli::Cli;
use crate::report::json_log;
use crate::report::progress::Reporter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let mut reporter = Reporter::new(cli.log);
    let run = || catch_device_failures(|| cli.command.run(&mut reporter));
    let result = signals::ignore_file_limit().and_then(|()| run());
    reporter.finish();
    let code = exit::code(&result);
    // Of several processes that train together, one reports.
    Processes::leave(|| {
        if let Err(error) = &result
            && !exit::is_closed_pipe(error)
        {
            reporter.report_error(error.as_ref(), code);
        }
    });
    code.into()
}

/// Prints what is wrong with the command line, or the help that it asks for.
fn report_usage(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(exit::BAD_INPUT);
    let arguments: Vec<_> = std::env::args_os().collect();
    let asks_for_json = arguments.iter().any(|argument| argument == "--log=json")
        || arguments.windows(2).any(|pair| pair[0] == "--log" && pair[1] == "json");
    if error.use_stderr() && asks_for_json {
        let text = error.to_string();
        json_log::write_message(text.strip_prefix("error: ").unwrap_or(&text), code);
    } else {
        // Nothing is left to do if the output is closed.
        let _ = error.print();
    }
    code.into()
}
