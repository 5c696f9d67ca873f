//! `dualenc man`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
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
pub fn run(args: ManArgs, program: clap::Command) -> anyhow::Result<Ending> {
    // `dualenc help` has no page of its own.
    let mut program = program.disable_help_subcommand(true);
    // Adds the global options to every command.
    program.build();
    let Some(dir) = args.out else {
        io::stdout().write_all(&render(Man::new(program))?)?;
        return Ok(Ending::Done);
    };
    fs::create_dir_all(&dir).map_err(|error| anyhow!("cannot create `{}`: {error}", dir.display()))?;
    let commands: Vec<_> = program.get_subcommands().cloned().collect();
    let count = commands.len() + 1;
    for command in std::iter::once(program).chain(commands) {
        write_page(command, &dir)?;
    }
    writeln!(io::stdout().lock(), "wrote {count} pages to {}", dir.display())?;
    Ok(Ending::Done)
}

/// Writes `dualenc.1`, or `dualenc-COMMAND.1`.
fn write_page(command: clap::Command, dir: &Path) -> anyhow::Result<()> {
    let man = Man::new(command);
    let path = dir.join(man.get_filename());
    fs::write(&path, render(man)?).map_err(|error| anyhow!("cannot write `{}`: {error}", path.display()))
}

fn render(man: Man) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.source(concat!("dualenc ", env!("CARGO_PKG_VERSION"))).render(&mut page)?;
    Ok(page)
}
