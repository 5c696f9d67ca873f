//! The captions of a data set in a few allocations.
//!
//! - `caption_id`: a number that equal captions share
//! - `null_words`: captions that stand for a missing text

pub(crate) mod caption_id;
pub(crate) mod null_words;

use std::sync::Arc;

use crate::dataset::columns::column::{Column, Texts};
use crate::dataset::images::number_of;
use crate::features::table::FeatureTable;

/// A caption and the image it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caption<'a> {
    /// The text, without leading and trailing white space.
    pub text: &'a str,
    /// Number of the image, less than [`crate::Dataset::num_images`].
    pub image: usize,
    /// Number of the column, key or list entry that the caption comes from, 0-based: with several caption columns,
    /// their order in the config.
    pub slot: u8,
    /// The features of the text, where a table has them: the table and the number of the row.
    pub features: Option<(&'a Arc<FeatureTable>, u64)>,
}

/// Captions in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct CaptionTable {
    texts: Texts,
    images: Column<u32>,
    /// One per caption; empty while all are 0.
    slots: Column<u8>,
    /// Number in `tables` and row, one per caption; empty while no caption has features.
    rows: Vec<Option<(u32, u64)>>,
    tables: Vec<Arc<FeatureTable>>,
}

impl CaptionTable {
    /// Captions without features. `slots`: empty if all are 0.
    pub(crate) fn of(texts: Texts, images: Column<u32>, slots: Column<u8>) -> Self {
        Self { texts, images, slots, ..Self::default() }
    }

    /// Number of captions.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// # Panics
    /// If `caption` is out of range.
    pub(crate) fn get(&self, caption: usize) -> Caption<'_> {
        Caption {
            text: self.texts.get(caption),
            image: self.images[caption] as usize,
            slot: self.slots.get(caption).copied().unwrap_or(0),
            features: self.rows.get(caption).copied().flatten().map(|(table, row)| (&self.tables[table as usize], row)),
        }
    }

    pub(crate) fn push(&mut self, caption: Caption<'_>) {
        if caption.slot > 0 && self.slots.is_empty() {
            self.slots.extend_from_slice(&vec![0; self.len()]);
        }
        if caption.slot > 0 || !self.slots.is_empty() {
            self.slots.push(caption.slot);
        }
        if caption.features.is_some() && self.rows.is_empty() {
            self.rows.resize(self.len(), None);
        }
        let features = caption.features.map(|(table, row)| (number_of(&mut self.tables, table), row));
        if features.is_some() || !self.rows.is_empty() {
            self.rows.push(features);
        }
        self.texts.push(caption.text);
        self.images.push(caption.image as u32);
    }

    /// Reserves memory for `more` captions, but not for their texts.
    pub(crate) fn reserve(&mut self, more: usize, have_features: bool) {
        self.texts.ends.reserve(more);
        self.images.reserve(more);
        self.rows.reserve(if have_features { more } else { 0 });
    }

    /// The images of the captions, in order.
    pub(crate) fn images(&self) -> &[u32] {
        &self.images
    }

    /// Whether captions come from more than one column, key or list entry.
    pub(crate) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Releases memory that was reserved for more captions.
    pub(crate) fn shrink(&mut self) {
        self.texts.shrink();
        self.images.shrink();
        self.slots.shrink();
        self.rows.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_come_back() {
        let captions = [("a dog", 0, 0), ("", 1, 0), ("犬", 0, 2), ("x", 3, 0)];
        let captions = captions.map(|(text, image, slot)| Caption { text, image, slot, features: None });
        let mut table = CaptionTable::default();
        for (number, caption) in captions.into_iter().enumerate() {
            assert_eq!(table.has_slots(), number > 2);
            table.push(caption);
        }
        table.shrink();
        assert_eq!((0..table.len()).map(|number| table.get(number)).collect::<Vec<_>>(), captions);
        assert_eq!(table.images(), [0, 1, 0, 3]);
    }
}
