//! Which files hold the weights of a directory: `model.safetensors`, or the shards that an index lists.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;
use crate::foreign_file::json_problem;
use crate::weights::file_names::{INDEX, SINGLE};
use crate::weights::without_weights::directory_hint;

/// The shards that `model.safetensors.index.json` lists, sorted, each once. The names come from the file unchecked:
/// they may hold path separators.
///
/// # Errors
/// [`ModelError::Read`] if `index` cannot be read, [`ModelError::Config`] if it is not an index.
pub fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let bytes = fs::read(index).map_err(|source| ModelError::Read { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_slice(&bytes)
        .map_err(|error| ModelError::Config { path: index.to_owned(), problem: json_problem(&bytes, &error) })?;
    let mut files: Vec<String> = parsed.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    Ok(files)
}

/// The weight files of `dir`. A single file takes precedence over an index.
///
/// # Errors
/// [`ModelError::NoWeights`] if there is neither; [`ModelError::Config`] if the index lists a file outside `dir`;
/// otherwise as [`shard_names`].
pub(crate) fn weight_paths(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join(SINGLE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX);
    if index.is_file() {
        let names = shard_names(&index)?;
        if let Some(outside) = names.iter().find(|name| !is_inside(name)) {
            let problem =
                format!("it lists {outside:?}, which is not a file of its directory; expected names of shards");
            return Err(ModelError::Config { path: index, problem });
        }
        return Ok(names.into_iter().map(|file| dir.join(file)).collect());
    }
    Err(ModelError::NoWeights { dir: dir.to_owned(), hint: directory_hint(dir) })
}

/// Whether the path `name` stays below the directory that it is relative to.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}
