//! The best rows of a query.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A row near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The row, from 0.
    pub row: usize,
    /// Cosine similarity, from -1 to 1.
    pub score: f32,
}

impl Eq for Neighbour {}

/// The greater is the nearer; of two with the same score, the one in the earlier row.
impl Ord for Neighbour {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.row.cmp(&self.row))
    }
}

impl PartialOrd for Neighbour {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The nearest rows that were offered so far.
pub(crate) struct Nearest {
    most: usize,
    /// The farthest at the top.
    heap: BinaryHeap<Reverse<Neighbour>>,
}

impl Nearest {
    /// At most `most` rows.
    pub fn new(most: usize) -> Self {
        Self { most, heap: BinaryHeap::new() }
    }

    /// Keeps a row if it is among the nearest.
    pub fn offer(&mut self, row: usize, score: f32) {
        // Zero has one sign only, so that ties are in order of rows.
        let new = Neighbour { row, score: score + 0.0 };
        if self.heap.len() < self.most {
            self.heap.push(Reverse(new));
        } else if let Some(mut farthest) = self.heap.peek_mut()
            && new > farthest.0
        {
            *farthest = Reverse(new);
        }
    }

    /// Keeps the nearest of both.
    pub fn merge(&mut self, other: Self) {
        for Reverse(Neighbour { row, score }) in other.heap {
            self.offer(row, score);
        }
    }

    /// The rows, the nearest first.
    pub fn into_sorted(self) -> Vec<Neighbour> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(neighbour)| neighbour).collect()
    }
}
