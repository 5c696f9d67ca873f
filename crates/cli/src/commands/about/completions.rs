//! `dualenc completions`.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use crate::exit::Ending;

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dualenc completions bash > ~/.local/share/bash-completion/completions/dualenc
  dualenc completions zsh > ~/.zfunc/_dualenc
  dualenc completions fish > ~/.config/fish/completions/dualenc.fish")]
pub struct CompletionsArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub shell: Shell,
}

/// `program` is the whole command line.
pub fn run(args: CompletionsArgs, mut program: clap::Command) -> anyhow::Result<Ending> {
    // The generator panics if it cannot write, so it writes to memory.
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Ending::Done)
}
