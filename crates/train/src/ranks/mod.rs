//! Several replicas of one run that share each batch: *ranks*. Each has its own device, model and optimiser and runs
//! the same loop; what they tell each other goes through one trait.
//!
//! A step is computed in parts (`train.micro_batch_size`), and each rank takes the parts that follow those of the rank
//! before it. Gradients are added up in a fixed tree over parts and ranks. So 1, 2, 4, 8... ranks compute the same bits
//! from the same parts.
//!
//! - `exchange.rs`: the trait
//! - `alone.rs`: one rank, which tells nobody anything
//! - `threads.rs`: ranks that are threads of one process
//! - `on_devices.rs`: runs a rank on each device, and ends all when one fails
//! - `launched.rs`, `launcher.rs`: the processes that a launcher started together
//! - `processes/`: ranks that are processes, on one machine or several
//! - `observers.rs`, `caught.rs`: warnings and panics of ranks
//! - `tree.rs`: the order in which parts are added up
//! - `gathered.rs`, `gradients.rs`: the pairs, features and gradients of all ranks

pub(crate) mod alone;
mod caught;
pub(crate) mod exchange;
pub(crate) mod gathered;
pub(crate) mod gradients;
pub(crate) mod launched;
pub(crate) mod launcher;
mod observers;
pub(crate) mod on_devices;
#[cfg(feature = "mpi")]
pub(crate) mod processes;
mod threads;
pub(crate) mod tree;
