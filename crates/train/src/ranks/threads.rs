//! Ranks that are threads of one process: they meet at a board in shared memory.

use std::any::Any;
use std::fmt::{Debug, Formatter};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::tree::sum_in_tree;

/// Longest wait between two looks at the time.
const SLICE: Duration = Duration::from_secs(1);

/// Where the ranks meet. What they exchange in one call is a round; a round begins when all have taken the last one.
pub(super) struct Board {
    devices: Vec<String>,
    deadline: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

type Given = Arc<dyn Any + Send + Sync>;

struct State {
    /// What each rank has given in this round.
    given: Vec<Option<Given>>,
    /// Which ranks took what all have given; `None`: not all have.
    taken: Option<Vec<bool>>,
    /// The first error of a rank. No round is completed after it.
    failure: Option<(usize, Arc<TrainError>)>,
}

impl Board {
    /// A board for a rank on each of `devices`. `deadline`: how long a rank waits for others that do the same work.
    pub fn new(devices: Vec<String>, deadline: Duration) -> Arc<Self> {
        let state = State { given: vec![None; devices.len()], taken: None, failure: None };
        Arc::new(Self { devices, deadline, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The connection of a rank.
    pub fn rank(self: &Arc<Self>, rank: usize) -> Arc<dyn Exchange> {
        Arc::new(ThreadRank { board: Arc::clone(self), rank })
    }

    /// Ends every exchange: `rank` has failed with `error`. The first failure counts.
    pub fn fail(&self, rank: usize, error: Arc<TrainError>) {
        self.lock().failure.get_or_insert((rank, error));
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `error` of `rank`, with its device.
    fn of_rank(&self, rank: usize, source: Arc<TrainError>) -> TrainError {
        TrainError::OfRank { rank, device: self.devices[rank].clone(), source }
    }

    /// Waits until `is_ready`.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        patience: Patience,
        is_ready: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'a, State>, TrainError> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some((rank, error)) = &state.failure {
                return Err(self.of_rank(*rank, Arc::clone(error)));
            }
            if is_ready(&state) {
                return Ok(state);
            }
            if patience == Patience::AsLongAsItTakes {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = self.deadline.saturating_sub(waited);
            if left.is_zero() {
                let missing = match &state.taken {
                    Some(taken) => taken.iter().position(|taken| !taken),
                    None => state.given.iter().position(Option::is_none),
                };
                let missing = missing.ok_or_else(|| TrainError::Internal("no rank is late".to_owned()))?;
                let error = Arc::new(TrainError::RankIsLate { seconds: self.deadline.as_secs() });
                state.failure = Some((missing, Arc::clone(&error)));
                self.changed.notify_all();
                return Err(self.of_rank(missing, error));
            }
            // In slices: a process that was suspended meanwhile has not waited.
            let (slice, began) = (left.min(SLICE), Instant::now());
            state = self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
            waited += began.elapsed().min(2 * SLICE);
        }
    }

    /// What each rank gives in a round, in the order of ranks.
    fn gather<T: Send + Sync + 'static>(
        &self,
        rank: usize,
        given: T,
        patience: Patience,
    ) -> Result<Vec<Arc<T>>, TrainError> {
        let mut state = self.wait(self.lock(), patience, |state| state.taken.is_none())?;
        state.given[rank] = Some(Arc::new(given));
        if state.given.iter().all(Option::is_some) {
            state.taken = Some(vec![false; self.devices.len()]);
            self.changed.notify_all();
        }
        let mut state = self.wait(state, patience, |state| state.taken.is_some())?;
        let all: Vec<Given> = state.given.iter().flatten().cloned().collect();
        if let Some(taken) = &mut state.taken {
            taken[rank] = true;
        }
        if state.taken.as_ref().is_some_and(|taken| taken.iter().all(|taken| *taken)) {
            state.taken = None;
            state.given.iter_mut().for_each(|given| *given = None);
            self.changed.notify_all();
        }
        drop(state);
        let typed = |given: Given| given.downcast::<T>().ok();
        let all: Option<Vec<Arc<T>>> = all.into_iter().map(typed).collect();
        all.ok_or_else(|| TrainError::Internal("ranks exchange different things".to_owned()))
    }
}

/// One rank's connection.
struct ThreadRank {
    board: Arc<Board>,
    rank: usize,
}

impl Debug for ThreadRank {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.ranks())
    }
}

impl Exchange for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.board.devices.len()
    }

    fn gather_bytes(&self, bytes: Vec<u8>, patience: Patience) -> Result<Vec<Arc<Vec<u8>>>, TrainError> {
        self.board.gather(self.rank, bytes, patience)
    }

    fn gather_values(&self, values: Vec<f32>) -> Result<Vec<Arc<Vec<f32>>>, TrainError> {
        self.board.gather(self.rank, values, Patience::Deadline)
    }

    /// Each rank adds up its share of the positions.
    fn sum(&self, values: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        let (rank, ranks, count) = (self.rank, self.ranks(), values.len());
        let all = self.gather_values(values)?;
        if let Some(other) = all.iter().find(|other| other.len() != count) {
            let found = other.len();
            return Err(TrainError::Internal(format!("ranks add up {found} and {count} numbers")));
        }
        let own = rank * count / ranks..(rank + 1) * count / ranks;
        let mut leaf = |rank: usize| Ok(all[rank][own.clone()].to_vec());
        let mut add = |mut first: Vec<f32>, second: Vec<f32>| {
            first.iter_mut().zip(second).for_each(|(sum, value)| *sum += value);
            Ok::<_, TrainError>(first)
        };
        let sums = sum_in_tree(0..ranks, u32::MAX, &mut leaf, &mut add)?;
        drop(all);
        let sums = self.gather_values(sums)?;
        Ok(sums.iter().flat_map(|sums| sums.iter().copied()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn board(ranks: usize, deadline: Duration) -> Arc<Board> {
        Board::new((0..ranks).map(|rank| format!("device-{rank}")).collect(), deadline)
    }

    /// What `f` returns on each rank.
    fn on_ranks<T: Send>(ranks: usize, f: impl Fn(&dyn Exchange) -> T + Sync) -> Vec<T> {
        let board = board(ranks, Duration::from_secs(60));
        thread::scope(|scope| {
            let f = &f;
            let board = &board;
            let start = |rank| scope.spawn(move || f(&*board.rank(rank)));
            let handles: Vec<_> = (0..ranks).map(start).collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        })
    }

    #[test]
    fn all_get_all_in_order() {
        let rounds = on_ranks(3, |rank| {
            let round = |number: u8| {
                let bytes = vec![number, rank.rank() as u8];
                rank.gather_bytes(bytes, Patience::Deadline).unwrap().iter().map(|given| given.to_vec()).collect()
            };
            (0..100).map(round).collect::<Vec<Vec<Vec<u8>>>>()
        });
        for rounds in rounds {
            for (number, round) in rounds.into_iter().enumerate() {
                assert_eq!(round, (0..3).map(|rank| vec![number as u8, rank]).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sums_are_those_of_the_tree() {
        // In another order, the small ones are lost beside the large one.
        let value = |rank: usize, at: usize| [1e8, 3.0, -1e8, 3.0][rank] * (at + 1) as f32;
        for sums in on_ranks(4, |rank| rank.sum((0..7).map(|at| value(rank.rank(), at)).collect()).unwrap()) {
            let expected = (0..7).map(|at| (value(0, at) + value(1, at)) + (value(2, at) + value(3, at)));
            assert_eq!(sums, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn failure_wakes_those_that_wait() {
        let board = board(3, Duration::from_secs(600));
        let started = Instant::now();
        thread::scope(|scope| {
            let waiting: Vec<_> = [0, 2]
                .map(|rank| {
                    let rank = board.rank(rank);
                    scope.spawn(move || rank.gather_bytes(Vec::new(), Patience::AsLongAsItTakes))
                })
                .into_iter()
                .collect();
            board.fail(1, Arc::new(TrainError::Usage("no data".to_owned())));
            board.fail(2, Arc::new(TrainError::Usage("follows".to_owned())));
            for waiting in waiting {
                let error = waiting.join().unwrap().unwrap_err();
                assert_eq!(error.to_string(), "rank 1 (device-1): no data");
            }
        });
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!(board.rank(1).sum(vec![1.0]).is_err(), "nothing is exchanged after a failure");
    }

    #[test]
    fn late_rank_is_named() {
        let board = board(2, Duration::from_millis(50));
        let error = board.rank(0).gather_values(vec![1.0]).unwrap_err().to_string();
        assert!(error.starts_with("rank 1 (device-1): "), "{error}");
        assert!(board.rank(1).gather_values(vec![1.0]).is_err());
    }
}
