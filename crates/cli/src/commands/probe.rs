//! `dualenc probe`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use dualenc_train::config::Pool;
use dualenc_train::{Combination, Compute, Inputs, Layers, ProbeReport, ProbeRequest, ProbedTower, counted};

use crate::args::parse_fraction;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::report::results;
use crate::signals::Signals;

/// Find out which image and text tower fit together best, before training
///
/// Each tower runs once over a sample of pairs. Every image tower, layer and pooling is then compared with every text
/// tower, layer and pooling:
///
/// `mutual k-NN`: how many of the 10 nearest neighbours of a pair are the same on both sides, on average.
///
/// `CKA`: linear centred kernel alignment, unbiased.
///
/// `R@1`, `R@5`: recall of a closed-form alignment, fitted to half of the pairs and tested on the other half; the mean
/// of both directions.
///
/// The best combination by R@1 comes first. The row `by chance` has the figures of unrelated features.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc probe --image-towers towers/vit-s14,towers/vit-b16 --text-towers towers/minilm --data pairs.csv
  dualenc probe --image-towers towers/vit-s14 --text-towers towers/minilm --data pairs.csv --layers all")]
pub struct ProbeArgs {
    /// Image towers: directories or hub ids, separated by commas
    #[arg(long, value_name = "DIR", value_delimiter = ',', required = true, value_hint = ValueHint::DirPath)]
    pub image_towers: Vec<String>,
    /// Text towers: directories or hub ids, separated by commas
    #[arg(long, value_name = "DIR", value_delimiter = ',', required = true, value_hint = ValueHint::DirPath)]
    pub text_towers: Vec<String>,
    /// Images and captions: a table, JSON, parquet, tar shards or a folder. An image with several captions is used with
    /// one of them
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub data: PathBuf,
    /// Folder at which the relative image paths in --data start [default: the folder of that file]
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub root: Option<PathBuf>,
    /// Most pairs to use; they are drawn with a fixed seed
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Layers to pool: `last`, `all`, or numbers from 1, separated by commas; -1 is the last layer, -2 the one before
    #[arg(long, value_name = "LAYERS", default_value = "last", allow_hyphen_values = true, value_parser = parse_layers)]
    pub layers: Layers,
    /// Poolings to try, separated by commas [default: all that a tower supports]
    #[arg(long, value_name = "POOLINGS", value_delimiter = ',', value_enum)]
    pub pooling: Vec<PoolArg>,
    /// Print this many combinations; `--json` has all of them
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
    /// Maximum fraction of the images that may be unreadable, from 0 to 1
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01, value_parser = parse_fraction)]
    pub max_bad_fraction: f64,
    /// Maximum number of pixels of an image; larger ones are unreadable [default: 178956970]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_pixels: Option<u64>,
    /// Write every combination as JSON to this file; `-` prints JSON instead of the table
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub json: Option<PathBuf>,
    /// Run on this device: cpu, ndarray, wgpu, vulkan, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PoolArg {
    /// What `image_pool = "auto"` and `text_pool = "auto"` select
    Auto,
    /// The first token
    Cls,
    /// The mean of the tokens
    Mean,
    /// The first token and the mean of the patch tokens, side by side (image towers)
    #[value(name = "cls+mean")]
    ClsMean,
    /// The mean of the patch tokens, which is `mean` of a vision transformer
    #[value(name = "patch_mean")]
    PatchMean,
    /// The last token of a text
    Last,
    /// The tower's own pooler
    Pooler,
}

/// Reads `last`, `all` or numbers.
fn parse_layers(text: &str) -> Result<Layers, String> {
    let number = |part: &str| part.trim().parse::<i64>().ok().filter(|&number| number != 0);
    match text {
        "last" => Ok(Layers::Last),
        "all" => Ok(Layers::All),
        _ => text.split(',').map(number).collect::<Option<Vec<i64>>>().map(Layers::Numbers).ok_or_else(|| {
            "expected `last`, `all`, or numbers from 1 with commas between them; -1 is the last layer".to_owned()
        }),
    }
}

pub fn run(args: ProbeArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let signals = Signals::end_at_once()?;
    let inputs = Inputs::new()
        .data("--data", [args.data.as_path()])
        .models("--image-towers", args.image_towers.iter().map(Path::new))
        .models("--text-towers", args.text_towers.iter().map(Path::new));
    results::check(args.json.as_deref(), &inputs)?;
    let compute = Compute::select(&args.device, None)?;
    let pools: Vec<Pool> = args
        .pooling
        .iter()
        .map(|pool| match pool {
            PoolArg::Auto => Pool::Auto,
            PoolArg::Cls => Pool::Cls,
            PoolArg::Mean => Pool::Mean,
            PoolArg::ClsMean => Pool::ClsMean,
            PoolArg::PatchMean => Pool::PatchMean,
            PoolArg::Last => Pool::Last,
            PoolArg::Pooler => Pool::Pooler,
        })
        .collect();
    let request = ProbeRequest {
        image_towers: &args.image_towers,
        text_towers: &args.text_towers,
        data: &args.data,
        root: args.root.as_deref(),
        sample: args.sample as usize,
        layers: args.layers,
        pools: &pools,
        max_bad_fraction: args.max_bad_fraction,
        max_pixels: args.max_pixels,
    };
    let found = dualenc_train::probe(&request, &compute, signals.begin_work(), reporter)?;
    reporter.finish();
    let value = serde_json::to_value(&found)?;
    results::write(args.json.as_deref(), || value, |out| print(out, &found, args.top as usize))?;
    Ok(Ending::Done)
}

const HEADER: [&str; 8] = ["image tower", "layer", "text tower", "layer", "mutual k-NN", "CKA", "R@1", "R@5"];

fn print(out: &mut impl Write, found: &ProbeReport, top: usize) -> io::Result<()> {
    let rows: Vec<[String; 8]> = found.combinations.iter().take(top).map(cells).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(HEADER[column].chars().count())
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut line = |cells: [&str; 8]| {
        let mut text = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            // Names are on the left of their column, numbers on the right.
            text += &if column < 4 { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(HEADER)?;
    for row in &rows {
        line(std::array::from_fn(|column| row[column].as_str()))?;
    }
    let [chance_1, chance_5] = found.chance.recall.mean();
    line([
        "by chance",
        "",
        "",
        "",
        &format!("{:.4}", found.chance.mutual_knn),
        "0.0000",
        &format!("{chance_1:.4}"),
        &format!("{chance_5:.4}"),
    ])?;
    let hidden = found.combinations.len().saturating_sub(top);
    if hidden > 0 {
        writeln!(out, "and {}; `--top` prints more, `--json` writes all", counted(hidden, "other combination"))?;
    }
    let mut left_out = String::new();
    for (count, what) in [
        (found.unreadable, "image cannot be used|images cannot be used"),
        (found.copies, "image is a copy of another|images are copies of others"),
        (found.skipped_rows, "row of the data is left out|rows of the data are left out"),
    ] {
        let (one, several) = what.split_once('|').unwrap_or((what, what));
        match count {
            0 => {}
            1 => left_out += &format!("; 1 {one}"),
            _ => left_out += &format!("; {count} {several}"),
        }
    }
    let ProbeReport { pairs, fitted, tested, .. } = found;
    writeln!(out, "{pairs} pairs: alignments are fitted to {fitted} and tested on {tested}{left_out}")?;
    match found.combinations.first() {
        Some(best) if !best.recall.mean()[0].is_nan() => {
            let recall = best.recall.mean()[0];
            // Half of the 95 % interval of a fraction, by the normal approximation.
            let margin = 1.96 * (recall * (1.0 - recall) / *tested as f64).sqrt();
            writeln!(
                out,
                "the best R@1 is {recall:.2} +- {margin:.2} (95 %); more pairs tell more combinations apart"
            )?;
            if recall - margin <= chance_1 {
                return writeln!(
                    out,
                    "no combination is surely better than chance ({chance_1:.2}), so none is recommended; use more \
                     pairs, or captions that tell images apart"
                );
            }
            print_config(out, best)
        }
        _ => writeln!(out, "no combination has figures: the features of a side are the same for every input"),
    }
}

fn cells(found: &Combination) -> [String; 8] {
    let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.4}") };
    let name = |side: &ProbedTower| format!("{} ({})", side.tower, side.pool);
    let layer = |side: &ProbedTower| format!("{}/{}", side.layer, side.num_layers);
    let [recall_1, recall_5] = found.recall.mean();
    [
        name(&found.image),
        layer(&found.image),
        name(&found.text),
        layer(&found.text),
        number(found.mutual_knn),
        number(found.cka),
        number(recall_1),
        number(recall_5),
    ]
}

/// The keys of a config that choose a combination.
fn print_config(out: &mut impl Write, best: &Combination) -> io::Result<()> {
    writeln!(out, "\nthe best in a config:\n\n[model]")?;
    for (kind, side) in [("image", &best.image), ("text", &best.text)] {
        writeln!(out, "{kind}_tower = {:?}", side.tower)?;
        writeln!(out, "{kind}_pool = {:?}", side.pool)?;
        if !side.is_last() {
            writeln!(out, "{kind}_layer = {}", side.layer)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dualenc_train::Recall;

    use super::*;

    #[test]
    fn keys_of_the_best_are_suggested() {
        let side =
            |tower: &str, layer, pool| ProbedTower { tower: tower.to_owned(), layer, num_layers: 3, pool, width: 4 };
        let recall = Recall { image: [0.5; 2], text: [0.5; 2] };
        let (image, text) = (side("vit", 2, "cls+mean"), side("bert", 3, "mean"));
        let mut out = Vec::new();
        print_config(&mut out, &Combination { image, text, mutual_knn: 0.5, cka: 0.5, recall }).unwrap();
        let expected = "[model]\nimage_tower = \"vit\"\nimage_pool = \"cls+mean\"\nimage_layer = 2\n\
                        text_tower = \"bert\"\ntext_pool = \"mean\"\n";
        assert!(String::from_utf8(out).unwrap().ends_with(expected));
    }

    #[test]
    fn layers_are_parsed() {
        assert_eq!(parse_layers("last"), Ok(Layers::Last));
        assert_eq!(parse_layers("all"), Ok(Layers::All));
        assert_eq!(parse_layers("3, -1"), Ok(Layers::Numbers(vec![3, -1])));
        for wrong in ["", "0", "1,", "first"] {
            assert!(parse_layers(wrong).is_err(), "{wrong}");
        }
    }
}
