//! What all requests share.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::{Engine, Served};
use crate::events::OnEvent;
use crate::options::Options;
use crate::problem::Problem;
use crate::worker::Worker;

/// Pictures that are made at a time, beside the work of the model.
const PICTURES_AT_A_TIME: usize = 2;

/// What all requests share.
pub(crate) struct App {
    pub engine: Arc<dyn Engine>,
    pub served: Served,
    pub options: Options,
    pub worker: Worker,
    /// Requests for the model that may be admitted.
    pub admission: Arc<Semaphore>,
    /// Pictures that may be made now; others wait.
    pub pictures: Arc<Semaphore>,
    pub on_event: Arc<OnEvent>,
    /// Names this server among those that had its address before, with other indexes.
    pub id: u64,
    /// Whether only this machine can connect, so that a request for another host was lured here.
    pub is_loopback: bool,
}

/// Shared by the tasks of a server.
pub(crate) type Shared = Arc<App>;

impl App {
    pub fn new(
        engine: Arc<dyn Engine>,
        options: Options,
        worker: Worker,
        on_event: Arc<OnEvent>,
        is_loopback: bool,
    ) -> Self {
        let admission = Arc::new(Semaphore::new(options.max_concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        let pictures = Arc::new(Semaphore::new(PICTURES_AT_A_TIME));
        let served = engine.served();
        // The standard library has no other source of randomness.
        let id = RandomState::new().build_hasher().finish();
        Self { engine, served, options, worker, admission, pictures, on_event, id, is_loopback }
    }

    /// Admits a request for the model.
    ///
    /// # Errors
    /// The server is busy.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.admission).try_acquire_owned().map_err(|_| Problem::busy())
    }
}
