//! What processes compare before they train together: program, config and kind of device.

use std::path::Path;
use std::sync::Arc;

use dualenc_data::counted;
use serde::{Deserialize, Serialize};

use crate::config::{Change, ConfigError, RunConfig, changed_keys};
use crate::error::TrainError;
use crate::ranks::exchange::{Exchange, Patience};
use crate::ranks::gathered::of_all;
use crate::ranks::processes::placement::{Local, own_cores, visible_gpus};
use crate::ranks::processes::world::World;

/// Keys that belong to a machine.
const OF_MACHINE: [&str; 3] = ["run.device", "run.threads", "data.workers"];

/// Keys that a message names.
const MOST_NAMED: usize = 8;

/// The program of a process. Other versions may compare more, but this first.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Program {
    version: String,
    host: String,
    cores: String,
}

/// What a process was asked to do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    config: String,
    device: String,
    /// `--resume` and what belongs to it.
    start: String,
}

/// What processes agree on.
pub(super) struct Agreed {
    /// The device of this process.
    pub device: String,
    /// The processes and their machines, for people.
    pub note: String,
    /// What is probably not intended.
    pub warning: Option<String>,
}

/// Compares this process with the first one, and chooses its device and its threads.
///
/// # Errors
/// [`TrainError::Usage`] when they differ in what they must have alike; [`TrainError::OfRank`] when another process has
/// failed.
pub(super) fn agree(
    world: &World,
    ranks: &Arc<dyn Exchange>,
    config: &RunConfig,
    start: String,
) -> Result<Agreed, TrainError> {
    let (cores, version) = (own_cores(), env!("CARGO_PKG_VERSION").to_owned());
    let own = Program { version, host: world.host.clone(), cores };
    let programs = of_all(&**ranks, own, Patience::Deadline)?;
    world.set_places(programs.iter().map(|program| program.host.clone()).collect());
    refuse_other_program(&programs[0], &programs[world.rank])?;
    all_go_on(&**ranks)?;

    let machines: Vec<(String, String)> =
        programs.iter().map(|program| (program.host.clone(), program.cores.clone())).collect();
    let local = Local::of(world.rank, &machines)
        .ok_or_else(|| TrainError::Internal("a rank is missing among the machines".to_owned()))?;
    let device = local.device(&config.run.device, visible_gpus())?;
    let tasks = of_all(&**ranks, Task { config: config.to_toml()?, device, start }, Patience::Deadline)?;
    let place = |(program, task): (&Program, &Task)| format!("{}, {}", program.host, task.device);
    world.set_places(programs.iter().zip(&tasks).map(place).collect());
    let (first, own) = (&tasks[0], &tasks[world.rank]);
    refuse_other_task(first, own, config)?;
    all_go_on(&**ranks)?;
    if config.run.threads.is_none() {
        // Fails if the pool exists, which then keeps its size.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / local.on_its_cores).max(1);
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    let note = described(&machines.into_iter().map(|(host, _)| host).collect::<Vec<_>>());
    let shares = matches!(&*own.device, "wgpu" | "vulkan") && local.ranks > 1;
    let warning = shares.then(|| {
        format!(
            "the {} processes of this machine may share one GPU: `{}` is its default device",
            local.ranks, own.device
        )
    });
    Ok(Agreed { device: own.device.clone(), note, warning })
}

fn refuse_other_program(first: &Program, own: &Program) -> Result<(), TrainError> {
    if own.version == first.version {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "it is dualenc {}, and rank 0 ({}) is {}: install the same version on all machines",
        own.version, first.host, first.version
    )))
}

/// The machine of each process, in words.
fn described(hosts: &[String]) -> String {
    let mut machines: Vec<&str> = Vec::new();
    hosts.iter().for_each(|host| {
        if !machines.contains(&&**host) {
            machines.push(host);
        }
    });
    let names = match machines.len() {
        0..=MOST_NAMED => machines.join(", "),
        _ => format!("{}, ...", machines[..MOST_NAMED].join(", ")),
    };
    format!("{} processes on {}: {names}", hosts.len(), counted(machines.len(), "machine"))
}

/// Waits until all have compared: one that does not agree has failed then.
fn all_go_on(ranks: &dyn Exchange) -> Result<(), TrainError> {
    ranks.gather_bytes(Vec::new(), Patience::Deadline).map(drop)
}

fn refuse_other_task(first: &Task, own: &Task, config: &RunConfig) -> Result<(), TrainError> {
    let kind = |device: &str| device.split(':').next().unwrap_or_default().to_owned();
    if kind(&own.device) != kind(&first.device) {
        return Err(TrainError::Usage(format!(
            "its device is `{}`, and that of rank 0 `{}`: devices of different kinds round differently, so that their \
             copies of the model would drift apart; set one kind as `run.device`",
            own.device, first.device
        )));
    }
    let mut differs = Vec::new();
    if own.config != first.config {
        let path = Path::new("the config of rank 0");
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let of_first = RunConfig::from_bytes(first.config.as_bytes(), path, Path::new("."), &[]).map_err(invalid)?;
        let changes = changed_keys(&of_first, config);
        differs.extend(changes.into_iter().filter(|change| !OF_MACHINE.contains(&&*change.key)).map(shown));
    }
    if own.start != first.start {
        differs.push(format!("it starts with {}, rank 0 with {}", own.start, first.start));
    }
    if differs.is_empty() {
        return Ok(());
    }
    let more = differs.len().saturating_sub(MOST_NAMED);
    differs.truncate(MOST_NAMED);
    if more > 0 {
        differs.push(format!("{more} more"));
    }
    Err(TrainError::Usage(format!(
        "it was started with another config than rank 0: {}; start all processes with the same `--config`, `--set` and \
         `--resume`",
        differs.join("; ")
    )))
}

fn shown(Change { key, old, new, .. }: Change) -> String {
    let [old, new] = [old, new].map(|value| value.unwrap_or_else(|| "not set".to_owned()));
    format!("`{key}` is {new}, on rank 0 {old}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_version_is_refused() {
        let program = |version: &str, host: &str| Program {
            version: version.to_owned(),
            host: host.to_owned(),
            cores: host.to_owned(),
        };
        assert!(refuse_other_program(&program("1.2.3", "a"), &program("1.2.3", "b")).is_ok());
        let text = refuse_other_program(&program("1.2.3", "a"), &program("1.3.0", "b")).unwrap_err().to_string();
        assert!(text.starts_with("it is dualenc 1.3.0, and rank 0 (a) is 1.2.3"), "{text}");
    }

    #[test]
    fn machines_are_named_once() {
        let hosts = ["a", "a", "b", "a"].map(str::to_owned);
        assert_eq!(described(&hosts), "4 processes on 2 machines: a, b");
        let hosts: Vec<String> = (0..9).map(|host| host.to_string()).collect();
        assert_eq!(described(&hosts), "9 processes on 9 machines: 0, 1, 2, 3, 4, 5, 6, 7, ...");
    }
}
