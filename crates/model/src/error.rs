//! What can go wrong while a model is built, loaded or read out.

use std::path::PathBuf;

/// An error of the model crate. Every variant says where, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that must be there cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `config.json` is not what a tower's config looks like.
    #[error("`{path}`: {problem}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// What is wrong, and what is accepted.
        problem: String,
    },
    /// The tower family is not one of those implemented.
    #[error("`{path}`: `model_type` is `{found}`, which is not a supported {kind} tower; supported: {supported}")]
    UnsupportedFamily {
        /// The config file.
        path: PathBuf,
        /// `image` or `text`.
        kind: &'static str,
        /// The `model_type` found.
        found: String,
        /// All supported ones.
        supported: String,
    },
    /// A directory holds no weights that can be read.
    #[error("`{dir}` holds no `model.safetensors` and no `model.safetensors.index.json`{hint}")]
    NoWeights {
        /// The directory.
        dir: PathBuf,
        /// What to do, where something is known.
        hint: String,
    },
    /// A weights file is broken.
    #[error("`{path}` is not a readable safetensors file: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Tensors of a weights file do not have the shapes that the config asks for.
    #[error("`{dir}`: {} of the model have another shape in the weights:\n{}", count_tensors(.mismatches.len()), list(.mismatches))]
    Shapes {
        /// The tower directory.
        dir: PathBuf,
        /// A line a tensor: name, expected, found.
        mismatches: Vec<String>,
    },
    /// A locked part would have randomly initialised weights.
    #[error(
        "`{dir}`: the {part} is locked, but the weights lack {} of it, which would stay random:\n{}\n{hint}",
        count_tensors(.missing.len()), list(.missing)
    )]
    LockedRandom {
        /// The tower directory.
        dir: PathBuf,
        /// `image tower` or `text tower`.
        part: &'static str,
        /// Names of the missing tensors.
        missing: Vec<String>,
        /// The way out.
        hint: String,
    },
    /// A pretrained tower's weights lack more than a pooler.
    #[error("`{dir}`: the weights lack {} of the tower:\n{}\n{hint}", count_tensors(.missing.len()), list(.missing))]
    Incomplete {
        /// The tower directory.
        dir: PathBuf,
        /// Names of the missing tensors.
        missing: Vec<String>,
        /// What to look at.
        hint: String,
    },
    /// An input does not fit the model.
    #[error("{0}")]
    Input(String),
    /// A saved state does not fit this model.
    #[error("{} do not fit this model:\n{}", count_tensors(.problems.len()), list(.problems))]
    State {
        /// A line a tensor.
        problems: Vec<String>,
    },
    /// The model cannot be written in the reference's layout.
    #[error("{0}")]
    Export(String),
}

const MOST_LISTED: usize = 10;

fn count_tensors(count: usize) -> String {
    match count {
        1 => "1 tensor".to_owned(),
        n => format!("{n} tensors"),
    }
}

fn list(lines: &[String]) -> String {
    let mut text: Vec<String> = lines.iter().take(MOST_LISTED).map(|line| format!("  {line}")).collect();
    if lines.len() > MOST_LISTED {
        text.push(format!("  ... and {} more", lines.len() - MOST_LISTED));
    }
    text.join("\n")
}
