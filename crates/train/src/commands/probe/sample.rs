//! The pairs that a probe compares towers on.

use dualenc_data::{Dataset, ImageRef, mix};

/// Seed of all draws (ASCII `pairs`).
const SEED: u64 = 0x70_6169_7273;

/// An image with one of its captions.
pub(super) struct SampledPair {
    pub image: ImageRef,
    pub caption: String,
    /// Equal captions share it.
    pub caption_id: u64,
}

/// Draws up to `count` images in random order, each with one of its captions.
pub(super) fn sample(dataset: &Dataset, count: usize) -> Vec<SampledPair> {
    let mut images: Vec<usize> =
        (0..dataset.num_images()).filter(|&image| !dataset.captions_of(image).is_empty()).collect();
    images.sort_by_key(|&image| mix(SEED, &[image as u64]));
    images.truncate(count);
    let pair = |image: usize| {
        let captions = dataset.captions_of(image);
        let caption = captions[(mix(SEED, &[image as u64, 1]) % captions.len() as u64) as usize] as usize;
        SampledPair {
            image: dataset.image(image),
            caption: dataset.caption(caption).text.to_owned(),
            caption_id: dataset.caption_id(caption),
        }
    };
    images.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dualenc_data::DatasetBuilder;

    use super::*;

    #[test]
    fn draws_images_once() {
        let mut data = DatasetBuilder::new("/data");
        for image in 0..50 {
            for caption in ["x", "y"] {
                data.push(ImageRef::File(format!("/data/{image}.png").into()), &format!("{caption}{image}"));
            }
        }
        let pairs = sample(&data.build(), 20);
        let images: HashSet<String> = pairs.iter().map(|pair| pair.image.key().to_string()).collect();
        assert_eq!((pairs.len(), images.len()), (20, 20));
        let first = pairs.iter().filter(|pair| pair.caption.starts_with('x')).count();
        assert!((1..20).contains(&first), "{first}");
        for pair in &pairs {
            assert!(pair.image.key().to_string().contains(&format!("{}.png", &pair.caption[1..])));
        }
    }
}
