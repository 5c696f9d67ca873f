//! A function over a stream of jobs on several threads, with the results in job order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::DataError;
use crate::panics::{CaughtPanic, catch_quietly};

/// How long a dropped iterator or loader waits for its threads: longer than the pauses of a disk that is tried again.
/// A thread that waits for a stalled disk cannot be interrupted and is left behind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Maps `jobs` through `f` on `workers` threads (at least one) and returns the results in job order.
///
/// At most `queue_len` jobs (at least one) are started ahead of the consumer. A panic in `f` or in `jobs` becomes a
/// [`DataError::Worker`] in its place, with the number of the job; later jobs continue. Dropping the iterator starts no
/// further job and waits up to 10 seconds for those in progress.
pub fn ordered_map<J, R, F>(
    jobs: impl Iterator<Item = J> + Send + 'static,
    workers: usize,
    queue_len: usize,
    f: F,
) -> impl Iterator<Item = Result<R, DataError>> + Send
where
    J: Send + 'static,
    R: Send + 'static,
    F: Fn(J) -> R + Send + Clone + 'static,
{
    let shared = Arc::new(Shared {
        state: Mutex::new(State { started: 0, taken: 0, ready: VecDeque::new(), exhausted: false, stopped: false }),
        changed: Condvar::new(),
        room: Condvar::new(),
        queue_len: queue_len.max(1),
    });
    let jobs = Arc::new(Mutex::new(jobs));
    let (ending, ended) = channel::<()>();
    let workers = (0..workers.max(1))
        .map(|_| {
            let (shared, jobs, f, ending) = (Arc::clone(&shared), Arc::clone(&jobs), f.clone(), ending.clone());
            std::thread::spawn(move || {
                let _ending = ending;
                while let Some((number, job)) = shared.start(&jobs) {
                    let result = job.and_then(|job| catch_quietly(|| f(job)));
                    let error = |panic: CaughtPanic| {
                        let message = panic.to_string();
                        DataError::Worker { job: format!("job {number}"), message }
                    };
                    shared.finish(number, result.map_err(error));
                }
            })
        })
        .collect();
    OrderedMap { shared, workers, ended }
}

/// The results of [`ordered_map`], in job order.
struct OrderedMap<R> {
    shared: Arc<Shared<R>>,
    workers: Vec<JoinHandle<()>>,
    /// Is disconnected when all workers have ended.
    ended: Receiver<()>,
}

struct Shared<R> {
    state: Mutex<State<R>>,
    /// A result arrived or the jobs ended.
    changed: Condvar,
    /// The consumer took a result, or stopped.
    room: Condvar,
    queue_len: usize,
}

struct State<R> {
    started: u64,
    taken: u64,
    /// Slot `i` belongs to job `taken + i`.
    ready: VecDeque<Option<Result<R, DataError>>>,
    exhausted: bool,
    stopped: bool,
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // No user code runs under this lock, so a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, then takes the next job and its number. A panic of the job iterator takes the place of the job
    /// and ends the iterator.
    fn start<J>(&self, jobs: &Mutex<impl Iterator<Item = J>>) -> Option<(u64, Result<J, CaughtPanic>)> {
        // Taking a job and its number under one lock keeps numbers in the order of the iterator.
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        while !state.stopped && !state.exhausted && state.started - state.taken >= self.queue_len as u64 {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        drop(state);
        let job = catch_quietly(|| jobs.next());
        let mut state = self.lock();
        let job = match job {
            Ok(Some(job)) => Ok(job),
            Ok(None) => {
                state.exhausted = true;
                self.changed.notify_all();
                return None;
            }
            Err(panic) => {
                state.exhausted = true;
                Err(panic)
            }
        };
        state.started += 1;
        state.ready.push_back(None);
        Some((state.started - 1, job))
    }

    fn finish(&self, number: u64, result: Result<R, DataError>) {
        let mut state = self.lock();
        // Results leave `ready` in order and only once finished, so this slot still exists.
        let slot = (number - state.taken) as usize;
        if let Some(slot) = state.ready.get_mut(slot) {
            *slot = Some(result);
        }
        self.changed.notify_all();
    }
}

impl<R> Iterator for OrderedMap<R> {
    type Item = Result<R, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        loop {
            if let Some(slot) = state.ready.front_mut() {
                if let Some(result) = slot.take() {
                    state.ready.pop_front();
                    state.taken += 1;
                    self.shared.room.notify_all();
                    return Some(result);
                }
            } else if state.exhausted || state.stopped {
                return None;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<R> Drop for OrderedMap<R> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            return;
        }
        for worker in self.workers.drain(..) {
            // Workers catch the panics of jobs, so there is nothing to report.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_keep_job_order() {
        for workers in [2, 3, 7] {
            // A turn of jobs, one for each worker, ends in the reverse of its order.
            let ended = Arc::new((Mutex::new(0), Condvar::new()));
            let jobs = workers * 20;
            let results = ordered_map(0..jobs, workers, workers, move |job| {
                let (count, changed) = &*ended;
                let before = job / workers * workers + (workers - 1 - job % workers);
                let count = changed.wait_while(count.lock().unwrap(), |count| *count < before);
                *count.unwrap() += 1;
                changed.notify_all();
                job * 3
            });
            let results: Vec<usize> = results.map(Result::unwrap).collect();
            assert_eq!(results, (0..jobs).map(|job| job * 3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn queue_limits_started_jobs() {
        const QUEUE: usize = 6;
        // Counted before the consumer asks, so no job may start more than a queue ahead of the consumer.
        let (asked, started, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let counts = Arc::new((asked, started, most));
        let shared = Arc::clone(&counts);
        let mut results = ordered_map(0..2000, 4, QUEUE, move |job: usize| {
            let (asked, started, most) = &*shared;
            let ahead = (started.fetch_add(1, Ordering::SeqCst) + 1).saturating_sub(asked.load(Ordering::SeqCst));
            most.fetch_max(ahead, Ordering::SeqCst);
            job
        });
        loop {
            counts.0.fetch_add(1, Ordering::SeqCst);
            if results.next().is_none() {
                break;
            }
        }
        let most = counts.2.load(Ordering::SeqCst);
        assert!((1..=QUEUE).contains(&most), "{most} jobs ahead");
        assert_eq!(counts.1.load(Ordering::SeqCst), 2000);
    }

    #[test]
    fn panic_becomes_error_in_place() {
        let results: Vec<_> = ordered_map(0..20, 3, 4, |job| {
            assert!(job != 7, "seven is bad");
            job
        })
        .collect();
        assert_eq!(results.len(), 20);
        for (job, result) in results.iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(*value, job),
                Err(error) => {
                    assert_eq!(job, 7);
                    let message = error.to_string();
                    assert!(message.starts_with("a loader thread failed on job 7: seven is bad (at "), "{message}");
                }
            }
        }
    }

    #[test]
    fn panicking_iterator_ends_with_error() {
        let jobs = (0..).inspect(|&job| assert!(job < 3, "no more"));
        let results: Vec<_> = ordered_map(jobs, 2, 4, |job: usize| job).collect();
        assert_eq!(results.len(), 4);
        assert!(results[3].as_ref().unwrap_err().to_string().contains("no more"));
    }

    #[test]
    fn drop_stops_workers() {
        let running = Arc::new(());
        let held = Arc::clone(&running);
        // The jobs never end, so a drop that did not stop them would hang.
        let mut results = ordered_map(0.., 4, 64, move |job: usize| {
            let _held = &held;
            job
        });
        assert!(results.next().is_some());
        drop(results);
        assert_eq!(Arc::strong_count(&running), 1, "a worker is still running");
    }
}
