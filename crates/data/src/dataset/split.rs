//! A share of the images that is held out, by a hash of where they are.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use crate::dataset::Dataset;
use crate::dataset::skipped_rows::SkippedRows;
use crate::images::location::ImageRef;

impl Dataset {
    /// Splits off a share of the images, with all their captions. Whether an image belongs to it depends on its
    /// relative path alone: adding rows, moving the data or changing the order moves no image to the other side. A file
    /// that several sources name is on one side. Rows that were left out, notes and warnings stay with the rest.
    /// Returns the rest and the share. `fraction`: from 0 to 1.
    #[must_use]
    pub fn split(&self, fraction: f64) -> (Self, Self) {
        let is_held_out = |image: usize| {
            let hash = blake3::hash(self.relative_key(image).as_bytes());
            let bits = hash.as_bytes()[..8].iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            (bits >> 11) as f64 / ((1u64 << 53) as f64) < fraction
        };
        // Sources with other roots have other relative paths of one file: the first source decides.
        let mut decided: HashMap<PathBuf, bool> = HashMap::new();
        let held_out: Vec<bool> = (0..self.num_images())
            .map(|image| match self.image(image) {
                ImageRef::File(path) if self.parts.len() > 1 => {
                    *decided.entry(without_dots(&path)).or_insert_with(|| is_held_out(image))
                }
                _ => is_held_out(image),
            })
            .collect();
        let mut share = self.filter(|image| held_out[image]);
        (share.skipped, share.notes, share.warnings) = (SkippedRows::default(), Vec::new(), Vec::new());
        (self.filter(|image| !held_out[image]), share)
    }

    /// The name of an image that stays when the data set moves: its path relative to the root of its source, without
    /// `.` and `..`, and the name of its shard entry; of a row of features, its hash.
    #[must_use]
    pub fn relative_key(&self, image: usize) -> String {
        let location = self.image(image);
        let path = without_dots(location.path());
        let root = self.root_of(image).map(without_dots);
        let path = root.and_then(|root| path.strip_prefix(root).ok()).unwrap_or(&path).display();
        match &location {
            ImageRef::File(_) => path.to_string(),
            ImageRef::TarEntry { name, .. } => format!("{path}/{name}"),
            ImageRef::ParquetCell { row, .. } => format!("{path}/row {}", row + 1),
            // Equal rows are on one side, and stay there in another file.
            ImageRef::FeatureRow { table, row } => format!("features {:016x}", table.id(*row)),
        }
    }
}

/// A path without `.` and, where a folder goes before it, `..`.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
