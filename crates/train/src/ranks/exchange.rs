//! What ranks tell each other.

use std::fmt::Debug;
use std::sync::Arc;

use dualenc_data::Share;

use crate::error::TrainError;

/// How long a rank waits for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the deadline of the exchange: all ranks do the same work.
    Deadline,
    /// Until they come or fail: one of them opens the run, evaluates or saves.
    AsLongAsItTakes,
}

/// The connection of one rank to all. Every rank makes the same calls in the same order.
///
/// Each call is an error when a rank has failed, or does not come before the deadline.
pub(crate) trait Exchange: Debug + Send + Sync {
    /// The number of this rank, 0-based.
    fn rank(&self) -> usize;

    /// How many there are.
    fn ranks(&self) -> usize;

    /// How many are threads of this process, and share its devices and cores.
    fn ranks_of_process(&self) -> usize {
        self.ranks()
    }

    /// What each rank gives, in the order of ranks.
    fn gather_bytes(&self, bytes: Vec<u8>, patience: Patience) -> Result<Vec<Arc<Vec<u8>>>, TrainError>;

    /// As [`Exchange::gather_bytes`], for numbers.
    fn gather_values(&self, values: Vec<f32>) -> Result<Vec<Arc<Vec<f32>>>, TrainError>;

    /// The sums of the numbers of all ranks, position by position, in the order of
    /// [`sum_in_tree`](crate::ranks::tree::sum_in_tree). All ranks give equally many.
    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, TrainError>;

    /// Whether there is no other rank.
    fn is_alone(&self) -> bool {
        self.ranks() == 1
    }

    /// The parts of a step that this rank computes.
    fn share(&self) -> Share {
        Share { rank: self.rank(), ranks: self.ranks() }
    }
}
