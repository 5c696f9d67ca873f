//! The device and the threads of each process.

use crate::config::Devices;
use crate::error::TrainError;

/// Where a process runs among those of the same machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    /// Its number there, from 0.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// How many of them share its cores.
    pub on_its_cores: usize,
}

impl Local {
    /// The place of process `rank`, of which `machines` has the name and the cores, as of all others.
    pub fn of(rank: usize, machines: &[(String, String)]) -> Option<Self> {
        let own = machines.get(rank)?;
        let of_machine = |found: &&(String, String)| found.0 == own.0;
        Some(Self {
            rank: machines[..rank].iter().filter(of_machine).count(),
            ranks: machines.iter().filter(of_machine).count(),
            on_its_cores: machines.iter().filter(|found| *found == own).count(),
        })
    }

    /// The device of this process: its entry of a list, or the GPU of its number. `visible`: how many GPUs the launcher
    /// lets it see, if it says so.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the list does not fit the number of processes, or they would share a GPU.
    pub fn device(self, devices: &Devices, visible: Option<usize>) -> Result<String, TrainError> {
        let Self { rank, ranks, .. } = self;
        match devices.all() {
            [device] if device == "cuda" && visible == Some(1) => Ok(device.clone()),
            [device] if device == "cuda" && ranks > 1 => Ok(format!("cuda:{rank}")),
            [device] if device.starts_with("cuda:") && ranks > 1 && visible != Some(1) => {
                Err(TrainError::Usage(format!(
                    "`run.device` is `{device}` for the {ranks} processes of this machine: two copies of the model on \
                     one device take twice the memory and gain nothing; set `cuda`, of which each process takes the \
                     one of its number, or list {ranks} devices"
                )))
            }
            [device] => Ok(device.clone()),
            list if list.len() == ranks => Ok(list[rank].clone()),
            list => Err(TrainError::Usage(format!(
                "`run.device` lists {} devices, and {} started on this machine: each process \
                 takes one, so start as many, or list as many",
                list.len(),
                if ranks == 1 { "1 process was".to_owned() } else { format!("{ranks} processes were") }
            ))),
        }
    }
}

/// The cores that this process may run on, as the kernel writes them; empty where it does not say.
pub(super) fn own_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.map_or_else(String::new, |cores| cores.trim().to_owned())
}

/// How many GPUs the launcher lets this process see.
pub(super) fn visible_gpus() -> Option<usize> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok()?;
    Some(visible.split(',').filter(|device| !device.trim().is_empty()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(names: &[&str]) -> Devices {
        serde_json::from_value(serde_json::json!(names)).unwrap()
    }

    fn local(rank: usize, ranks: usize) -> Local {
        Local { rank, ranks, on_its_cores: 1 }
    }

    #[test]
    fn processes_are_counted_by_machine_and_cores() {
        let machine = |name: &str, cores: &str| (name.to_owned(), cores.to_owned());
        let machines = [machine("a", "0-3"), machine("b", "0"), machine("a", "0-3"), machine("b", "1")];
        assert_eq!(Local::of(0, &machines), Some(Local { rank: 0, ranks: 2, on_its_cores: 2 }));
        assert_eq!(Local::of(2, &machines), Some(Local { rank: 1, ranks: 2, on_its_cores: 2 }));
        assert_eq!(Local::of(3, &machines), Some(Local { rank: 1, ranks: 2, on_its_cores: 1 }));
        assert_eq!(Local::of(4, &machines), None);
    }

    #[test]
    fn each_process_has_its_device() {
        let device = |rank, ranks, names: &[&str], visible| local(rank, ranks).device(&devices(names), visible);
        assert_eq!(device(1, 2, &["cpu"], None).unwrap(), "cpu");
        assert_eq!(device(1, 2, &["cuda"], None).unwrap(), "cuda:1");
        assert_eq!(device(0, 1, &["cuda"], None).unwrap(), "cuda");
        assert_eq!(device(0, 1, &["cuda:3"], None).unwrap(), "cuda:3");
        // srun --gpus-per-task=1 shows each process its own GPU as the first.
        assert_eq!(device(1, 2, &["cuda"], Some(1)).unwrap(), "cuda");
        assert_eq!(device(1, 2, &["cuda"], Some(4)).unwrap(), "cuda:1");
        assert_eq!(device(1, 2, &["cuda:4", "cuda:6"], None).unwrap(), "cuda:6");
        let text = device(0, 2, &["cuda:1"], None).unwrap_err().to_string();
        assert!(text.contains("`run.device` is `cuda:1` for the 2 processes of this machine"), "{text}");
        let text = device(0, 1, &["cuda:0", "cuda:1"], None).unwrap_err().to_string();
        assert!(text.contains("lists 2 devices, and 1 process was started on this machine"), "{text}");
    }
}
