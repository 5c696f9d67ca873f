//! A locked tower over many inputs: in chunks, several side by side, each on one thread. Attention and norms then use all
//! cores too, and a feature has the same bits whatever is computed beside it (`crates/model/tests/composition.rs`).

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::device::Compute;
use crate::error::TrainError;

/// Outputs `[inputs, width]`, flat, of `forward` over `chunks`, which follow one another from 0.
///
/// # Errors
/// The first of `forward`.
pub(crate) fn forward_chunks(
    chunks: &[Range<usize>],
    width: usize,
    compute: &Compute,
    forward: impl Fn(Range<usize>) -> Result<Vec<f32>, TrainError> + Sync,
) -> Result<Vec<f32>, TrainError> {
    let mut out = vec![0.0; chunks.last().map_or(0, |chunk| chunk.end) * width];
    let mut rest = out.as_mut_slice();
    let places = chunks.iter().map(|chunk| {
        let (place, after) = std::mem::take(&mut rest).split_at_mut(chunk.len() * width);
        rest = after;
        (chunk.clone(), place)
    });
    let places = Mutex::new(places.collect::<Vec<_>>().into_iter());
    let next = || places.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<(), TrainError> {
        while let Some((chunk, place)) = next() {
            place.copy_from_slice(&forward(chunk)?);
        }
        Ok(())
    };
    match compute.on_host {
        true => std::thread::scope(|scope| {
            let threads = compute.threads.min(chunks.len());
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| one_thread(work))).collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<Result<(), TrainError>>()
        })?,
        false => work()?,
    }
    Ok(out)
}

/// Runs `work` so that the parallel loops inside it stay on one thread.
pub fn one_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}
