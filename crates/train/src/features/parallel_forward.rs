//! Runs a locked tower over many inputs: in chunks, several at a time, each on one thread. All cores are then busy
//! during attention and norms too, and a feature has the same bits whatever else is computed with it
//! (`crates/model/tests/composition.rs`).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use dualenc_model::{DeviceFailure, ModelError};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::device::Compute;
use crate::error::TrainError;

/// Pools of one thread that no call of [`on_single_thread`] uses now. There are as many as calls ever ran at once.
static IDLE_POOLS: Mutex<Vec<ThreadPool>> = Mutex::new(Vec::new());

/// Outputs of `forward` over `chunks`: shape `[inputs, width]`, flat. Chunks are consecutive ranges that start at 0.
///
/// # Errors
/// The first error of `forward`; [`TrainError::Internal`] when its outputs do not have the shape `[chunk, width]`.
pub(crate) fn forward_chunks(
    chunks: &[Range<usize>],
    width: usize,
    compute: &Compute,
    forward: impl Fn(Range<usize>) -> Result<Vec<f32>, TrainError> + Sync,
) -> Result<Vec<f32>, TrainError> {
    let mut out = vec![0.0; chunks.last().map_or(0, |chunk| chunk.end) * width];
    let mut rest = out.as_mut_slice();
    let slots = chunks.iter().map(|chunk| {
        let (slot, after) = std::mem::take(&mut rest).split_at_mut(chunk.len() * width);
        rest = after;
        (chunk.clone(), slot)
    });
    let slots = Mutex::new(slots.collect::<Vec<_>>().into_iter());
    let next = || slots.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<(), TrainError> {
        while let Some((chunk, slot)) = next() {
            let inputs = chunk.len();
            let values = forward(chunk)?;
            if values.len() != slot.len() {
                let found = values.len();
                return Err(TrainError::Internal(format!("{found} values for {inputs} inputs of width {width}")));
            }
            slot.copy_from_slice(&values);
        }
        Ok(())
    };
    if compute.on_host {
        std::thread::scope(|scope| {
            let threads = compute.threads.min(chunks.len());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| on_single_thread(work)?)).collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Result<(), TrainError>>()
        })?;
    } else {
        work()?;
    }
    Ok(out)
}

/// Runs `work` in a pool of one thread, so that rayon's loops inside it are not split: their sums then always round
/// alike. Pools are used again, since a chunk is too little work to start a thread for.
///
/// # Errors
/// [`ModelError::Device`] when the system refuses another thread.
pub fn on_single_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, TrainError> {
    let idle = IDLE_POOLS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let pool = idle.map_or_else(|| ThreadPoolBuilder::new().num_threads(1).build(), Ok);
    let failed = |error| ModelError::Device(DeviceFailure::new(&format!("cannot start a thread: {error}")));
    let pool = pool.map_err(failed)?;
    let result = pool.install(work);
    IDLE_POOLS.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread::ThreadId;

    use super::*;

    fn thread_of_pool() -> ThreadId {
        on_single_thread(|| {
            assert_eq!(rayon::current_num_threads(), 1);
            std::thread::current().id()
        })
        .unwrap()
    }

    #[test]
    fn chunks_share_their_threads() {
        // Other tests borrow pools too, so a call may meet another thread, but not each call a new one.
        let threads: HashSet<ThreadId> = (0..200).map(|_| thread_of_pool()).collect();
        assert!(threads.len() < 100, "{} threads for 200 calls", threads.len());
        assert!(!threads.contains(&std::thread::current().id()));
    }

    #[test]
    fn outputs_stand_in_order_of_chunks() {
        let compute = Compute::select("cpu", None).unwrap();
        let chunks = [0..3, 3..4, 4..9];
        let forward = |chunk: Range<usize>| Ok(chunk.flat_map(|at| [at as f32, -1.0]).collect());
        let expected: Vec<f32> = (0..9).flat_map(|at| [at as f32, -1.0]).collect();
        for on_host in [true, false] {
            let compute = Compute { on_host, ..compute.clone() };
            assert_eq!(forward_chunks(&chunks, 2, &compute, forward).unwrap(), expected);
            assert!(forward_chunks(&[], 2, &compute, forward).unwrap().is_empty());
            let error = forward_chunks(&chunks, 3, &compute, forward).unwrap_err();
            assert!(matches!(error, TrainError::Internal(_)), "{error}");
        }
    }
}
