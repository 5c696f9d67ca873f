//! What an index was made of: sources, and the files that they name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::files::metadata;
use crate::sources::class_labels::CLASS_NAMES_FILE;
use crate::sources::source_table::SourceTable;

/// The version of the files of an index, part of its key: an index of another version is not looked at.
/// Version 2 counts samples without a known extension.
const FORMAT: u32 = 2;

/// A file that an index depends on, as the system describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) path: String,
    len: u64,
    /// When it was last changed, in seconds and nanoseconds since 1970.
    modified: (u64, u32),
}

/// Key of the index of some sources: 16 hexadecimal digits. It does not depend on how often pairs are used.
///
/// # Errors
/// [`DataError::Loader`] for a path that is not UTF-8.
pub fn index_key(tables: &[&SourceTable], held_out: f64) -> Result<String, DataError> {
    let tables: Vec<SourceTable> = tables.iter().map(|&table| without_use(table)).collect();
    let tables = serde_json::to_string(&tables).map_err(|error| DataError::Loader {
        reason: format!("the sources cannot be described for `data.index_dir`: {error}"),
    })?;
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    let description = format!("dualenc index {FORMAT}, {order} endian, held out {held_out}: {tables}");
    Ok(blake3::hash(description.as_bytes()).to_hex()[..16].to_owned())
}

fn without_use(table: &SourceTable) -> SourceTable {
    SourceTable { weight: None, templates: None, caption_weights: None, ..table.clone() }
}

/// The files that sources of shards name, in order.
///
/// # Errors
/// [`DataError::Loader`] for a path that is not UTF-8, and those of finding and looking at the files.
pub(crate) fn inputs(tables: &[&SourceTable]) -> Result<Vec<Input>, DataError> {
    let mut inputs = Vec::new();
    for table in tables {
        let shards = table.webdataset.as_ref().map_or_else(|| Ok(Vec::new()), |source| source.shards())?;
        // Names of classes that are numbers, which are found beside the shards.
        let folders = shards.iter().flat_map(|shard| shard.ancestors().skip(1).take(2));
        let found: BTreeSet<PathBuf> = folders.map(|folder| folder.join(CLASS_NAMES_FILE)).collect();
        for path in shards.iter().chain(table.only.iter()).chain(table.classnames.iter()).chain(&found) {
            inputs.extend(input(path)?);
        }
    }
    Ok(inputs)
}

/// `None`: there is no such file.
fn input(path: &Path) -> Result<Option<Input>, DataError> {
    let Some(found) = metadata(path)? else { return Ok(None) };
    // A file of a time before 1970 has no other.
    let modified = found.modified().map_err(DataError::read(path))?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = text_of(path)?.to_owned();
    Ok(Some(Input { path, len: found.len(), modified: (modified.as_secs(), modified.subsec_nanos()) }))
}

/// A path as text.
///
/// # Errors
/// [`DataError::Loader`] if it is not UTF-8.
pub(crate) fn text_of(path: &Path) -> Result<&str, DataError> {
    path.to_str().ok_or_else(|| DataError::Loader {
        reason: format!("`{}` is not UTF-8, which `data.index_dir` needs; rename it", path.display()),
    })
}

/// What differs between the inputs of an index and those of today; `None`: nothing.
pub(crate) fn difference(old: &[Input], new: &[Input]) -> Option<String> {
    if let Some((_, now)) = old.iter().zip(new).find(|(old, now)| old.path == now.path && old != now) {
        return Some(format!("`{}` has changed", now.path));
    }
    let names = |inputs: &[Input]| inputs.iter().map(|input| input.path.clone()).collect::<BTreeSet<_>>();
    let (before, after) = (names(old), names(new));
    if let Some(gone) = before.difference(&after).next() {
        return Some(format!("`{gone}` is gone"));
    }
    if let Some(new) = after.difference(&before).next() {
        return Some(format!("`{new}` is new"));
    }
    (old != new).then(|| "the shards are in another order".to_owned())
}
