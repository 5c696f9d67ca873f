//! How long processes exchange, for `examples/exchange_time.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::launched::Processes;
use crate::ranks::processes::process_rank::ProcessRank;

/// Rounds, of which the shortest counts.
const ROUNDS: usize = 3;

/// How many processes there are, and how long they take to gather `values` of each, and to add up as many: the mean of
/// `calls` in a row, as a process that came late to one finds the others' values there. `None`: this process is alone.
///
/// # Errors
/// [`TrainError::OfRank`] when another process has failed.
pub fn time_exchanges(
    processes: &Processes,
    values: usize,
    calls: u32,
) -> Result<Option<(usize, [Duration; 2])>, TrainError> {
    let Some(world) = &processes.world else { return Ok(None) };
    let ranks = ProcessRank(Arc::clone(world));
    let own = vec![1.0_f32; values];
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (call, best) in best.iter_mut().enumerate() {
            // All begin at once.
            ranks.gather_bytes(Vec::new(), Patience::Deadline)?;
            let mut time = Duration::ZERO;
            for _ in 0..calls {
                let own = own.clone();
                let started = Instant::now();
                match call {
                    0 => drop(ranks.gather_values(own)?),
                    _ => drop(ranks.sum(own)?),
                }
                time += started.elapsed();
            }
            *best = (time / calls).min(*best);
        }
    }
    Ok(Some((ranks.ranks(), best)))
}
