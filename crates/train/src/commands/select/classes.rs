//! The same number of images for each class: rare classes choose first.
//!
//! Balancing by concepts is what gained most in zero-shot accuracy in Freeze-Align (Maniparambil et al., 2025, tab. 4).

use crate::commands::select::request::ClassCount;

/// The images of each class.
#[derive(Debug, PartialEq)]
pub(super) struct ByClass {
    /// Whether each image was taken.
    pub taken: Vec<bool>,
    /// Of each class, the images that were taken for it.
    pub counts: Vec<usize>,
}

/// Takes up to `per_class` images for each class: those with the highest cosines that no class before took. Classes
/// that resemble fewer images come before others.
///
/// `embeds`: `[images, dim]`, `prototypes`: `[classes, dim]`, flat and normalised. `supply`: of each class, the images
/// that resemble it most.
pub(super) fn by_class(
    embeds: &[f32],
    prototypes: &[f32],
    supply: &[usize],
    (dim, per_class): (usize, usize),
    mut on_class: impl FnMut(usize),
) -> ByClass {
    let mut taken = vec![false; embeds.len() / dim.max(1)];
    let mut counts = vec![0; supply.len()];
    let mut order: Vec<usize> = (0..supply.len()).collect();
    order.sort_by_key(|&class| (supply[class], class));
    for (done, &class) in order.iter().enumerate() {
        let prototype = &prototypes[class * dim..][..dim];
        let cosine = |row: &[f32]| row.iter().zip(prototype).map(|(a, b)| a * b).sum::<f32>();
        let rows = embeds.chunks_exact(dim.max(1)).enumerate();
        let mut free: Vec<(usize, f32)> =
            rows.filter(|(image, _)| !taken[*image]).map(|(image, row)| (image, cosine(row))).collect();
        let wanted = per_class.min(free.len());
        if wanted > 0 && wanted < free.len() {
            free.select_nth_unstable_by(wanted - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        free[..wanted].iter().for_each(|(image, _)| taken[*image] = true);
        counts[class] = wanted;
        on_class(done + 1);
    }
    ByClass { taken, counts }
}

/// For the report.
pub(super) fn class_counts(names: &[String], counts: &[usize], supply: &[usize]) -> Vec<ClassCount> {
    let class =
        |((name, &images), &supply): ((&String, &usize), &usize)| ClassCount { name: name.clone(), images, supply };
    names.iter().zip(counts).zip(supply).map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_choose_first() {
        // Images at 0, 10, ..., 90 degrees; classes at 0 and at 60 degrees.
        let unit = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let embeds: Vec<f32> = (0..10).flat_map(|it| unit(it as f32 * 10.0)).collect();
        let prototypes: Vec<f32> = [0.0, 60.0].into_iter().flat_map(unit).collect();
        let find = |supply: [usize; 2], per_class| by_class(&embeds, &prototypes, &supply, (2, per_class), |_| {});
        let taken = |found: &ByClass| (0..10).filter(|&image| found.taken[image]).collect::<Vec<_>>();
        let few = find([4, 6], 2);
        assert_eq!((taken(&few), &few.counts[..]), (vec![0, 1, 5, 6], &[2, 2][..]));
        // The first class takes 7 of 10, and the other one the rest.
        let many = find([4, 6], 7);
        assert_eq!((taken(&many).len(), &many.counts[..]), (10, &[7, 3][..]));
        let other_first = find([6, 4], 7);
        assert_eq!(&other_first.counts[..], &[3, 7]);
        assert_eq!(find([0, 0], 0).counts, [0, 0]);
    }
}
