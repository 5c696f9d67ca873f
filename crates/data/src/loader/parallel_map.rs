//! A function over a stream of jobs on several threads, with the results in the order of the jobs.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::DataError;

/// Maps `jobs` through `f` on `workers` threads (at least one) and gives the results in job order.
///
/// At most `queue_len` (at least one) jobs are begun ahead of the consumer. A panic in `f` or in `jobs` becomes an
/// `Err` in its place that carries the job's number; later jobs go on. Dropping the iterator takes no further job and
/// waits for those in progress.
pub fn ordered_map<J, R, F>(
    jobs: impl Iterator<Item = J> + Send + 'static,
    workers: usize,
    queue_len: usize,
    f: F,
) -> OrderedMap<R>
where
    J: Send + 'static,
    R: Send + 'static,
    F: Fn(J) -> R + Send + Clone + 'static,
{
    let shared = Arc::new(Shared {
        state: Mutex::new(State { begun: 0, taken: 0, ready: VecDeque::new(), exhausted: false, stopped: false }),
        changed: Condvar::new(),
        room: Condvar::new(),
        queue_len: queue_len.max(1),
    });
    let jobs = Arc::new(Mutex::new(jobs));
    let workers = (0..workers.max(1))
        .map(|_| {
            let (shared, jobs, f) = (Arc::clone(&shared), Arc::clone(&jobs), f.clone());
            std::thread::spawn(move || {
                while let Some((number, job)) = shared.begin(&jobs) {
                    let result = match job {
                        Ok(job) => catch_unwind(AssertUnwindSafe(|| f(job))),
                        Err(panic) => Err(panic),
                    };
                    shared.finish(number, result.map_err(|panic| worker_error(number, panic.as_ref())));
                }
            })
        })
        .collect();
    OrderedMap { shared, workers }
}

/// Results of [`ordered_map`], in job order.
#[derive(Debug)]
pub struct OrderedMap<R> {
    shared: Arc<Shared<R>>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<R> {
    state: Mutex<State<R>>,
    /// A result arrived or the jobs ended.
    changed: Condvar,
    /// The consumer took a result, or stopped.
    room: Condvar,
    queue_len: usize,
}

#[derive(Debug)]
struct State<R> {
    begun: u64,
    taken: u64,
    /// Slot `i` is for job `taken + i`.
    ready: VecDeque<Option<Result<R, DataError>>>,
    exhausted: bool,
    stopped: bool,
}

type Panic = Box<dyn Any + Send>;

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        // No user code runs under this lock, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job and its number, once there is room; a panic of the job iterator stands for the job and ends it.
    fn begin<J>(&self, jobs: &Mutex<impl Iterator<Item = J>>) -> Option<(u64, Result<J, Panic>)> {
        // Taking a job and its number under one lock keeps numbers in the order of the iterator.
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.lock();
        while !state.stopped && !state.exhausted && state.begun - state.taken >= self.queue_len as u64 {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stopped || state.exhausted {
            return None;
        }
        drop(state);
        let job = catch_unwind(AssertUnwindSafe(|| jobs.next()));
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
        state.begun += 1;
        state.ready.push_back(None);
        Some((state.begun - 1, job))
    }

    fn finish(&self, number: u64, result: Result<R, DataError>) {
        let mut state = self.lock();
        // Jobs are taken out of `ready` in order and only once finished, so this one's slot is still there.
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
        for worker in self.workers.drain(..) {
            // Workers catch the panics of jobs; there is nothing else to report.
            let _ = worker.join();
        }
    }
}

fn worker_error(number: u64, panic: &(dyn Any + Send)) -> DataError {
    DataError::Worker { job: format!("job {number}"), message: panic_message(panic) }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::loader::epoch_order::mix;

    #[test]
    fn results_come_in_job_order() {
        for workers in [1, 2, 7] {
            let results: Vec<u64> = ordered_map(0..200u64, workers, 5, |job| {
                std::thread::sleep(Duration::from_micros(mix(1, &[job]) % 300));
                job * 3
            })
            .map(Result::unwrap)
            .collect();
            assert_eq!(results, (0..200).map(|job| job * 3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_than_the_queue_is_begun_ahead() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let mut results = ordered_map(0.., 4, 6, move |job: usize| {
            counter.fetch_add(1, Ordering::SeqCst);
            job
        });
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(begun.load(Ordering::SeqCst), 6);
        assert_eq!(results.next().unwrap().unwrap(), 0);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(begun.load(Ordering::SeqCst), 7);
    }

    #[test]
    fn a_panic_stands_in_its_place_and_the_rest_goes_on() {
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
                    assert_eq!(error.to_string(), "a loader thread failed on job 7: seven is bad");
                }
            }
        }
    }

    #[test]
    fn a_panicking_job_iterator_ends_with_its_error() {
        let jobs = (0..).inspect(|&job| assert!(job < 3, "no more"));
        let results: Vec<_> = ordered_map(jobs, 2, 4, |job: usize| job).collect();
        assert_eq!(results.len(), 4);
        assert!(results[3].as_ref().unwrap_err().to_string().contains("no more"));
    }

    #[test]
    fn drop_is_prompt_and_leaves_no_thread() {
        let running = Arc::new(());
        let held = Arc::clone(&running);
        let mut results = ordered_map(0.., 4, 64, move |job: usize| {
            let _held = &held;
            std::thread::sleep(Duration::from_millis(5));
            job
        });
        assert!(results.next().is_some());
        let start = Instant::now();
        drop(results);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        assert_eq!(Arc::strong_count(&running), 1, "a worker is still there");
    }
}
