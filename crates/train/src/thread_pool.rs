//! The CPU thread pool of the process. Its first use makes it.

use std::num::NonZero;
use std::thread::available_parallelism;

use rayon::ThreadPoolBuilder;

use crate::error::TrainError;

/// Makes this thread one of the CPU thread pool, in a pool of `threads` threads (default: one per core).
///
/// What this thread divides then starts on it, without waking another thread to hand it over: a training step, which
/// divides its work some hundred times, takes less time. A program calls this once, on the thread that trains, before
/// it opens a device. While this thread waits for a file or a lock, the pool has one thread less, so it is not for
/// threads that wait for others that compute.
///
/// The pool stays as it is if it exists already, would have no other thread, or `RAYON_NUM_THREADS` sizes it.
pub fn join_thread_pool(threads: Option<usize>) {
    let threads = threads.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get));
    // Other threads hand their work to the pool and wait for it: with this thread alone, perhaps for ever.
    if threads > 1 && std::env::var_os("RAYON_NUM_THREADS").is_none() {
        // Fails if the pool exists.
        let _ = ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global();
    }
}

/// Makes a CPU thread pool of `threads` threads. Returns how many the pool has.
///
/// # Errors
/// [`TrainError::Usage`] when the pool exists already with another number of threads.
pub(crate) fn size_thread_pool(threads: Option<usize>) -> Result<usize, TrainError> {
    let Some(threads) = threads else { return Ok(rayon::current_num_threads()) };
    // Fails if the pool exists already, which is right if it has this size, or if the system refuses threads.
    let built = ThreadPoolBuilder::new().num_threads(threads).build_global();
    let found = rayon::current_num_threads();
    if found != threads {
        let why = built.err().map_or_else(|| "the pool has another size".to_owned(), |error| error.to_string());
        return Err(TrainError::Usage(format!(
            "`run.threads` is {threads}, but this process computes with {found} threads ({why}); set `run.threads` to \
             {found} or remove it, or start another process"
        )));
    }
    Ok(found)
}
