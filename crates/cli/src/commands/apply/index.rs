//! `dualenc index`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use dualenc_train::{Index, Inputs};

use crate::commands::apply::search::Among;
use crate::exit::Ending;
use crate::signals::Signals;

/// Write embeddings as an index, which `search` opens fastest
///
/// `search` also takes the file of `embed` as it is. An index has half the size (values of 16 bits, which move a
/// similarity by about 0.0001), names that need not be parsed, and a checksum. An existing file is replaced.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc embed --model runs/first --images photos --out photos.safetensors
  dualenc index photos.safetensors --out photos.index
  dualenc search --model runs/first --index photos.index \"a dog on the beach\"")]
pub struct IndexArgs {
    /// Read the embeddings from this file: safetensors of `embed`, or a numpy array [rows, dim]
    #[arg(value_name = "EMBEDS", value_hint = ValueHint::FilePath)]
    pub embeds: PathBuf,
    /// Write the index to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Which embeddings of the file [default: those of images if there are any, else those of texts]
    #[arg(long, value_enum)]
    pub among: Option<Among>,
}

pub fn run(args: IndexArgs) -> anyhow::Result<Ending> {
    let _signals = Signals::end_at_once()?;
    Inputs::new().data("EMBEDS", [args.embeds.as_path()]).keep([("--out", Some(args.out.as_path()))])?;
    let index = Index::open(&args.embeds, Among::part(args.among)).map_err(dualenc_train::TrainError::from)?;
    dualenc_train::write_index(&index, &args.out)?;
    let (rows, dim) = (index.rows(), index.dim());
    writeln!(std::io::stdout().lock(), "wrote {rows} embeddings of {dim} values to {}", args.out.display())?;
    Ok(Ending::Done)
}
