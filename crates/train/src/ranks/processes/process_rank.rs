//! The connection of a process to all.

use std::fmt::{Debug, Formatter};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;

use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::processes::communication::Order;
use crate::ranks::processes::round::{Given, Round, Taken};
use crate::ranks::processes::world::World;
use crate::ranks::tree::sum_in_tree;

/// Numbers of calls, so that ranks see that they make the same. A sum adds how many numbers it has.
const BYTES: u64 = 0;
const VALUES: u64 = 1;
const SUM: u64 = 2;

pub(super) struct ProcessRank(pub Arc<World>);

impl Debug for ProcessRank {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} of {}", self.rank(), self.ranks())
    }
}

impl ProcessRank {
    /// Gives each rank its part, and takes what each gives to this one; nothing of this rank itself.
    fn swap(
        &self,
        given: Given,
        parts: Vec<Range<usize>>,
        call: u64,
        patience: Patience,
    ) -> Result<Vec<Taken>, TrainError> {
        let (answer, found) = channel();
        self.0.order(Order::Swap(Round { given, parts, call, patience, answer }))?;
        self.0.wait_for(&found)?.map_err(|failure| self.0.error_of(failure))
    }

    /// What each rank gives of `own`, which all ranks get whole.
    fn swap_values(
        &self,
        own: Arc<Vec<f32>>,
        parts: Vec<Range<usize>>,
        call: u64,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let found = self.swap(Given::Values(own), parts, call, Patience::Deadline)?;
        let values = |taken| match taken {
            Taken::Values(values) => Ok(values),
            Taken::Bytes(_) => Err(other_kind()),
        };
        found.into_iter().map(values).collect()
    }
}

impl Exchange for ProcessRank {
    fn rank(&self) -> usize {
        self.0.rank
    }

    fn ranks(&self) -> usize {
        self.0.ranks
    }

    fn ranks_of_process(&self) -> usize {
        1
    }

    fn gather_bytes(&self, bytes: Vec<u8>, patience: Patience) -> Result<Vec<Arc<Vec<u8>>>, TrainError> {
        let own = Arc::new(bytes);
        let parts = vec![0..own.len(); self.ranks()];
        let found = self.swap(Given::Bytes(Arc::clone(&own)), parts, BYTES, patience)?;
        let place = |(rank, taken)| match taken {
            _ if rank == self.rank() => Ok(Arc::clone(&own)),
            Taken::Bytes(bytes) => Ok(Arc::new(bytes)),
            Taken::Values(_) => Err(other_kind()),
        };
        found.into_iter().enumerate().map(place).collect()
    }

    fn gather_values(&self, values: Vec<f32>) -> Result<Vec<Arc<Vec<f32>>>, TrainError> {
        let own = Arc::new(values);
        let parts = vec![0..size_of::<f32>() * own.len(); self.ranks()];
        let found = self.swap_values(Arc::clone(&own), parts, VALUES)?.into_iter().enumerate();
        Ok(found.map(|(rank, values)| if rank == self.rank() { Arc::clone(&own) } else { Arc::new(values) }).collect())
    }

    /// Each rank takes its range of the positions from all, adds it up, and gives the sums to all: twice (ranks - 1) /
    /// ranks of the bytes leave each rank, the fewest possible (Patarasuk and Yuan, 2009, "Bandwidth optimal
    /// all-reduce algorithms for clusters of workstations").
    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        let (ranks, count) = (self.ranks(), values.len());
        let range = |rank: usize| rank * count / ranks..(rank + 1) * count / ranks;
        let bytes = |range: Range<usize>| size_of::<f32>() * range.start..size_of::<f32>() * range.end;
        let own = Arc::new(values);
        let parts = (0..ranks).map(|rank| bytes(range(rank))).collect();
        let mut found = self.swap_values(Arc::clone(&own), parts, SUM + count as u64)?;
        found[self.rank()] = own[range(self.rank())].to_vec();
        drop(own);
        let mut leaf = |rank: usize| Ok(std::mem::take(&mut found[rank]));
        let mut add = |mut first: Vec<f32>, second: Vec<f32>| {
            first.iter_mut().zip(second).for_each(|(sum, value)| *sum += value);
            Ok::<_, TrainError>(first)
        };
        let sums = sum_in_tree(0..ranks, u32::MAX, &mut leaf, &mut add)?;
        Ok(self.gather_values(sums)?.iter().flat_map(|sums| sums.iter().copied()).collect())
    }
}

fn other_kind() -> TrainError {
    TrainError::Internal("ranks exchange different things".to_owned())
}
