//! A share of the training images that is held out for validation.

use dualenc_data::Dataset;

/// Images that a validation split should have at least, in data that are large enough.
const LEAST: usize = 8;

/// Of smaller data, this part is enough.
const PART: usize = 6;

/// Fewest images of which some are held out.
const FEWEST: usize = 8;

/// Shares that are tried, in order. Whether an image is held out depends on a hash, so small sets get more or fewer.
const FRACTIONS: [f64; 7] = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4];

/// Images held out.
#[derive(Debug)]
pub(crate) struct HeldOut {
    /// A value of `data.validation_fraction`.
    pub fraction: f64,
    pub num_images: usize,
    /// The rest, which is trained on.
    pub train: Dataset,
}

impl HeldOut {
    /// The smallest share that is enough; of labelled data, one with an image of each class on both sides if there is
    /// one. `None`: the data are too few.
    pub fn of(all: &Dataset, is_labelled: bool) -> Option<Self> {
        if all.num_images() < FEWEST {
            return None;
        }
        let wanted = LEAST.min(all.num_images() / PART);
        let split = |fraction: f64, wanted: usize, needs_classes: bool| {
            let (train, held_out) = all.split(fraction);
            let num_images = held_out.num_images();
            let is_enough = num_images >= wanted && train.num_images() > num_images;
            let is_enough = is_enough && (!needs_classes || num_captions_of(&train) == num_captions_of(&held_out));
            is_enough.then_some(Self { fraction, num_images, train })
        };
        let first = |needs_classes: bool| FRACTIONS.into_iter().find_map(|it| split(it, wanted, needs_classes));
        // Of a small set, no share may have enough.
        let largest = || FRACTIONS.into_iter().rev().find_map(|it| split(it, 1, false));
        is_labelled.then(|| first(true)).flatten().or_else(|| first(false)).or_else(largest)
    }
}

/// Number of distinct captions.
fn num_captions_of(dataset: &Dataset) -> usize {
    let mut ids = dataset.caption_ids();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

#[cfg(test)]
mod tests {
    use dualenc_data::{DatasetBuilder, ImageRef};

    use super::*;

    /// Images in folders; the name of the folder is the caption. `salt`: other names.
    fn labelled(classes: usize, images: usize, salt: usize) -> Dataset {
        let mut builder = DatasetBuilder::new("/none");
        for image in 0..images {
            let class = format!("class {}", image % classes);
            builder.push(ImageRef::File(format!("/none/{class}/{salt} {image}.png").into()), &class);
        }
        builder.build()
    }

    #[test]
    fn small_sets_get_validation() {
        for salt in 0..200 {
            let found = HeldOut::of(&labelled(2, 72, salt), true).unwrap();
            assert!((8..36).contains(&found.num_images), "{salt}: {}", found.num_images);
            assert_eq!(found.train.num_images() + found.num_images, 72);
            assert_eq!(num_captions_of(&found.train), 2);
            let found = HeldOut::of(&labelled(1, 24, salt), false).unwrap();
            assert!((1..12).contains(&found.num_images), "{salt}: {}", found.num_images);
        }
        assert!(HeldOut::of(&labelled(2, 7, 0), true).is_none());
        let large = HeldOut::of(&labelled(10, 2000, 0), false).unwrap();
        assert!(large.fraction == 0.05 && large.num_images > 50, "{large:?}");
    }

    #[test]
    fn each_class_is_held_out() {
        let all = labelled(20, 400, 0);
        let found = HeldOut::of(&all, true).unwrap();
        let (_, held_out) = all.split(found.fraction);
        assert_eq!(num_captions_of(&held_out), 20, "{}", found.fraction);
        assert!(found.fraction > HeldOut::of(&all, false).unwrap().fraction);
    }
}
