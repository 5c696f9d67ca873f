//! What the environment says of the processes that a launcher started together.

use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use crate::error::TrainError;

/// Where launchers say how many processes they started, and the number of each: mpirun of Open MPI, mpiexec of MPICH
/// and of Intel MPI, MVAPICH, and srun. Inside of a Slurm job, mpirun starts its daemons by srun, so the variables of
/// srun come last.
const VARIABLES: [(&str, &str); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
];

/// The number of the process, in PMIx, which has no variable for how many there are.
const RANK: &str = "PMIX_RANK";

/// How long a process that is not the first waits before it refuses. The first refuses at once, and mpirun then ends
/// the others: so one says why. Where nobody ends them, as with srun, each says it, since none may fail without a word.
const FIRST_SPEAKS: Duration = Duration::from_secs(3);

/// A launcher that may have started several processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launcher {
    /// The variable that tells.
    pub variable: &'static str,
    /// How many processes it says there are; `None`: it does not say.
    pub processes: Option<usize>,
    /// The number of this process, from 0, if it says so.
    rank: Option<usize>,
}

impl Launcher {
    /// The launcher of this process; `None`: it runs alone.
    pub fn find() -> Option<Self> {
        Self::find_in(|variable| std::env::var(variable).ok())
    }

    fn find_in(value: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let count = |variable: &str| value(variable)?.parse::<NonZeroUsize>().ok().map(NonZeroUsize::get);
        let number = |variable: &str| value(variable)?.parse().ok();
        let found = VARIABLES.iter().find_map(|(variable, rank)| Some((*variable, count(variable)?, number(rank))));
        if let Some((variable, processes, rank)) = found {
            return (processes > 1).then_some(Self { variable, processes: Some(processes), rank });
        }
        value(RANK).map(|_| Self { variable: RANK, processes: None, rank: number(RANK) })
    }

    /// What processes say that do not go on: the first of them at once.
    pub fn refusal(self, why: &str) -> TrainError {
        let Self { variable, processes, rank } = self;
        if rank.is_some_and(|rank| rank > 0) {
            thread::sleep(FIRST_SPEAKS);
        }
        let started = match processes {
            Some(processes) => format!("{processes} processes were started together"),
            None => "several processes were started together".to_owned(),
        };
        TrainError::Usage(format!("{started} (`{variable}` is set), {why}"))
    }
}

/// Refuses to train in this build if there are other processes, as each would train alone.
///
/// # Errors
/// [`TrainError::Usage`].
#[cfg(not(feature = "mpi"))]
pub(crate) fn refuse_to_train() -> Result<(), TrainError> {
    let Some(launcher) = Launcher::find() else { return Ok(()) };
    // One process can be started by PMIx too.
    if launcher.processes.is_none() && launcher.rank == Some(0) {
        return Ok(());
    }
    Err(launcher.refusal(&format!(
        "and this build cannot share a run between processes: each would train alone. Use a build with `--features \
         mpi`, or one process with several devices (`run.device`); to train each alone, unset `{}`",
        launcher.variable
    )))
}

/// Refuses what several processes would each do alone, and write to the same files.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn refuse_several() -> Result<(), TrainError> {
    match Launcher::find().filter(|launcher| launcher.processes.is_some()) {
        Some(launcher) => Err(launcher.refusal(&format!(
            "and of all commands only `train` shares its work between them: start this one without the launcher; to \
             run it in each process alone, with files of its own, unset `{}`",
            launcher.variable
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher(variables: &[(&str, &str)]) -> Option<Launcher> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Launcher::find_in(value)
    }

    fn found(variables: &[(&str, &str)]) -> Option<(&'static str, Option<usize>)> {
        launcher(variables).map(|launcher| (launcher.variable, launcher.processes))
    }

    #[test]
    fn process_knows_its_number() {
        let rank = |variables: &[(&str, &str)]| launcher(variables).unwrap().rank;
        assert_eq!(rank(&[("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", "1")]), Some(1));
        assert_eq!(rank(&[("SLURM_STEP_NUM_TASKS", "3"), ("SLURM_PROCID", "0")]), Some(0));
        // The number of another launcher counts nothing.
        assert_eq!(rank(&[("PMI_SIZE", "2"), ("SLURM_PROCID", "1")]), None);
        assert_eq!(rank(&[("PMIX_RANK", "3")]), Some(3));
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("OMPI_COMM_WORLD_SIZE", "2")]), Some(("OMPI_COMM_WORLD_SIZE", Some(2))));
        assert_eq!(found(&[("PMI_SIZE", "16")]), Some(("PMI_SIZE", Some(16))));
        assert_eq!(found(&[("SLURM_STEP_NUM_TASKS", "3")]), Some(("SLURM_STEP_NUM_TASKS", Some(3))));
        assert_eq!(found(&[("PMIX_RANK", "0")]), Some(("PMIX_RANK", None)));
    }

    #[test]
    fn one_process_is_alone() {
        assert_eq!(found(&[("OMPI_COMM_WORLD_SIZE", "1"), ("PMIX_RANK", "0")]), None);
        // mpirun -n 1 inside of a job step with a task on each of 4 machines.
        assert_eq!(found(&[("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_STEP_NUM_TASKS", "4")]), None);
        // A job of 8 tasks, of which none is started yet.
        assert_eq!(found(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]), None);
        assert_eq!(found(&[("PMI_SIZE", ""), ("OMPI_COMM_WORLD_SIZE", "many")]), None);
    }
}
