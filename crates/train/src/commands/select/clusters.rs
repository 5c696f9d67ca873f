//! Clusters of images, and a limit to the images of each: what occurs often counts less. Balancing by clusters of image
//! features is one half of the curation of DINOv2's and dino.txt's data (Jose et al., 2025, sec. 3.3).

use burn::tensor::Device;
use dualenc_data::mix;

use crate::error::TrainError;
use crate::eval::metrics::scores::{Scores, TILE_SCORES, normalize_rows};
use crate::eval::metrics::top::Top;
use crate::events::{Event, Observer};
use crate::stop_flag::StopFlag;

/// Rounds of k-means: the default of Faiss (`ClusteringParameters::niter`).
const ROUNDS: usize = 25;

/// Images for each cluster that centroids are computed from, at most: `max_points_per_centroid` of Faiss.
const POINTS_PER_CLUSTER: usize = 256;

/// Images for each cluster that its first centroid is drawn from.
const POINTS_PER_FIRST_CENTROID: usize = 16;

/// Keeps the draw of first centroids apart from that of images of a cluster; an argument of [`mix`].
const CENTROIDS: u64 = 0xce27;
const MEMBERS: u64 = 0x3e3b;

/// Unit rows of one width, and what compares them.
pub(super) struct Clustering<'a> {
    pub width: usize,
    pub device: &'a Device,
    pub stop: &'a StopFlag,
    pub seed: u64,
}

impl Clustering<'_> {
    /// The cluster of each row, by spherical k-means (Dhillon and Modha, 2001): `rows` are `[rows, width]`, flat, of
    /// norm 1.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the device cannot return its data; [`TrainError::Stopped`] when the stop flag is set.
    pub fn assign(&self, rows: &[f32], clusters: usize, observer: &mut dyn Observer) -> Result<Vec<usize>, TrainError> {
        let count = rows.len() / self.width.max(1);
        let clusters = clusters.min(count);
        if clusters == 0 {
            return Ok(Vec::new());
        }
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&row| (mix(self.seed, &[CENTROIDS, row as u64]), row));
        order.truncate(clusters.saturating_mul(POINTS_PER_CLUSTER));
        let sample: Vec<f32> = order.iter().flat_map(|&row| self.row(rows, row)).copied().collect();
        let mut centroids = self.first_centroids(&sample, clusters);
        for round in 0..ROUNDS {
            let (nearest, cosines) = self.nearest(&sample, &centroids)?;
            let before = centroids;
            centroids = self.means(&sample, &nearest, &cosines, clusters);
            observer.on(Event::Work { name: "rounds of k-means", done: round + 1, total: ROUNDS });
            if before == centroids {
                break;
            }
        }
        Ok(self.nearest(rows, &centroids)?.0)
    }

    /// First centroids, drawn one by one with a probability that grows with the distance to those drawn before
    /// (k-means++, Arthur and Vassilvitskii, 2007): on a sphere, the squared distance is twice 1 minus the cosine.
    fn first_centroids(&self, sample: &[f32], clusters: usize) -> Vec<f32> {
        let rows = (sample.len() / self.width).min(clusters.saturating_mul(POINTS_PER_FIRST_CENTROID));
        let mut centroids: Vec<f32> = Vec::with_capacity(clusters * self.width);
        let mut distances = vec![f64::from(f32::MAX); rows];
        let mut drawn = 0;
        for number in 1..=clusters {
            let centroid = self.row(sample, drawn);
            centroids.extend_from_slice(centroid);
            for (distance, row) in distances.iter_mut().zip(sample.chunks_exact(self.width)) {
                let cosine: f32 = row.iter().zip(centroid).map(|(a, b)| a * b).sum();
                *distance = distance.min(f64::from(1.0 - cosine).max(0.0));
            }
            let total: f64 = distances.iter().sum();
            // 53 bits are exact in a double.
            let random = (mix(self.seed, &[CENTROIDS, number as u64, 0]) >> 11) as f64 / (1u64 << 53) as f64;
            let mut left = random * total;
            // Rows that equal a centroid are drawn only when all do.
            drawn = (0..rows).rfind(|&row| distances[row] > 0.0).unwrap_or(number % rows);
            for (row, &distance) in distances.iter().enumerate() {
                left -= distance;
                if left < 0.0 {
                    drawn = row;
                    break;
                }
            }
        }
        centroids
    }

    fn row<'r>(&self, rows: &'r [f32], row: usize) -> &'r [f32] {
        &rows[row * self.width..][..self.width]
    }

    /// The nearest centroid of each row, and its cosine.
    fn nearest(&self, rows: &[f32], columns: &[f32]) -> Result<(Vec<usize>, Vec<f32>), TrainError> {
        let &Self { width: dim, device, stop, .. } = self;
        let top = Top::of(&Scores { rows, columns, dim, device, stop, tile: TILE_SCORES }, 1, 1.0)?;
        Ok((0..top.len()).map(|row| (top.row(row)[0].column, top.row(row)[0].score)).unzip())
    }

    /// The normalised means of the rows of each cluster. A cluster without rows takes the row that is farthest from its
    /// centroid.
    fn means(&self, rows: &[f32], nearest: &[usize], cosines: &[f32], clusters: usize) -> Vec<f32> {
        let mut sums = vec![0.0f64; clusters * self.width];
        let mut sizes = vec![0usize; clusters];
        for (row, &cluster) in rows.chunks_exact(self.width).zip(nearest) {
            sizes[cluster] += 1;
            let sum = &mut sums[cluster * self.width..][..self.width];
            sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let mut means: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
        let mut farthest: Vec<usize> = (0..nearest.len()).collect();
        farthest.sort_by(|&a, &b| cosines[a].total_cmp(&cosines[b]).then(a.cmp(&b)));
        let mut farthest = farthest.into_iter();
        for (cluster, _) in sizes.iter().enumerate().filter(|(_, size)| **size == 0) {
            if let Some(row) = farthest.next() {
                means[cluster * self.width..][..self.width].copy_from_slice(self.row(rows, row));
            }
        }
        normalize_rows(&mut means, self.width);
        means
    }
}

/// Whether each row is among the `cap` rows of its cluster that are kept: those with the highest scores, or drawn ones.
pub(super) fn capped(assigned: &[usize], scores: Option<&[f32]>, cap: usize, seed: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..assigned.len()).collect();
    match scores {
        Some(scores) => order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b))),
        None => order.sort_by_key(|&row| (mix(seed, &[MEMBERS, row as u64]), row)),
    }
    let mut sizes = vec![0usize; assigned.iter().max().map_or(0, |&cluster| cluster + 1)];
    let mut kept = vec![false; assigned.len()];
    for row in order {
        let size = &mut sizes[assigned[row]];
        kept[row] = *size < cap;
        *size += 1;
    }
    kept
}

/// Images of each cluster, most first.
pub(super) fn sizes(assigned: &[usize]) -> Vec<usize> {
    let mut sizes = vec![0usize; assigned.iter().max().map_or(0, |&cluster| cluster + 1)];
    assigned.iter().for_each(|&cluster| sizes[cluster] += 1);
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Compute;
    use crate::events::Silent;

    fn assign(rows: &[f32], clusters: usize) -> Vec<usize> {
        let compute = Compute::select("cpu", None).unwrap();
        let clustering = Clustering { width: 2, device: &compute.device, stop: &StopFlag::default(), seed: 3 };
        clustering.assign(rows, clusters, &mut Silent).unwrap()
    }

    /// Unit vectors within 3 degrees of three directions, in turn.
    fn three_groups(count: usize) -> Vec<f32> {
        let degrees = |at: usize| (at % 3) as f32 * 120.0 + (at * 7 % 6) as f32;
        (0..count).flat_map(|at| [degrees(at).to_radians().cos(), degrees(at).to_radians().sin()]).collect()
    }

    #[test]
    fn groups_are_found() {
        let found = assign(&three_groups(60), 3);
        for at in 3..60 {
            assert_eq!(found[at], found[at % 3], "{found:?}");
        }
        assert_eq!(sizes(&found), [20, 20, 20]);
        assert_eq!(found, assign(&three_groups(60), 3), "the same each time");
    }

    #[test]
    fn more_clusters_than_rows() {
        let mut found = assign(&three_groups(3), 10);
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2]);
        assert!(assign(&[], 4).is_empty());
        // Equal rows: one cluster takes all, and the others none.
        assert_eq!(sizes(&assign(&[1.0, 0.0].repeat(9), 4)).iter().sum::<usize>(), 9);
    }

    #[test]
    fn caps_by_score_or_by_draw() {
        let assigned = [0, 0, 0, 1, 1, 2];
        let by_score = capped(&assigned, Some(&[0.1, 0.3, 0.2, 0.5, 0.6, 0.0]), 1, 0);
        assert_eq!(by_score, [false, true, false, false, true, true]);
        let drawn = |seed| capped(&assigned, None, 2, seed);
        assert_eq!(drawn(1).iter().filter(|&&kept| kept).count(), 5);
        assert_eq!(drawn(1)[3..], [true; 3]);
        assert!((2..20).any(|seed| drawn(seed) != drawn(1)));
        assert_eq!(capped(&assigned, None, 9, 1), [true; 6]);
    }
}
