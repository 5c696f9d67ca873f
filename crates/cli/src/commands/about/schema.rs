//! `dualenc schema`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueHint};
use dualenc_train::config::{json_schema, markdown_reference};

use crate::exit::Ending;

/// Print the JSON schema of the config
///
/// An editor with TOML support completes and checks a config that starts with `#:schema FILE`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc schema --out lit.schema.json
  dualenc schema --markdown | less")]
pub struct SchemaArgs {
    /// Print the reference of every key as Markdown instead
    #[arg(long)]
    pub markdown: bool,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

pub fn run(args: SchemaArgs) -> anyhow::Result<Ending> {
    let text = if args.markdown { markdown_reference() } else { serde_json::to_string_pretty(&json_schema())? + "\n" };
    match args.out {
        Some(path) => fs::write(&path, text).map_err(|error| anyhow!("cannot write `{}`: {error}", path.display()))?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(Ending::Done)
}
