//! Which images are right answers to a text, and which texts to an image.

use std::collections::HashMap;

/// The right answers. Texts with equal captions, and images with the same captions, share theirs: in labelled data,
/// there are few of these lists.
pub(crate) struct RightAnswers {
    /// The caption of each text.
    caption_of_text: Vec<usize>,
    /// The images of each caption, ascending.
    images_of_caption: Vec<Vec<usize>>,
    /// The set of captions of each image.
    set_of_image: Vec<usize>,
    /// The texts of each set, ascending.
    texts_of_set: Vec<Vec<usize>>,
}

impl RightAnswers {
    /// `image_of_text`: the image of each text; `caption_ids`: one per text, which equal captions share.
    pub fn new(image_of_text: &[usize], caption_ids: &[u64], num_images: usize) -> Self {
        let mut numbers = HashMap::new();
        let (mut images_of_caption, mut texts_of_caption) = (Vec::<Vec<usize>>::new(), Vec::<Vec<usize>>::new());
        let mut captions_of_image = vec![Vec::new(); num_images];
        let mut caption_of_text = Vec::with_capacity(image_of_text.len());
        for (text, (&image, &id)) in image_of_text.iter().zip(caption_ids).enumerate() {
            let caption = *numbers.entry(id).or_insert_with(|| {
                images_of_caption.push(Vec::new());
                texts_of_caption.push(Vec::new());
                images_of_caption.len() - 1
            });
            caption_of_text.push(caption);
            images_of_caption[caption].push(image);
            texts_of_caption[caption].push(text);
            captions_of_image[image].push(caption);
        }
        for images in &mut images_of_caption {
            images.sort_unstable();
            images.dedup();
        }
        let (mut sets, mut texts_of_set) = (HashMap::new(), Vec::new());
        let mut set_of = |mut captions: Vec<usize>| {
            captions.sort_unstable();
            captions.dedup();
            *sets.entry(captions).or_insert_with_key(|captions| {
                let mut texts: Vec<usize> = captions.iter().flat_map(|&it| &texts_of_caption[it]).copied().collect();
                texts.sort_unstable();
                texts_of_set.push(texts);
                texts_of_set.len() - 1
            })
        };
        let set_of_image = captions_of_image.into_iter().map(&mut set_of).collect();
        Self { caption_of_text, images_of_caption, set_of_image, texts_of_set }
    }

    /// Number of captions that differ.
    pub fn num_captions(&self) -> usize {
        self.images_of_caption.len()
    }

    /// The images of a text, ascending.
    pub fn images(&self, text: usize) -> &[usize] {
        &self.images_of_caption[self.caption_of_text[text]]
    }

    /// The texts of an image, ascending; none for an image without a caption.
    pub fn texts(&self, image: usize) -> &[usize] {
        &self.texts_of_set[self.set_of_image[image]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_captions_share_answers() {
        // An image with two captions, one of them shared, and an image without any.
        let answers = RightAnswers::new(&[0, 0, 1, 2], &[5, 6, 6, 7], 4);
        assert_eq!([0, 1, 2, 3].map(|image| answers.texts(image)), [&[0, 1, 2][..], &[1, 2], &[3], &[]]);
        assert_eq!([0, 1, 2, 3].map(|text| answers.images(text)), [&[0][..], &[0, 1], &[0, 1], &[2]]);
    }
}
