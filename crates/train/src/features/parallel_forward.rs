//! Runs a locked tower over many inputs: in chunks, several at a time, each on one thread. All cores are then busy
//! during attention and norms too, and a feature has the same bits whatever else is computed with it
//! (`crates/model/tests/composition.rs`).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::Compute;
use crate::error::TrainError;

/// Outputs of `forward` over `chunks`: shape `[inputs, width]`, flat. Chunks are consecutive ranges that start at 0.
///
/// # Errors
/// The first error of `forward`.
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
            slot.copy_from_slice(&forward(chunk)?);
        }
        Ok(())
    };
    if compute.on_host {
        std::thread::scope(|scope| {
            let threads = compute.threads.min(chunks.len());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| on_single_thread(work))).collect();
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
/// alike.
pub fn on_single_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}
