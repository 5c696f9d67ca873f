//! The command line: global options, and the list of commands.

use clap::{CommandFactory, Parser, Subcommand};
use dualenc_train::{Event, Observer, Processes, TrainError};

use crate::commands::about::{completions, man, schema};
#[cfg(feature = "serve")]
use crate::commands::apply::serve::command as serve;
use crate::commands::apply::{classify, index, search};
use crate::commands::pages::{compare, metrics, report};
use crate::commands::{
    cache, check, data, embed, eval, export, fit, init, inspect, interpolate, plan, probe, select, train,
};
use crate::exit::Ending;
use crate::report::progress::{LogFormat, Reporter};

/// Train and evaluate dual encoders of images and texts
///
/// Aligns a pretrained image tower with a pretrained text tower by contrastive training (LiT), for classification and
/// retrieval without labels.
#[derive(Debug, Parser)]
#[command(name = "dualenc", version, max_term_width = 110, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// Format of progress messages on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Auto,
        help_heading = "Global options"
    )]
    pub log: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the run failed
  2    bad usage, config or data
  3    loss or gradient not finite
  130  stopped by SIGINT, after saving what training needs (143: SIGTERM, 129: SIGHUP)

Results go to stdout, everything else to stderr.";

// The help text of a command is the doc comment of its options.
#[derive(Debug, Subcommand)]
pub enum Command {
    Train(train::TrainArgs),
    Fit(fit::FitArgs),
    Eval(eval::EvalArgs),
    Report(report::ReportArgs),
    Compare(compare::CompareArgs),
    Metrics(metrics::MetricsArgs),
    Embed(embed::EmbedArgs),
    Index(index::IndexArgs),
    Search(search::SearchArgs),
    Classify(classify::ClassifyArgs),
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    Interpolate(interpolate::InterpolateArgs),
    Export(export::ExportArgs),
    Cache(cache::CacheArgs),
    Init(init::InitArgs),
    Check(check::CheckArgs),
    Plan(plan::PlanArgs),
    Probe(probe::ProbeArgs),
    Select(select::SelectArgs),
    Data(data::DataArgs),
    Inspect(inspect::InspectArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

impl Command {
    /// Runs the command. One that a signal stopped has not failed.
    pub fn run(self, reporter: &mut Reporter) -> anyhow::Result<Ending> {
        if !self.may_run_in_several() {
            Processes::refuse_several()?;
        }
        self.run_to_end(reporter).or_else(|error| match error.downcast_ref() {
            Some(&TrainError::Stopped { signal }) => {
                reporter.on(Event::Note("stopped by a signal; nothing was written".to_owned()));
                Ok(Ending::Stopped(signal))
            }
            _ => Err(error),
        })
    }

    /// Whether several processes may run it: they share its work, or it only says what the program knows of itself.
    fn may_run_in_several(&self) -> bool {
        matches!(self, Self::Train(_) | Self::Schema(_) | Self::Completions(_) | Self::Man(_))
    }

    fn run_to_end(self, reporter: &mut Reporter) -> anyhow::Result<Ending> {
        match self {
            Self::Train(args) => train::run(args, reporter),
            Self::Fit(args) => fit::run(args, reporter),
            Self::Eval(args) => eval::run(args, reporter),
            Self::Report(args) => report::run(args, reporter),
            Self::Compare(args) => compare::run(args, reporter),
            Self::Metrics(args) => metrics::run(args, reporter),
            Self::Embed(args) => embed::run(args, reporter),
            Self::Index(args) => index::run(args),
            Self::Search(args) => search::run(args, reporter),
            Self::Classify(args) => classify::run(args, reporter),
            #[cfg(feature = "serve")]
            Self::Serve(args) => serve::run(args, reporter),
            Self::Interpolate(args) => interpolate::run(args, reporter),
            Self::Export(args) => export::run(args, reporter),
            Self::Cache(args) => cache::run(args, reporter),
            Self::Init(args) => init::run(args, reporter),
            Self::Check(args) => check::run(args, reporter),
            Self::Plan(args) => plan::run(args, reporter),
            Self::Probe(args) => probe::run(args, reporter),
            Self::Select(args) => select::run(args, reporter),
            Self::Data(args) => data::run(args, reporter),
            Self::Inspect(args) => inspect::run(args, reporter),
            Self::Schema(args) => schema::run(args),
            Self::Completions(args) => completions::run(args, Cli::command()),
            Self::Man(args) => man::run(args, Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_has_help() {
        let mut program = Cli::command();
        program.build();
        for command in std::iter::once(&program).chain(program.get_subcommands()) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some_and(|help| !help.to_string().is_empty()), "{name} {}", arg.get_id());
            }
        }
    }
}
