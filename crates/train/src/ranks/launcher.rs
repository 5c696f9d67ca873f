//! What the environment says of the processes that a launcher started together.

use std::num::NonZeroUsize;

use crate::error::TrainError;

/// Where launchers say how many processes they started: mpirun of Open MPI, mpiexec of MPICH and of Intel MPI, MVAPICH,
/// and srun. Inside of a Slurm job, mpirun starts its daemons by srun, so the variable of srun comes last.
const COUNTS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"];

/// The number of the process, in PMIx, which has no variable for how many there are.
const RANK: &str = "PMIX_RANK";

/// A launcher that may have started several processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launcher {
    /// The variable that tells.
    pub variable: &'static str,
    /// How many processes it says there are; `None`: it does not say.
    pub processes: Option<usize>,
}

impl Launcher {
    /// The launcher of this process; `None`: it runs alone.
    pub fn find() -> Option<Self> {
        Self::find_in(|variable| std::env::var(variable).ok())
    }

    fn find_in(value: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let count = |variable: &&str| value(variable)?.parse::<NonZeroUsize>().ok().map(NonZeroUsize::get);
        if let Some(variable) = COUNTS.iter().find(|variable| count(variable).is_some()) {
            let processes = count(variable)?;
            return (processes > 1).then_some(Self { variable, processes: Some(processes) });
        }
        value(RANK).map(|_| Self { variable: RANK, processes: None })
    }

    /// What a command that is not shared between processes says.
    fn refusal(self, why: &str) -> TrainError {
        let Self { variable, processes } = self;
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
    if launcher.processes.is_none() && std::env::var(RANK).is_ok_and(|rank| rank == "0") {
        return Ok(());
    }
    Err(launcher.refusal(&format!(
        "and this build cannot share a run between processes: each would train alone. Use a build with `--features \
         mpi`, or one process with several devices (`run.device`); to train each alone, unset `{}`",
        launcher.variable
    )))
}

/// Refuses a command that several processes would each do alone.
///
/// # Errors
/// [`TrainError::Usage`].
pub(crate) fn refuse_several(command: &str) -> Result<(), TrainError> {
    match Launcher::find().filter(|launcher| launcher.processes.is_some()) {
        Some(launcher) => Err(launcher.refusal(&format!(
            "and `{command}` runs in one: start it without the launcher, or unset `{}`",
            launcher.variable
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<(&'static str, Option<usize>)> {
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Launcher::find_in(value).map(|launcher| (launcher.variable, launcher.processes))
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
