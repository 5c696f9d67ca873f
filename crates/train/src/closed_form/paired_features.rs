//! The features of all pairs of a data set, block by block: read from the cache, or computed and cached.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::Tensor;
use dualenc_data::{CaptionMode, Dataset, TokenBatch, Tokenizer};
use dualenc_model::parameters;
use rayon::prelude::*;

use crate::closed_form::moments::Block;
use crate::closed_form::read_ahead::read_ahead;
use crate::error::TrainError;
use crate::features::image_index::ImageSet;
use crate::features::images::ImageFeatures;
use crate::features::texts::TextFeatures;
use crate::stop_flag::StopFlag;

/// Images of a block: few enough that sums over them in f32 are exact to 6 digits.
pub(crate) const BLOCK_IMAGES: usize = 1024;

/// Texts of a block, unless one image has more: 12 MB at a width of 768.
pub(crate) const BLOCK_TEXTS: usize = 4096;

/// What the head of a side does to features before its linear map: `[rows, width]` to the same shape.
pub(crate) type HeadInput<'a> = &'a (dyn Fn(Tensor<2>) -> Tensor<2> + Sync);

/// Where the features of pairs come from.
pub(crate) struct PairedFeatures<'a> {
    pub dataset: &'a Arc<Dataset>,
    pub captions: CaptionMode,
    pub images: &'a ImageFeatures,
    pub set: &'a ImageSet,
    pub texts: &'a TextFeatures,
    pub tokenizer: &'a Tokenizer,
    pub inputs: [HeadInput<'a>; 2],
    /// Whether a thread prepares the next block meanwhile. Only on the host, since failures of a device are caught on
    /// the thread that calls [`PairedFeatures::for_each`], and only where that is no worker of rayon: it must not wait.
    pub reads_ahead: bool,
    pub stop: &'a StopFlag,
}

/// Images with the features of all their texts.
pub(crate) struct NamedBlock {
    pub block: Block,
    /// Number of each image, as a place in the list of usable images.
    pub images: Vec<usize>,
    /// Of each text, the number of its caption, if it is the first text of that caption.
    pub captions: Vec<Option<usize>>,
}

/// A text of a block: its words, its caption, whether it is the first text of its caption, its image as a row, and its
/// weight.
struct Text<'a> {
    words: Cow<'a, str>,
    caption: usize,
    is_first: bool,
    row: usize,
    weight: f64,
}

impl PairedFeatures<'_> {
    /// Passes the features of `usable` images and of their captions to `on_block`, in order.
    ///
    /// # Errors
    /// Those of the features; [`TrainError::Stopped`] when the stop flag is set; those of `on_block`.
    pub fn for_each(
        &self,
        usable: &[usize],
        mut on_block: impl FnMut(NamedBlock) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        if self.reads_ahead {
            return read_ahead(|send| self.blocks(usable, |block| Ok(send(block))), on_block);
        }
        self.blocks(usable, |block| on_block(block).map(|()| true))
    }

    /// The number of distinct images and of distinct texts.
    pub fn distinct(&self, usable: &[usize]) -> [usize; 2] {
        let (mut contents, mut words) = (Vec::new(), HashSet::new());
        let (mut images, mut texts) = (0, 0);
        let are_texts_given = self.dataset.text_feature_width().is_some();
        for &image in usable {
            match self.set.content(image) {
                Some(content) => contents.push(content),
                None => images += 1,
            }
            for &caption in self.dataset.captions_of(image) {
                let each = self.dataset.texts(caption as usize);
                texts += if are_texts_given {
                    // Features that are given may differ for equal words.
                    each.count()
                } else {
                    // Not by `caption_id`: features tell "Dog" from "dog".
                    each.filter(|text| words.insert(blake3::hash(text.as_bytes()))).count()
                };
            }
        }
        contents.par_sort_unstable();
        contents.dedup();
        [images + contents.len(), texts]
    }

    /// Passes blocks to `send` until it returns false or an error.
    fn blocks(
        &self,
        usable: &[usize],
        mut send: impl FnMut(NamedBlock) -> Result<bool, TrainError>,
    ) -> Result<(), TrainError> {
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for (place, &image) in usable.iter().enumerate() {
            texts.extend(self.texts_of(image).map(|text| Text { row: images.len(), ..text }));
            images.push(place);
            if images.len() < BLOCK_IMAGES && texts.len() < BLOCK_TEXTS && place + 1 < usable.len() {
                continue;
            }
            if let Some(signal) = self.stop.signal() {
                return Err(TrainError::Stopped { signal });
            }
            if !send(self.block(usable, std::mem::take(&mut images), &std::mem::take(&mut texts))?)? {
                break;
            }
        }
        Ok(())
    }

    fn block(&self, usable: &[usize], images: Vec<usize>, texts: &[Text<'_>]) -> Result<NamedBlock, TrainError> {
        let numbers: Vec<usize> = images.iter().map(|&place| usable[place]).collect();
        let captions: Vec<usize> = texts.iter().map(|text| text.caption).collect();
        let mut tokens = TokenBatch::default();
        if self.dataset.text_feature_width().is_none() {
            for text in texts {
                tokens.push(self.tokenizer.encode(&text.words)?);
            }
        }
        let [image_input, text_input] = self.inputs;
        let block = Block {
            images: parameters::host(image_input(self.images.select(self.set, &numbers, 0)?))?.values,
            texts: parameters::host(text_input(self.texts.of_captions(self.dataset, &captions, &tokens)?))?.values,
            pairs: texts.iter().map(|text| (text.row, text.weight)).collect(),
        };
        Ok(NamedBlock {
            block,
            images,
            captions: texts.iter().map(|text| text.is_first.then_some(text.caption)).collect(),
        })
    }

    /// The texts of an image, each as often as an epoch shows it on average.
    fn texts_of(&self, image: usize) -> impl Iterator<Item = Text<'_>> {
        let captions = self.dataset.captions_of(image);
        let part = self.dataset.parts().iter().find(|part| part.images.contains(&image));
        let caption_weights = part.map_or(&[][..], |part| &part.caption_weights);
        let slot = |caption: u32| usize::from(self.dataset.caption(caption as usize).slot);
        let weight = move |caption: u32| caption_weights.get(slot(caption)).copied().unwrap_or(1.0);
        let total: f64 = captions.iter().map(|&caption| weight(caption)).sum();
        let share = move |caption: u32| match self.captions {
            CaptionMode::All => 1.0,
            // Of several drawn at once, the relative frequencies are about those of a single one.
            CaptionMode::One | CaptionMode::Slots if total > 0.0 => weight(caption) / total,
            CaptionMode::One | CaptionMode::Slots => 1.0 / captions.len() as f64,
        };
        let of_caption = move |&caption: &u32| {
            let words: Vec<Cow<'_, str>> = self.dataset.texts(caption as usize).collect();
            let weight = part.map_or(1.0, |part| part.weight) * share(caption) / words.len() as f64;
            let caption = caption as usize;
            let texts = words.into_iter().enumerate();
            texts.map(move |(at, words)| Text { words, caption, is_first: at == 0, row: 0, weight })
        };
        captions.iter().flat_map(of_caption)
    }
}
