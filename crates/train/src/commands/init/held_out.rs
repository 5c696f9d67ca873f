//! A share of the training images that is held out for validation.

use dualenc_data::Dataset;

/// The share that is held out of most sets: one in twenty is not missed in training.
const SHARE: f64 = 0.05;

/// Images to hold out at least, where [`LARGEST_SHARE`] allows. The standard error of a recall is at most
/// `sqrt(0.25 / n)` (a binomial proportion): 0.035 of 200 images, and 0.18 of 8, which tells no two models apart.
const LEAST: f64 = 200.0;

/// Images to hold out at most: the size of COCO's 5K test set (Karpathy & Fei-Fei, 2015). Their standard error is 0.007
/// at most, and more of them make retrieval slow, and every figure lower.
const MOST: f64 = 5000.0;

/// The largest share that is wanted: a small set needs its pairs for training.
const LARGEST_SHARE: f64 = 0.2;

/// Part of the wanted images that is enough, since a hash gives more or fewer.
const ENOUGH: f64 = 0.85;

/// Fewest images of which some are held out.
const FEWEST: usize = 8;

/// Shares that are tried, in order, after the one that is wanted.
const FRACTIONS: [f64; 22] = [
    0.0005, 0.0007, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1,
    0.15, 0.2, 0.25, 0.3, 0.4,
];

/// The largest share that is tried for more images: a hash that gives few of a small set may give enough of a somewhat
/// larger share. Beyond it, the first share that holds out an image is taken.
const LARGEST_TRIED: f64 = 0.25;

/// Images to hold out of `images`.
fn wanted(images: usize) -> f64 {
    let images = images as f64;
    (SHARE * images).clamp(LEAST, MOST).min(LARGEST_SHARE * images)
}

/// Shares of `images` that are tried, in order: the wanted one, rounded up to two digits, and larger ones.
fn shares(images: usize) -> impl Iterator<Item = f64> {
    let exact = wanted(images) / images as f64;
    // A whole number of hundredths of its power of ten, which is written in two digits. What rounding adds to a whole
    // number is no reason for the next one.
    let scale = 10f64.powi(1 - exact.log10().floor() as i32);
    let first = (exact * scale - 1e-9).ceil() / scale;
    std::iter::once(first).chain(FRACTIONS.into_iter().filter(move |&share| share > first))
}

/// Images held out.
#[derive(Debug)]
pub(crate) struct HeldOut {
    /// A value of `data.validation_fraction`.
    pub fraction: f64,
    pub num_images: usize,
    /// Of labelled data, the classes of the images held out, and all classes.
    pub classes: Option<[usize; 2]>,
    /// The rest, which is trained on.
    pub train: Dataset,
}

impl HeldOut {
    /// The smallest share that is enough; of labelled data, one with an image of each class on both sides if a share of
    /// [`LARGEST_SHARE`] has them. `None`: the data are too few.
    pub fn of(all: &Dataset, is_labelled: bool) -> Option<Self> {
        if all.num_images() < FEWEST {
            return None;
        }
        let enough = ENOUGH * wanted(all.num_images());
        let split = |fraction: f64, enough: f64, needs_classes: bool| {
            // A share that is too small on average need not be tried.
            if fraction * (all.num_images() as f64) < enough {
                return None;
            }
            let (train, held_out) = all.split(fraction);
            let num_images = held_out.num_images();
            let is_enough = num_images as f64 >= enough && train.num_images() > num_images;
            let classes = || [&held_out, all].map(num_captions_of);
            let classes = (is_enough && is_labelled).then(classes);
            let has_classes = || classes.is_some_and(|[held, all]| held == all && num_captions_of(&train) == all);
            let is_enough = is_enough && (!needs_classes || has_classes());
            is_enough.then_some(Self { fraction, num_images, classes, train })
        };
        let up_to = |most: f64| shares(all.num_images()).take_while(move |&share| share <= most);
        let with_classes = || up_to(LARGEST_SHARE).find_map(|share| split(share, enough, true));
        let with_images = || up_to(LARGEST_TRIED).find_map(|share| split(share, enough, false));
        // Of a small set, no share may have enough.
        let most =
            || FRACTIONS.into_iter().rev().filter(|&it| it <= LARGEST_TRIED).find_map(|it| split(it, 1.0, false));
        let any = || FRACTIONS.into_iter().find_map(|it| split(it, 1.0, false));
        let with_classes = is_labelled.then(with_classes).flatten();
        with_classes.or_else(with_images).or_else(most).or_else(any)
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

    /// A small set keeps its images for training, however a hash falls.
    #[test]
    fn small_sets_get_validation() {
        for salt in 0..200 {
            let found = HeldOut::of(&labelled(2, 72, salt), true).unwrap();
            assert!((6..27).contains(&found.num_images), "{salt}: {}", found.num_images);
            assert!(found.fraction <= 0.25, "{salt}: {}", found.fraction);
            assert_eq!(found.train.num_images() + found.num_images, 72);
            assert_eq!((found.classes, num_captions_of(&found.train)), (Some([2, 2]), 2));
            let found = HeldOut::of(&labelled(1, 24, salt), false).unwrap();
            assert!((1..12).contains(&found.num_images), "{salt}: {}", found.num_images);
            assert!(found.fraction <= 0.25, "{salt}: {}", found.fraction);
            let found = HeldOut::of(&labelled(1, 8, salt), false);
            assert!(found.is_none_or(|found| (1..4).contains(&found.num_images)), "{salt}");
        }
        assert!(HeldOut::of(&labelled(2, 7, 0), true).is_none());
    }

    /// Enough images for figures that tell models apart, and most of them for training.
    #[test]
    fn held_out_images_suit_the_size() {
        for (images, expected) in [(300, 51..90), (3_000, 170..260), (20_000, 900..1_100), (100_000, 4_700..5_300)] {
            let found = HeldOut::of(&labelled(10, images, 0), false).unwrap();
            assert!(expected.contains(&found.num_images), "{images}: {} ({})", found.num_images, found.fraction);
            assert_eq!(found.train.num_images() + found.num_images, images);
        }
        assert_eq!([1_000, 4_000, 2_000_000].map(wanted), [200.0, 200.0, 5_000.0]);
        for images in [1_000, 3_000, 20_000, 100_000, 420_000, 1_280_000, 2_100_000, 10_000_000] {
            let times: Vec<f64> = shares(images).map(|share| share * images as f64 / wanted(images)).collect();
            assert!((0.999..1.15).contains(&times[0]), "{images}: {times:?}");
            // If a hash gives too few, the next share is not far.
            assert!(times[1] < 1.6, "{images}: {times:?}");
        }
        assert_eq!([420_000, 2_100_000].map(|images| shares(images).next()), [Some(0.012), Some(0.0024)]);
    }

    #[test]
    fn each_class_is_held_out() {
        let all = labelled(40, 4000, 0);
        let found = HeldOut::of(&all, true).unwrap();
        let (_, held_out) = all.split(found.fraction);
        assert_eq!((num_captions_of(&held_out), found.classes), (40, Some([40, 40])), "{}", found.fraction);
    }

    /// Few images of each class are not worth 4 of 10 images of all.
    #[test]
    fn rare_classes_leave_the_share_as_it_is() {
        let found = HeldOut::of(&labelled(100, 400, 0), true).unwrap();
        let [held, all] = found.classes.unwrap();
        assert!(found.fraction <= 0.25 && held < 100 && all == 100, "{}: {held} of {all}", found.fraction);
        assert_eq!(found.num_images, 400 - found.train.num_images());
    }
}
