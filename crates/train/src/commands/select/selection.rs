//! Which images are still taken, and what each stage left out.

use std::collections::HashSet;

use dualenc_data::Dataset;

use crate::commands::select::images::Rows;
use crate::commands::select::request::LeftOutBy;

/// Images that a stage names.
const NAMED: usize = 3;

/// The rows of a selection, stage by stage.
pub(super) struct Selection<'a> {
    pub dataset: &'a Dataset,
    pub rows: &'a Rows,
    /// Of each row, its highest cosine with a caption.
    pub scores: Option<Vec<f32>>,
    /// Of each row.
    pub taken: Vec<bool>,
    pub left_out: Vec<LeftOutBy>,
}

impl<'a> Selection<'a> {
    /// Takes every row.
    pub fn new(dataset: &'a Dataset, rows: &'a Rows, scores: Option<Vec<f32>>) -> Self {
        Self { dataset, rows, scores, taken: vec![true; rows.images.len()], left_out: Vec::new() }
    }

    /// The rows that are taken, the best score first; without scores, in the order of the data.
    pub fn best_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.taken.len()).filter(|&row| self.taken[row]).collect();
        if let Some(scores) = &self.scores {
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        }
        order
    }

    /// Leaves out `order[at]` where `leaves_out[at]` is true.
    pub fn leave_out(&mut self, stage: &'static str, order: &[usize], leaves_out: &[bool]) {
        let mut rows: Vec<usize> =
            order.iter().zip(leaves_out).filter(|(row, out)| **out && self.taken[**row]).map(|(row, _)| *row).collect();
        rows.sort_unstable();
        rows.iter().for_each(|&row| self.taken[row] = false);
        let name = |&row: &usize| self.dataset.relative_key(self.rows.images[row]);
        let such_as = rows.iter().take(NAMED).map(name).collect();
        self.left_out.push(LeftOutBy { stage, images: rows.len(), such_as });
    }

    /// Takes the images of an earlier list, and returns how many were not taken before.
    pub fn add(&mut self, names: &HashSet<&str>) -> usize {
        let added: Vec<usize> = (0..self.taken.len())
            .filter(|&row| !self.taken[row])
            .filter(|&row| names.contains(self.dataset.relative_key(self.rows.images[row]).as_str()))
            .collect();
        added.iter().for_each(|&row| self.taken[row] = true);
        added.len()
    }

    /// Whether each image of the data set is taken.
    pub fn of_images(&self) -> Vec<bool> {
        let mut taken = vec![false; self.dataset.num_images()];
        self.rows.images.iter().zip(&self.taken).for_each(|(&image, &is_taken)| taken[image] = is_taken);
        taken
    }
}

/// Rows of this width, one after another.
pub(super) fn gather(values: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|&row| &values[row * width..][..width]).copied().collect()
}
