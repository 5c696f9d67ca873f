//! `dualenc interpolate`, and the table of its figures.

use std::io::{self, Write};

use dualenc_train::config::RunConfig;
use dualenc_train::{Compute, EvalRecord, Event, Interpolation, Observer, TrainError, export};
use serde_json::json;

use crate::args::InterpolateArguments;
use crate::commands::{Stopped, figures_json, load_model, open_evaluations, print_results};
use crate::figures::{SUMMARY, shown};
use crate::progress::Reporter;

/// The figures at one share of the trained weights.
type Row = (f64, Vec<EvalRecord>);

pub fn interpolate(arguments: InterpolateArguments, reporter: &mut Reporter) -> anyhow::Result<Stopped> {
    let given = arguments.config.as_deref().map(|path| RunConfig::load(path, &arguments.overrides)).transpose()?;
    if arguments.out.is_some() && arguments.alpha.len() != 1 {
        let found = arguments.alpha.len();
        let problem = format!("`--out` writes one model, and `--alpha` names {found}; name one");
        return Err(TrainError::Usage(problem).into());
    }
    let device = match (&arguments.device, &given) {
        (Some(device), _) => device,
        (None, Some(config)) => &config.run.device,
        (None, None) => "cpu",
    };
    let compute = Compute::select(device, None)?;
    let trained = load_model(&arguments.model, arguments.best, &compute, reporter)?;
    let base = arguments.base.as_deref().map(|dir| load_model(dir, false, &compute, reporter)).transpose()?;
    let config = given.or_else(|| trained.config.clone());
    let evaluations = match (&config, &arguments.out) {
        (_, Some(_)) => Vec::new(),
        (Some(config), None) => open_evaluations(config)?,
        (None, None) => {
            let problem = "there is no run whose `[eval.*]` could be measured; name a config with `--config`";
            return Err(TrainError::Usage(problem.to_owned()).into());
        }
    };
    let between = Interpolation::new(trained, base, &compute, reporter)?;
    let (mixed, kept) = (between.mixed.clone(), between.kept.clone());
    reporter.on(Event::Note(format!("interpolated: {}", mixed.join(", "))));
    if !kept.is_empty() {
        reporter.on(Event::Note(format!("as trained at every alpha: {}", kept.join(", "))));
    }
    if let (Some(dir), [alpha]) = (&arguments.out, arguments.alpha.as_slice()) {
        export(&between.into_assembly(*alpha), dir, reporter)?;
        reporter.finish();
        writeln!(io::stdout().lock(), "wrote a VisionTextDualEncoder at alpha {alpha} to {}", dir.display())?;
        return Ok(None);
    }
    let rows = between.sweep(&arguments.alpha, &evaluations, config.as_ref(), &compute, reporter)?;
    reporter.finish();
    print_results(
        arguments.json.as_deref(),
        || {
            let row = |(alpha, records): &Row| json!({"alpha": alpha, "evaluations": figures_json(records, true)["evaluations"]});
            json!({
                "step": rows.iter().find_map(|(_, records)| Some(records.first()?.step)),
                "interpolated": mixed,
                "as_trained": kept,
                "rows": rows.iter().map(row).collect::<Vec<_>>(),
            })
        },
        |out| table(out, &rows),
    )?;
    Ok(None)
}

/// One line an alpha, one column a figure, named as `checkpoint.best` names it.
fn table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let Some((_, first)) = rows.first() else { return Ok(()) };
    let columns: Vec<(usize, &str, String)> = first
        .iter()
        .enumerate()
        .flat_map(|(at, record)| {
            let figures = SUMMARY.iter().filter(|figure| record.metrics.contains_key(**figure));
            figures.map(move |figure| (at, *figure, format!("{}.{figure}", record.name)))
        })
        .collect();
    let header: Vec<&str> = columns.iter().map(|(.., name)| name.as_str()).collect();
    writeln!(out, "alpha  {}", header.join("  "))?;
    for (alpha, records) in rows {
        let cell = |(at, figure, name): &(usize, &str, String)| {
            let value = records.get(*at).and_then(|record| record.metrics.get(*figure)).map_or_else(String::new, shown);
            format!("{value:>width$}", width = name.len())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        writeln!(out, "{:<5}  {}", alpha.to_string(), cells.join("  "))?;
    }
    Ok(())
}
