//! A function over many files on a few threads.

/// Threads that read metadata or index files: they wait for the file system, not for a core.
const IO_THREADS: usize = 8;

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
