//! The processes that a launcher started together, as one run. In builds without the feature `mpi`, there is one.

use crate::error::{ErrorKind, TrainError};
#[cfg(not(feature = "mpi"))]
use crate::ranks::launcher::refuse_to_train;
#[cfg(feature = "mpi")]
use crate::ranks::processes::world::World;

/// This process and those that a launcher, such as `mpirun -n 4`, started together with it: each is a rank of one run.
///
/// The first of them writes and reports. [`train`](crate::train) joins them; a program joins them itself to know before
/// whether it is the first, and leaves them at its end.
#[derive(Debug, Clone)]
pub struct Processes {
    #[cfg(feature = "mpi")]
    pub(crate) world: Option<std::sync::Arc<World>>,
}

impl Processes {
    /// Joins the other processes, if there are any. Later calls return the same.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when a launcher started several, and this build lacks the feature `mpi`, or MPI does not
    /// know of them; [`TrainError::OfRank`] when one of them has failed.
    pub fn join() -> Result<Self, TrainError> {
        #[cfg(feature = "mpi")]
        return Ok(Self { world: World::join()? });
        #[cfg(not(feature = "mpi"))]
        refuse_to_train().map(|()| Self {})
    }

    /// Whether this is the process that writes and reports.
    pub fn is_first(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().is_none_or(|world| world.rank == 0);
        #[cfg(not(feature = "mpi"))]
        true
    }

    /// Ends the run of all processes: this one failed before it could train.
    pub fn fail(&self, kind: ErrorKind, message: &str) {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            world.fail(&TrainError::OfProcess { kind, message: message.to_owned() });
        }
        #[cfg(not(feature = "mpi"))]
        let _ = (kind, message);
    }

    /// Leaves the other processes. To be called once, at the end of the program; `report` says how it ends. The first
    /// process reports and then tells the others, which report only if it does not.
    pub fn leave(report: impl FnOnce()) {
        #[cfg(feature = "mpi")]
        World::leave(report);
        #[cfg(not(feature = "mpi"))]
        report();
    }
}
