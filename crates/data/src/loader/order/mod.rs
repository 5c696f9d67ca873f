//! Which sample comes when: a pure function of (seed, epoch, position).
//!
//! - `epoch_order`: a shuffled order of a whole epoch
//! - `windowed_order`: a shuffled order that reads blocks of the data set one after the other
//! - `batch_plan`: how epochs are divided into batches

pub(crate) mod batch_plan;
pub(crate) mod epoch_order;
pub(crate) mod windowed_order;
