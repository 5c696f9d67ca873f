//! A function over many files on a few threads.

/// Threads that read metadata or index files: they wait for the file system, not for a core.
const IO_THREADS: usize = 8;

/// Applies `f` to the numbers below `len` on a few threads, and returns the results in order. Up to `worth_a_thread`
/// are done on the calling thread.
///
/// # Errors
/// The error of the lowest number for which `f` fails.
pub(crate) fn try_map_numbers<R: Send, E: Send>(
    len: usize,
    worth_a_thread: usize,
    f: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if len <= worth_a_thread {
        return (0..len).map(f).collect();
    }
    let (f, share) = (&f, len.div_ceil(IO_THREADS));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..len)
            .step_by(share)
            .map(|start| scope.spawn(move || (start..len.min(start + share)).map(f).collect::<Result<Vec<R>, E>>()))
            .collect();
        let mut all = Vec::with_capacity(len);
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

/// Applies `f` to each item on a few threads, and returns the results in order. Up to `worth_a_thread` items are done
/// on the calling thread.
pub(crate) fn map_files<T: Sync, R: Send>(items: &[T], worth_a_thread: usize, f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() <= worth_a_thread {
        return items.iter().map(f).collect();
    }
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(items.len().div_ceil(IO_THREADS))
            .map(|chunk| scope.spawn(move || chunk.iter().map(f).collect::<Vec<R>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
