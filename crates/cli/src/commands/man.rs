//! `dualenc man`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueHint};
use clap_mangen::Man;

use crate::exit::Ending;

/// Print the manual page
///
/// Without options, prints the page of `dualenc`, in roff format.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc man | man -l -
  dualenc man --out ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Write one page per command to this directory instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

/// `program` is the whole command line.
pub fn run(args: ManArgs, mut program: clap::Command) -> anyhow::Result<Ending> {
    // Adds the global options to every command.
    program.build();
    let Some(dir) = args.out else {
        let mut page = Vec::new();
        Man::new(program).render(&mut page)?;
        std::io::stdout().write_all(&page)?;
        return Ok(Ending::Done);
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    let commands: Vec<_> = program.get_subcommands().filter(|command| command.get_name() != "help").cloned().collect();
    let count = commands.len() + 1;
    for command in std::iter::once(program).chain(commands) {
        write_page(command, &dir)?;
    }
    writeln!(std::io::stdout().lock(), "wrote {count} pages to {}", dir.display())?;
    Ok(Ending::Done)
}

/// Writes `dualenc.1`, or `dualenc-COMMAND.1`.
fn write_page(command: clap::Command, dir: &Path) -> anyhow::Result<()> {
    let man = Man::new(command);
    let path = dir.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("cannot write `{}`", path.display()))
}
