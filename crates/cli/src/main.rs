//! The `dualenc` program: parses the command line, runs one command, and turns its result into an exit code.
//!
//! Results go to stdout, everything else to stderr. Only this crate prints and exits.
//!
//! - `cli`: the command line as a whole, and which command runs.
//! - `args`: options that several commands share.
//! - `commands`: one file per command, with its options.
//! - `report`: progress, metrics and errors for people and for machines.
//! - `exit`: exit codes.
//! - `signals`: SIGINT and SIGTERM.

mod args;
mod cli;
mod commands;
mod exit;
mod report;
mod signals;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::report::errors;
use crate::report::progress::Reporter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut reporter = Reporter::new(cli.log);
    let result = cli.command.run(&mut reporter);
    reporter.finish();
    if let Err(error) = &result
        && !exit::is_closed_pipe(error)
    {
        let text = errors::render(error.as_ref(), std::io::stderr().is_terminal());
        // Nothing is left to do if stderr is closed too.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    exit::code(&result).into()
}
