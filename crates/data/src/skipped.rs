//! A bad image as a run records it, and as the error about too many of them lists it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A bad image, which the image of the next pair replaced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Skipped {
    /// Index in [`Dataset::images`](crate::Dataset::images).
    pub image: usize,
    /// The path, or `shard.tar/entry.jpg`.
    pub key: String,
    /// A few fixed words that images with the same fault share, such as `not found`.
    #[serde(default = "unknown_cause")]
    pub cause: String,
    /// Why it is unreadable.
    pub reason: String,
}

/// The cause of an image in a checkpoint of a version that did not note it.
fn unknown_cause() -> String {
    "unknown".to_owned()
}

impl Skipped {
    /// The causes of `skipped` with their counts, the most frequent first, such as `not found (2), damaged (1)`.
    pub fn by_cause<'a>(skipped: impl IntoIterator<Item = &'a Self>) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        skipped.into_iter().for_each(|skipped| *counts.entry(&skipped.cause).or_default() += 1);
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.iter().map(|(cause, count)| format!("{cause} ({count})")).collect::<Vec<_>>().join(", ")
    }
}
