//! Which images are held out, to choose ridge and power by, and for the temperature.

use dualenc_data::mix;
use rayon::prelude::*;

/// Seed of the choice (ASCII `fit`).
const SEED: u64 = 0x66_6974;

/// Seed of the images for the temperature (ASCII `temp`).
const TEMPERATURE_SEED: u64 = 0x7465_6d70;

/// One of this many images is held out, within the limits below.
const ONE_OF: usize = 10;

/// Least images for a choice: recall among fewer says little.
const LEAST: usize = 16;

/// Most images that are held out: recall among 2,000 tells candidates apart that differ by a point, and costs less than
/// the fit.
const MOST: usize = 2000;

/// Least images to fit to, as a multiple of those held out.
const LEAST_FITTED: usize = 2;

/// Least part of the pairs with a caption that another image has, too, for which images are held out a second time: as
/// many as are held out at first. If fewer recur, those held out at first are much like new images.
const LEAST_RECURRING: f64 = 0.1;

/// Fewest images of which some are held out.
pub(crate) const FEWEST: usize = LEAST * (1 + LEAST_FITTED);

/// Images that are held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// Of each image, whether it is held out.
    pub is_held_out: Vec<bool>,
    /// Number of images held out.
    pub count: usize,
    /// Whether no held-out image shares a caption with another image.
    pub captions_apart: bool,
    /// Of each image, whether it is held out for the temperature: drawn without regard to its captions, so that as many
    /// of them belong to other images, too, as those of new images will. `None`: the others serve for it.
    pub for_temperature: Option<Vec<bool>>,
}

/// An image, as far as the split sees it.
#[derive(Debug, Clone)]
pub(crate) struct SplitImage {
    /// Equal images share it; `None`: it equals no other one.
    pub content: Option<u64>,
    /// Ids of its captions; equal captions share one.
    pub captions: Vec<u64>,
}

impl Split {
    /// Holds out whole groups of images, a tenth of all or somewhat less. Images that share a caption or their content
    /// are in one group, unless that leaves too little on a side: then only equal images are. `None`: there are too few
    /// images.
    pub fn of(images: &[SplitImage]) -> Option<Self> {
        let wanted = (images.len() / ONE_OF).clamp(LEAST, MOST);
        if images.len() < wanted * (1 + LEAST_FITTED) {
            return None;
        }
        let copies = groups(images, false);
        [true, false].into_iter().find_map(|captions_apart| {
            let groups = if captions_apart { &groups(images, true) } else { &copies };
            let is_held_out = draw(SEED, groups, wanted, |_| true);
            let count = count(&is_held_out);
            let recur = captions_apart && recurring(images, &copies) >= LEAST_RECURRING;
            let for_temperature = recur.then(|| draw(TEMPERATURE_SEED, &copies, wanted, |image| !is_held_out[image]));
            let for_temperature = for_temperature.filter(|drawn| self::count(drawn) * 2 >= wanted);
            (count * 2 >= wanted).then_some(Self { is_held_out, count, captions_apart, for_temperature })
        })
    }
}

fn count(is_held_out: &[bool]) -> usize {
    is_held_out.iter().filter(|held_out| **held_out).count()
}

/// The part of the pairs with a caption that another image has, too; `copies`: the groups of equal images. It estimates
/// how many pairs of new images have a caption that these images have (Good, 1953).
fn recurring(images: &[SplitImage], copies: &[usize]) -> f64 {
    let captions =
        images.iter().zip(copies).flat_map(|(image, &group)| image.captions.iter().map(move |&it| (it, group)));
    let captions = sorted(captions);
    let runs = captions.chunk_by(|one, other| one.0 == other.0);
    let recur: usize = runs.filter(|run| run[0].1 != run[run.len() - 1].1).map(<[_]>::len).sum();
    recur as f64 / captions.len().max(1) as f64
}

/// Keys with numbers, equal keys beside each other: a million of them take a sort less time than a hash table.
fn sorted(keys: impl Iterator<Item = (u64, usize)>) -> Vec<(u64, usize)> {
    let mut keys: Vec<(u64, usize)> = keys.collect();
    keys.par_sort_unstable();
    keys
}

/// Draws whole groups of images for which `is_free` is true until about `wanted` images are held out. `groups`: the
/// group of each image, which is the number of one of its images.
fn draw(seed: u64, groups: &[usize], wanted: usize, is_free: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut sizes = vec![0; groups.len()];
    groups.iter().for_each(|&group| sizes[group] += 1);
    // No group is free in part: equal images are held out together.
    let free = (0..groups.len()).filter(|&group| sizes[group] > 0 && is_free(group));
    let order = sorted(free.map(|group| (mix(seed, &[group as u64]), group)));
    let mut held_out = vec![false; groups.len()];
    let mut left = wanted;
    for (_, group) in order {
        if sizes[group] <= left {
            left -= sizes[group];
            held_out[group] = true;
        }
    }
    groups.iter().map(|&group| held_out[group]).collect()
}

/// The group of each image: the number of its first image.
fn groups(images: &[SplitImage], by_captions: bool) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..images.len()).collect();
    let mut join_equal = |keys: Vec<(u64, usize)>| {
        let pairs = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        pairs.for_each(|pair| join(&mut parents, pair[0].1, pair[1].1));
    };
    let numbered = || images.iter().enumerate();
    join_equal(sorted(numbered().filter_map(|(number, image)| Some((image.content?, number)))));
    if by_captions {
        let captions = numbered().flat_map(|(number, image)| image.captions.iter().map(move |&it| (it, number)));
        join_equal(sorted(captions));
    }
    (0..images.len()).map(|image| root(&mut parents, image)).collect()
}

fn join(parents: &mut [usize], one: usize, other: usize) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other)] = one.min(other);
}

fn root(parents: &mut [usize], mut image: usize) -> usize {
    while parents[image] != image {
        parents[image] = parents[parents[image]];
        image = parents[image];
    }
    image
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn images(count: usize, caption: impl Fn(usize) -> u64) -> Vec<SplitImage> {
        (0..count).map(|at| SplitImage { content: Some(at as u64 + 1), captions: vec![caption(at)] }).collect()
    }

    fn captions(images: &[SplitImage], split: &Split, side: bool) -> HashSet<u64> {
        let of_side = images.iter().zip(&split.is_held_out).filter(|(_, held_out)| **held_out == side);
        of_side.flat_map(|(image, _)| image.captions.clone()).collect()
    }

    #[test]
    fn holds_out_a_tenth() {
        for (count, expected) in [(48, 16), (400, 40), (30_000, 2000)] {
            let split = Split::of(&images(count, |at| at as u64)).unwrap();
            assert_eq!((split.count, split.captions_apart), (expected, true), "{count}");
        }
        assert_eq!(Split::of(&images(47, |at| at as u64)), None);
    }

    #[test]
    fn captions_stay_on_one_side() {
        let images = images(600, |at| at as u64 % 100);
        let split = Split::of(&images).unwrap();
        assert!(split.captions_apart && split.count == 60);
        assert!(captions(&images, &split, true).is_disjoint(&captions(&images, &split, false)));
        // A second caption that all share, as in "a photo".
        let mut shared = images.clone();
        shared.iter_mut().for_each(|image| image.captions.push(7777));
        let split = Split::of(&shared).unwrap();
        assert!(!split.captions_apart && split.count == 60);
    }

    #[test]
    fn temperature_is_of_images_with_known_captions() {
        let mut images = images(600, |at| at as u64 % 100);
        images
            .iter_mut()
            .enumerate()
            .for_each(|(at, image)| image.content = Some(at as u64 / 200 * 100 + at as u64 % 100));
        let split = Split::of(&images).unwrap();
        let held_out = split.for_temperature.clone().unwrap();
        assert_eq!(count(&held_out), 60);
        assert!(held_out.iter().zip(&split.is_held_out).all(|(one, other)| !(one & other)));
        // Copies, 100 places apart, stay on one side; captions of other images do not.
        assert!((0..600).all(|at| at / 100 % 2 == 1 || held_out[at] == held_out[at + 100]));
        let split = Split { is_held_out: held_out, ..split };
        let [held_out, fitted] = [true, false].map(|side| captions(&images, &split, side));
        assert!(held_out.intersection(&fitted).count() * 10 > held_out.len() * 9);
        // Captions that hardly recur need no second draw.
        assert_eq!(Split::of(&self::images(600, |at| at as u64 % 590)).unwrap().for_temperature, None);
    }

    #[test]
    fn copies_stay_on_one_side() {
        let mut images = images(600, |_| 5);
        images.iter_mut().enumerate().for_each(|(at, image)| image.content = Some(at as u64 / 2));
        let split = Split::of(&images).unwrap();
        assert!(!split.captions_apart && split.count == 60);
        assert!(split.is_held_out.chunks(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn one_image_many_times_is_no_choice() {
        let mut images = images(100, |at| at as u64);
        images.iter_mut().for_each(|image| image.content = Some(1));
        assert_eq!(Split::of(&images), None);
    }
}
