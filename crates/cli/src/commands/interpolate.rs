//! `dualenc interpolate`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::config::RunConfig;
use dualenc_train::{
    Compute, EvalRecord, Event, ExportRequest, Inputs, Interpolation, Observer, TrainError, export, fit_to_run,
};
use serde_json::json;

use crate::args::{ModelArgs, load_model};
use crate::commands::eval::open_evaluations;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::{metrics, results};
use crate::signals::Signals;

/// Interpolate a trained model with its starting point (WiSE-FT)
///
/// Evaluates the weights `(1 - alpha) * base + alpha * model` at each alpha, or writes the model at one alpha
/// (`--out`). See arXiv:2109.01903.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc interpolate --model runs/first --alpha 0,0.25,0.5,0.75,1
  dualenc interpolate --model runs/first --alpha 0.5 --out hf")]
pub struct InterpolateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Interpolate with this run, checkpoint or whole model [default: where the run of the model started]
    ///
    /// It must have the same architecture as the model.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub base: Option<PathBuf>,
    /// Weight of the model, from 0 (the base) to 1 (the model); several are separated by commas
    #[arg(long, value_name = "ALPHA[,...]", value_delimiter = ',', required = true, value_parser = parse_alpha)]
    pub alpha: Vec<f64>,
    /// Run every `[eval.NAME]` of this config [default: those of the model's run]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "out")]
    pub config: Option<PathBuf>,
    /// Override a config key (repeatable); an empty value removes the key
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    pub overrides: Vec<String>,
    /// Write the metrics as JSON to this file; `-` prints JSON instead of the table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "out")]
    pub json: Option<PathBuf>,
    /// Evaluate nothing; export the model at the one given alpha to this directory, which must be new or empty
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N [default: `run.device` of --config, or cpu]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

fn parse_alpha(text: &str) -> Result<f64, String> {
    let alpha = text.trim().parse().ok().filter(|alpha| (0.0..=1.0).contains(alpha));
    alpha.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// The evaluations at one alpha.
struct Row {
    alpha: f64,
    records: Vec<EvalRecord>,
}

pub fn run(args: InterpolateArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let given = args.config.as_deref().map(|path| RunConfig::load(path, &args.overrides)).transpose()?;
    let mut inputs =
        Inputs::new().models("--model", [args.model.model.as_path()]).models("--base", args.base.as_deref());
    if let (Some(path), Some(config)) = (&args.config, &given) {
        inputs = inputs.config(path, config);
    }
    results::check(args.json.as_deref(), &inputs)?;
    if args.out.is_some() && args.alpha.len() != 1 {
        let found = args.alpha.len();
        let problem = format!("`--out` writes one model, but `--alpha` lists {found} values; give one");
        return Err(TrainError::Usage(problem).into());
    }
    let device = match (&args.device, &given) {
        (Some(device), _) => device,
        (None, Some(config)) => config.run.device.first(),
        (None, None) => "cpu",
    };
    let compute = Compute::select(device, None)?;
    let trained = args.model.load(&compute, reporter)?;
    let base = args.base.as_deref().map(|dir| load_model(dir, false, &compute, reporter)).transpose()?;
    let is_given = given.is_some();
    let config = given.or_else(|| trained.config.clone());
    if !is_given {
        results::check(args.json.as_deref(), &Inputs::new().run("--model", &args.model.model))?;
    }
    let evaluations = match (&config, &args.out) {
        (_, Some(_)) => Vec::new(),
        (Some(config), None) if is_given => {
            fit_to_run(open_evaluations(config)?, config, &trained, &args.model.model, reporter)?
        }
        (Some(config), None) => open_evaluations(config)?,
        (None, None) => {
            let problem =
                "the model has no run whose `[eval.NAME]` sections could be used; name a config with `--config`";
            return Err(TrainError::Usage(problem.to_owned()).into());
        }
    };
    let between = Interpolation::new(trained, base, &compute, reporter)?;
    let (mixed, kept) = (between.mixed.clone(), between.kept.clone());
    reporter.on(Event::Note(format!("interpolated: {}", mixed.join(", "))));
    if !kept.is_empty() {
        reporter.on(Event::Note(format!("as trained at every alpha: {}", kept.join(", "))));
    }
    if let (Some(dir), [alpha]) = (&args.out, args.alpha.as_slice()) {
        let request = ExportRequest { origin: Some(&args.model.model), alpha: Some(*alpha), ..ExportRequest::new(dir) };
        export(&between.into_loaded_model(*alpha), &request, signals.begin_work(), reporter)?;
        reporter.finish();
        writeln!(io::stdout().lock(), "wrote a VisionTextDualEncoder at alpha {alpha} to {}", dir.display())?;
        return Ok(Ending::Done);
    }
    let stop = signals.begin_work();
    let rows = between.sweep(&args.alpha, &evaluations, config.as_ref(), &compute, stop, reporter)?;
    let rows: Vec<Row> = rows.into_iter().map(|(alpha, records)| Row { alpha, records }).collect();
    reporter.finish();
    results::write(
        args.json.as_deref(),
        || {
            let row = |row: &Row| json!({"alpha": row.alpha, "evaluations": metrics::by_name(&row.records)});
            json!({
                "step": rows.iter().find_map(|row| Some(row.records.first()?.step)),
                "interpolated": mixed,
                "as_trained": kept,
                "rows": rows.iter().map(row).collect::<Vec<_>>(),
            })
        },
        |out| print_table(out, &rows),
    )?;
    Ok(Ending::Done)
}

/// A metric of the evaluation at index `eval`.
struct Column {
    eval: usize,
    metric: &'static str,
    /// As `checkpoint.best` names it, such as `pairs.acc1`.
    title: String,
}

/// One line per alpha, one column per metric.
fn print_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let columns: Vec<Column> =
        first.records.iter().enumerate().flat_map(|(eval, record)| columns_of(eval, record)).collect();
    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_str()).collect();
    writeln!(out, "alpha  {}", titles.join("  "))?;
    for Row { alpha, records } in rows {
        let cell = |column: &Column| {
            let value = records.get(column.eval).and_then(|record| record.metrics.get(column.metric));
            let value = value.map_or_else(String::new, metrics::format_value);
            format!("{value:>width$}", width = column.title.len())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        writeln!(out, "{:<5}  {}", alpha.to_string(), cells.join("  "))?;
    }
    // The data are the same at every alpha.
    for record in &first.records {
        if let Some(note) = metrics::left_out(record) {
            writeln!(out, "{}: {note}", record.name)?;
        }
    }
    Ok(())
}

fn columns_of(eval: usize, record: &EvalRecord) -> impl Iterator<Item = Column> {
    let found = metrics::SUMMARY.into_iter().filter(|metric| record.metrics.contains_key(*metric));
    found.map(move |metric| Column { eval, metric, title: format!("{}.{metric}", record.name) })
}
