//! Which images are held out, to choose ridge and power by.

use std::collections::HashMap;
use std::hash::Hash;

use dualenc_data::mix;

/// Seed of the choice (ASCII `fit`).
const SEED: u64 = 0x66_6974;

/// One of this many images is held out, within the limits below.
const ONE_OF: usize = 10;

/// Least images for a choice: recall among fewer says little.
const LEAST: usize = 16;

/// Most images that are held out: recall among 2,000 tells candidates apart that differ by a point, and costs less than
/// the fit.
const MOST: usize = 2000;

/// Least images to fit to, as a multiple of those held out.
const LEAST_FITTED: usize = 2;

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
        [true, false].into_iter().find_map(|captions_apart| {
            let is_held_out = draw(&groups(images, captions_apart), wanted);
            let count = is_held_out.iter().filter(|held_out| **held_out).count();
            (count * 2 >= wanted).then_some(Self { is_held_out, count, captions_apart })
        })
    }
}

/// Draws whole groups until about `wanted` images are held out. `groups`: the group of each image, which is the number
/// of one of its images.
fn draw(groups: &[usize], wanted: usize) -> Vec<bool> {
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    groups.iter().for_each(|&group| *sizes.entry(group).or_default() += 1);
    let mut order: Vec<usize> = sizes.keys().copied().collect();
    order.sort_by_key(|&group| (mix(SEED, &[group as u64]), group));
    let mut held_out = vec![false; groups.len()];
    let mut left = wanted;
    for group in order {
        if sizes[&group] <= left {
            left -= sizes[&group];
            held_out[group] = true;
        }
    }
    groups.iter().map(|&group| held_out[group]).collect()
}

/// The group of each image: the number of its first image.
fn groups(images: &[SplitImage], by_captions: bool) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..images.len()).collect();
    let (mut contents, mut captions) = (HashMap::new(), HashMap::new());
    for (number, image) in images.iter().enumerate() {
        if let Some(content) = image.content {
            join(&mut parents, first_with(&mut contents, content, number), number);
        }
        for &caption in image.captions.iter().filter(|_| by_captions) {
            join(&mut parents, first_with(&mut captions, caption, number), number);
        }
    }
    (0..images.len()).map(|image| root(&mut parents, image)).collect()
}

fn first_with<K: Eq + Hash>(seen: &mut HashMap<K, usize>, key: K, image: usize) -> usize {
    *seen.entry(key).or_insert(image)
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
