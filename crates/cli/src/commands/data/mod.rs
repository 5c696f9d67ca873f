//! `dualenc data`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use dualenc_train::{BAD_SAMPLES, Event, Observer, PackForm, PackRequest, PackSize, Recode, TrainError, counted};

use crate::args::ConfigArgs;
use crate::exit::Ending;
use crate::report::progress::Reporter;
use crate::signals::{BeginWork, Signals};

/// Write data sets in other forms
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    Pack(PackArgs),
}

/// Write the training data as WebDataset shards
///
/// Every image is written once, with its captions, in the order of the data set: as its original bytes unless --resize,
/// --max-side or --quality is given. Equal data give equal bytes. Images that cannot be used are left out, up to
/// `data.max_bad_fraction`, and listed in `bad_samples.jsonl`.
///
/// Images are named by their number in the data set: `000000.jpg`, `000001.png` and so on. The name in the source is
/// the key `original` of the `.json` beside each image, or the column `original` of `pairs.csv`.
///
/// If interrupted, run the command again to continue: shards appear under their names when they are complete.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc data pack --config lit.toml --out shards
  dualenc data pack --config lit.toml --out small --resize 256 --quality 90
  dualenc data pack --config lit.toml --out files --format folder")]
pub struct PackArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Write to this directory, which must be new, empty, or left by the same command
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Write shards, or a folder `images` with a table `pairs.csv`
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Webdataset)]
    pub format: Format,
    /// Reduce larger images so that the shorter side has N pixels (bicubic, as Pillow)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "max_side")]
    pub resize: Option<u32>,
    /// Reduce larger images so that the longer side has N pixels (bicubic, as Pillow)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_side: Option<u32>,
    /// Store every image as JPEG of this quality, from 1 to 100
    ///
    /// Without it, reduced images are stored as PNG, those of JPEG files as JPEG of quality 95.
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: Option<u8>,
    /// Start a new shard after this number of images [default: 10000, unless --shard-size is given]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub samples: Option<usize>,
    /// Start a new shard before one exceeds this size, such as 500MB or 1GiB
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub shard_size: Option<u64>,
    /// Pack the data of this evaluation instead of the training data
    #[arg(long, value_name = "NAME", conflicts_with = "source")]
    pub eval: Option<String>,
    /// Pack one of several sources, numbered from 0
    #[arg(long, value_name = "N")]
    pub source: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tar shards
    Webdataset,
    /// Image files and a table
    Folder,
}

pub fn run(args: DataArgs, reporter: &mut Reporter) -> anyhow::Result<Ending> {
    let DataCommand::Pack(args) = args.command;
    let config = args.config.load()?;
    let size = args.resize.map(PackSize::ShorterSide).or(args.max_side.map(PackSize::LongerSide));
    let request = PackRequest {
        out: args.out,
        form: match args.format {
            Format::Webdataset => PackForm::Webdataset,
            Format::Folder => PackForm::Folder,
        },
        recode: Recode { size, quality: args.quality },
        samples: args.samples,
        shard_bytes: args.shard_size,
        eval: args.eval,
        source: args.source,
    };
    let signals = Signals::end_at_once()?;
    let mut observer = BeginWork { signals: &signals, observer: reporter };
    let packed = match dualenc_train::pack(&config, &request, signals.flag(), &mut observer) {
        Err(TrainError::Stopped { signal }) => {
            reporter.finish();
            let note = "stopped by a signal; what is complete stays: run the command again to continue";
            reporter.on(Event::Note(note.to_owned()));
            return Ok(Ending::Stopped(signal));
        }
        packed => packed?,
    };
    reporter.finish();
    let mut out = std::io::stdout().lock();
    let (images, captions) = (counted(packed.images, "image"), counted(packed.captions, "caption"));
    let (bytes, place) = (packed.bytes, request.out.display());
    let (what, source, path) = match request.form {
        PackForm::Webdataset => (counted(packed.shards, "shard"), "webdataset", request.out.clone()),
        PackForm::Folder => ("`images` and `pairs.csv`".to_owned(), "csv", request.out.join("pairs.csv")),
    };
    writeln!(out, "wrote {images} with {captions} to {place}: {what}, {bytes} bytes")?;
    if packed.bad + packed.skipped_rows > 0 {
        let (bad, rows) = (counted(packed.bad, "image"), counted(packed.skipped_rows, "row"));
        writeln!(out, "left out: {bad} and {rows}, listed in {place}/{BAD_SAMPLES}")?;
    }
    writeln!(out, "to train on them:\n[data.train.{source}]\npath = {:?}", path.display().to_string())?;
    Ok(Ending::Done)
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

/// Reads a number of bytes: `1000`, `500MB`, `1GiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("K", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
    ];
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    let number = number.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    let bytes = number.map(|number| (number * unit as f64) as u64).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "expected a number of bytes, such as 500MB or 1GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = ["1000", "500MB", "1GiB", "1.5 kB"].map(|text| parse_bytes(text).unwrap());
        assert_eq!(sizes, [1000, 500_000_000, 1 << 30, 1500]);
        for text in ["", "0", "-1", "MB", "1TBB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
