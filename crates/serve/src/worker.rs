//! The thread on which the engine computes: models block, and use all cores by themselves.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::engine::EngineError;
use crate::problem::Problem;

type Job = Box<dyn FnOnce() + Send>;

/// A job that waits to be begun. Its request takes it back when it ends, and with it what the job holds: its permit and
/// its images.
type Waiting = Arc<Mutex<Option<Job>>>;

/// Runs one job after the other. The jobs that wait are bounded by their permits.
pub(crate) struct Worker {
    jobs: Sender<Waiting>,
}

/// Takes a job back when the request that waits for it is given up.
struct TakenBack(Waiting);

impl Drop for TakenBack {
    fn drop(&mut self) {
        drop(taken(&self.0));
    }
}

fn taken(waiting: &Waiting) -> Option<Job> {
    // Nothing panics while it is locked.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Worker {
    /// The worker, and its thread, which ends when the worker is dropped and all jobs are done.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start() -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = channel::<Waiting>();
        let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
            for waiting in queue {
                if let Some(job) = taken(&waiting) {
                    job();
                }
            }
        })?;
        Ok((Self { jobs }, thread))
    }

    /// Runs `work` on the thread; a job that nobody waits for any more is not begun. `permit` is given back when the
    /// work is done, however long the request waits for it, or when the request ends before the work is begun.
    pub async fn run<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = caught(work);
            drop(permit);
            // The request may have been given up.
            let _ = reply.send(done);
        });
        let gone = || Problem::failed("the thread of the model has ended");
        let waiting = TakenBack(Arc::new(Mutex::new(Some(job))));
        self.jobs.send(Arc::clone(&waiting.0)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The result of `work`; a panic is an error.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, Problem> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(Problem::from),
        Err(panic) => Err(panicked(panic.as_ref())),
    }
}

/// The error for a panic.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Problem {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Problem::failed(format!("internal error: {}", text.unwrap_or("a panic without a message")))
}
