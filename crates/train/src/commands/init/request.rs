//! What `dualenc init` is asked for.

use std::path::{Path, PathBuf};

use dualenc_data::Source;

use crate::in_flags::Flags;

/// The text tower if none is given.
pub(crate) const TEXT_TOWER: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The options that stand for keys of a source in messages.
pub(crate) const FLAGS: Flags = Flags {
    known: &["image", "caption"],
    way_out: "write the config by hand, with this key in `[data.train]` (docs/DATA.md)",
};

/// The columns of a table, or the keys of its objects, that hold the images and the captions. `None`: found by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitColumns {
    /// Paths of the images.
    pub image: Option<String>,
    /// Captions.
    pub caption: Option<String>,
}

impl InitColumns {
    /// Whether one is given.
    pub(crate) fn is_given(&self) -> bool {
        self.image.is_some() || self.caption.is_some()
    }

    /// `source` with these columns, if it is a table.
    pub(crate) fn of(&self, mut source: Source) -> Source {
        let keys = match &mut source {
            Source::Csv(table) | Source::Tsv(table) => Some((&mut table.image, &mut table.caption)),
            Source::Jsonl(table) => Some((&mut table.image, &mut table.caption)),
            Source::Json(table) => Some((&mut table.image, &mut table.caption)),
            Source::Parquet(table) => Some((&mut table.image, &mut table.caption)),
            _ => None,
        };
        if let Some((image, caption)) = keys {
            (*image, *caption) = (self.image.clone(), self.caption.clone());
        }
        source
    }
}

/// A request to write a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    /// The data: a file, a folder, or a pattern of shards.
    pub data: PathBuf,
    /// What its tables call the images and the captions.
    pub columns: InitColumns,
    /// The config to write; it must not exist.
    pub out: PathBuf,
    /// A directory or a hub id.
    pub image_tower: Option<String>,
    /// A directory or a hub id.
    pub text_tower: Option<String>,
    /// Directory of the run. Default: `runs/NAME` beside the config, with the name of the data, or of the folder above
    /// if that says more, and a number if it exists.
    pub run_dir: Option<PathBuf>,
}

/// What a written config is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// What was found and chosen, a line each.
    pub lines: Vec<String>,
    /// Pairs that an epoch trains on.
    pub pairs: usize,
    /// Whether these are few enough that `dualenc fit` alone makes the better model.
    pub has_few_pairs: bool,
}

/// `path` as a config in `directory` names it: relative if it is below, else absolute.
pub(crate) fn in_config(path: &Path, directory: &Path) -> PathBuf {
    let Ok(absolute) = std::path::absolute(path) else { return path.to_owned() };
    // A pattern does not exist, and its folder does.
    let of_folder = || Some(absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?));
    let real = absolute.canonicalize().ok().or_else(of_folder).unwrap_or(absolute);
    match real.strip_prefix(directory) {
        Ok(relative) if relative.as_os_str().is_empty() => PathBuf::from("."),
        Ok(relative) => relative.to_owned(),
        Err(_) => real,
    }
}
