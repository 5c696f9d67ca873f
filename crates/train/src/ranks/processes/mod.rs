//! Ranks that are processes, on one machine or several. They are started by mpirun or srun and exchange through MPI.
//!
//! - `world.rs`: joins the processes, and leaves them at the end
//! - `on_processes.rs`: runs this process as a rank
//! - `agreement.rs`, `placement.rs`: what processes compare before they train, and the device of each
//! - `process_rank.rs`: the connection of a process to all
//! - `communication.rs`: the thread that calls MPI; `pause.rs`: how it waits
//! - `places.rs`: where each rank is; `process.rs`: whether a process of the same machine runs
//! - `timing.rs`: how long exchanges take
//! - `round.rs`, `message.rs`: what ranks give each other, and short messages beside it

mod agreement;
mod communication;
pub(super) mod message;
pub(crate) mod on_processes;
mod pause;
mod placement;
mod places;
mod process;
mod process_rank;
mod round;
#[cfg(feature = "internals")]
pub(crate) mod timing;
pub(crate) mod world;
