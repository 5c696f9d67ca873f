//! The result of a command: a table on stdout, JSON in the file that `--json` names, or JSON on stdout.

use std::io::{self, StdoutLock, Write};
use std::path::Path;

use anyhow::anyhow;
use dualenc_train::{Inputs, TrainError, check_output_file};
use serde_json::Value;

/// Checks, before the work, that a file can be at the argument of `--json`, and that it replaces none of `inputs`.
pub fn check(json: Option<&Path>, inputs: &Inputs) -> Result<(), TrainError> {
    inputs.keep([("--json", json)])?;
    json.filter(|path| *path != Path::new("-")).map_or(Ok(()), check_output_file)
}

/// Prints the result with `print`. `json` is the argument of `--json`: a file that receives `value` too, or `-` to
/// print `value` instead.
pub fn write(
    json: Option<&Path>,
    value: impl FnOnce() -> Value,
    print: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let text = |value: Value| format!("{value:#}\n");
    match json {
        None => print(&mut out)?,
        Some(path) if path == Path::new("-") => out.write_all(text(value()).as_bytes())?,
        Some(path) => {
            print(&mut out)?;
            // As text, not as a source: a `BrokenPipe` source means that stdout is closed, which is no failure.
            std::fs::write(path, text(value()))
                .map_err(|error| anyhow!("cannot write `{}`: {error}", path.display()))?;
        }
    }
    Ok(())
}
