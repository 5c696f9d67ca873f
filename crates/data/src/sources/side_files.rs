//! Files that have the extension of a table, and lie beside data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::sources::image_files::{IMAGE_EXTENSIONS, is_image_name};

/// Largest number of files beside images to read keys from.
const LOOKED_AT: usize = 8;

/// Largest file about one image: img2dataset writes EXIF data into it.
const MAX_SIDE_FILE: u64 = 1 << 18;

/// Those of `files`, all of one folder and with extensions of tables, that may be tables. A file beside an image, a
/// shard or a folder of its name is none, and one with notes or statistics. A JSON object with the keys of one beside
/// an image is none either: its image is gone.
#[must_use]
pub fn without_side_files(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let (beside, mut rest): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(|file| is_side_file(file));
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if rest.iter().any(is_json) {
        let known: BTreeSet<Vec<String>> =
            beside.iter().filter(|path| is_json(path)).take(LOOKED_AT).filter_map(|path| keys_of(path)).collect();
        rest.retain(|path| !is_json(path) || keys_of(path).is_none_or(|keys| !known.contains(&keys)));
    }
    rest
}

/// The keys of a small JSON object, sorted; none if the file is anything else.
fn keys_of(path: &Path) -> Option<Vec<String>> {
    if path.metadata().ok()?.len() > MAX_SIDE_FILE {
        return None;
    }
    let mut keys: Vec<String> = serde_json::from_slice::<Map<String, Value>>(&std::fs::read(path).ok()?)
        .ok()?
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    keys.sort();
    Some(keys)
}

/// Whether a file with the extension of a table is not one: it lies beside an image, a shard or a folder of the same
/// name, or holds notes or statistics.
fn is_side_file(path: &Path) -> bool {
    /// Bytes of a file that may be a list of images and captions, at least.
    const LEAST_JSON: u64 = 64;
    /// What the `datasets` library and Kaggle write beside data.
    const ABOUT: [&str; 5] = ["dataset_info", "dataset_infos", "dataset_dict", "state", "dataset-metadata"];
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    // img2dataset writes statistics and a table beside each shard, or each folder of images.
    let stem = path.file_stem().unwrap_or_default();
    let is_beside_image =
        || is_image_name(Path::new(stem)) || IMAGE_EXTENSIONS.iter().any(|image| path.with_extension(image).is_file());
    match extension.as_str() {
        "json" if stem.to_string_lossy().ends_with("_stats") => true,
        "json" if ABOUT.contains(&&*stem.to_string_lossy()) => true,
        "parquet" => has_shard(path),
        "json" => path.metadata().is_ok_and(|metadata| metadata.len() < LEAST_JSON) || is_beside_image(),
        "txt" => is_beside_image(),
        _ => false,
    }
}

/// Whether a shard or a folder of images is beside the table `path`, with its name.
#[must_use]
pub fn has_shard(path: &Path) -> bool {
    ["tar", "TAR"].iter().any(|tar| path.with_extension(tar).is_file()) || path.with_extension("").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_a_lost_image_is_no_table() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
        let about = |url: &str| {
            format!(
                "{{\"caption\": \"a bird on a wall\", \"url\": \"{url}\", \"key\": \"000\", \"status\": \"success\"}}"
            )
        };
        write("0.png", "");
        write("0.json", &about("https://x.org/0.png"));
        write("1.json", &about("u"));
        write("2.json", &about("u").replace("status", "other"));
        write("list.json", "[{\"image\": \"0.png\", \"caption\": \"a bird on a wall, and a cat below it\"}]");
        let files = ["0.json", "1.json", "2.json", "list.json"].map(|name| dir.path().join(name)).to_vec();
        assert_eq!(without_side_files(files), [dir.path().join("2.json"), dir.path().join("list.json")]);
    }
}
