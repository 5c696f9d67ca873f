//! All processes of the run, as one of them sees them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mpi::environment::processor_name;
use mpi::topology::Communicator;
use mpi::{Threading, initialize_with_threading};

use crate::error::TrainError;
use crate::ranks::launcher::Launcher;
use crate::ranks::processes::communication::{Communication, Order, SILENCE};
use crate::ranks::processes::message::Failure;
use crate::ranks::processes::places::Places;

/// How long the last call of MPI, which waits for the others to make it too, may take.
const LAST_CALL: Duration = Duration::from_secs(20);

/// The world that this process has joined. MPI can be initialized once.
static JOINED: Mutex<Option<Arc<World>>> = Mutex::new(None);

/// All processes of the run.
#[derive(Debug)]
pub(crate) struct World {
    /// The number of this process.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// The name of this machine.
    pub host: String,
    places: Arc<Places>,
    orders: Sender<Order>,
    looks: Arc<AtomicU64>,
    warnings: Mutex<Option<Receiver<String>>>,
}

impl World {
    /// Joins the processes that were started together with this one; `None`: it is alone.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when MPI does not know of them.
    pub fn join() -> Result<Option<Arc<Self>>, TrainError> {
        let mut joined = joined();
        if let Some(world) = &*joined {
            return Ok((world.ranks > 1).then(|| Arc::clone(world)));
        }
        let Some(launcher) = Launcher::find() else { return Ok(None) };
        let (orders, of_world) = channel();
        let (warn, warnings) = channel();
        let looks = Arc::new(AtomicU64::new(0));
        let (started, start) = channel();
        let of_thread = Arc::clone(&looks);
        thread::spawn(move || {
            // The thread that initializes MPI is the one that calls it.
            let Some((universe, _)) = initialize_with_threading(Threading::Funneled) else { return };
            let world = universe.world();
            // A name that is no text has no use in a message.
            let host = processor_name().unwrap_or_else(|_| "?".to_owned());
            let (rank, ranks) = (world.rank() as usize, world.size() as usize);
            let places = Arc::new(Places::new(ranks, rank, &host));
            if started.send((rank, ranks, host.clone(), Arc::clone(&places))).is_ok() {
                Communication::new(universe, of_world, warn, of_thread, (host, places)).run();
            }
        });
        let (rank, ranks, host, places) =
            start.recv().map_err(|_| TrainError::Usage("MPI cannot be started twice in one process".to_owned()))?;
        if launcher.processes.is_some_and(|expected| expected != ranks) {
            return Err(launcher.refusal(&format!(
                "and the MPI of this build knows of {ranks}: start them with the launcher of the MPI that dualenc was \
                 built with"
            )));
        }
        let world = Arc::new(Self { rank, ranks, host, places, orders, looks, warnings: Mutex::new(Some(warnings)) });
        *joined = Some(Arc::clone(&world));
        Ok((ranks > 1).then_some(world))
    }

    /// At the end of the program: the first rank `report`s how it ends and then tells the others, which report only if
    /// it does not. Returns when MPI is not called any more.
    pub fn leave(report: impl FnOnce()) {
        let Some(world) = joined().take() else { return report() };
        let ((heard, is_heard), (done, is_done)) = (channel(), channel());
        let leave = || world.orders.send(Order::Leave { heard, done }).is_ok();
        let is_reported = if world.rank == 0 {
            report();
            leave() && world.wait_for(&is_heard).unwrap_or(false)
        } else {
            let is_reported = leave() && world.wait_for(&is_heard).unwrap_or(false);
            if !is_reported {
                report();
            }
            is_reported
        };
        if is_reported {
            // One that takes longer has lost another process, and the launcher ends it.
            let _ = is_done.recv_timeout(LAST_CALL);
        }
    }

    /// Ends the run of all ranks: this one ends with `error`.
    pub fn fail(&self, error: &TrainError) {
        // It has ended if nobody is there to hear.
        let _ = self.orders.send(Order::Fail(Failure::of(self.rank, &self.host, error)));
    }

    /// Gives a warning to the observer of the first rank.
    pub fn warn(&self, warning: &str) {
        let _ = self.orders.send(Order::Warn(format!("rank {} ({}): {warning}", self.rank, self.place(self.rank))));
    }

    /// The warnings of other ranks, for the first. They can be taken once.
    pub fn take_warnings(&self) -> Option<Receiver<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Machine and device of a rank.
    pub fn place(&self, rank: usize) -> String {
        self.places.of(rank).unwrap_or_else(|| "another process".to_owned())
    }

    /// Sets the machines and devices of all ranks.
    pub fn set_places(&self, places: Vec<String>) {
        self.places.set(places);
    }

    /// Asks the thread that communicates.
    pub(super) fn order(&self, order: Order) -> Result<(), TrainError> {
        self.orders.send(order).map_err(|_| gone())
    }

    /// Waits for an answer of the thread that communicates, unless it hangs inside of MPI.
    pub(super) fn wait_for<T>(&self, answer: &Receiver<T>) -> Result<T, TrainError> {
        const SLICE: Duration = Duration::from_secs(1);
        let looks = || self.looks.load(Ordering::Relaxed);
        let (mut last, mut silent) = (looks(), Duration::ZERO);
        loop {
            match answer.recv_timeout(SLICE) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if looks() != last => (last, silent) = (looks(), Duration::ZERO),
                Err(RecvTimeoutError::Timeout) => silent += SLICE,
            }
            if silent > SILENCE {
                let source = Arc::new(TrainError::RankIsSilent { seconds: SILENCE.as_secs() });
                return Err(TrainError::OfRank { rank: self.rank, device: self.place(self.rank), source });
            }
        }
    }

    /// `failure` as the error of this rank.
    pub(super) fn error_of(&self, failure: Failure) -> TrainError {
        let rank = failure.rank;
        // Before the ranks have compared, only the rank itself says where it is.
        let known = self.places.of(rank).or_else(|| failure.host.clone());
        let device = known.unwrap_or_else(|| self.place(rank));
        TrainError::OfRank { rank, device, source: Arc::new(failure.into_error()) }
    }
}

fn joined() -> MutexGuard<'static, Option<Arc<World>>> {
    JOINED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone() -> TrainError {
    TrainError::Internal("the thread that communicates has ended".to_owned())
}
