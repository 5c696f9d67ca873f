//! The processes that a launcher started together, as one run. In builds without the feature `mpi`, there is one.

use std::error::Error;

use crate::error::{ErrorKind, TrainError};
use crate::ranks::launcher::refuse_several;
#[cfg(not(feature = "mpi"))]
use crate::ranks::launcher::refuse_to_train;
#[cfg(feature = "mpi")]
use crate::ranks::processes::{message::with_causes, world::World};

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

    /// Refuses a command that is not shared, if a launcher started several processes: each would do the whole, and
    /// write the same files.
    ///
    /// # Errors
    /// [`TrainError::Usage`]; in other processes than the first some seconds later, as a launcher ends them meanwhile.
    pub fn refuse_several() -> Result<(), TrainError> {
        refuse_several()
    }

    /// Whether this is the process that writes and reports.
    pub fn is_first(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.as_ref().is_none_or(|world| world.rank == 0);
        #[cfg(not(feature = "mpi"))]
        true
    }

    /// Whether there are other processes.
    pub fn are_several(&self) -> bool {
        #[cfg(feature = "mpi")]
        return self.world.is_some();
        #[cfg(not(feature = "mpi"))]
        false
    }

    /// Ends the run of all processes: this one failed before it could train.
    pub fn fail(&self, kind: ErrorKind, error: &(dyn Error + 'static)) {
        #[cfg(feature = "mpi")]
        if let Some(world) = &self.world {
            world.fail(&TrainError::OfProcess { kind, message: with_causes(error), skipped: Vec::new() });
        }
        #[cfg(not(feature = "mpi"))]
        let _ = (kind, error);
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
