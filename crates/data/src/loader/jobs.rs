//! The samples of a load, one by one, in the order in which they are collated.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;

use crate::loader::options::MicroBatches;
use crate::loader::order::batch_plan::BatchPlan;

/// One sample of one micro-batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    /// View of the image.
    pub(crate) view: u64,
    /// Number of the pair in the data set.
    pub(crate) index: usize,
    /// Number of the micro-batch in the step.
    pub(crate) part: usize,
    pub(crate) ends_part: bool,
    pub(crate) is_last_of_pass: bool,
    pub(crate) ends_step: bool,
}

/// The jobs of the steps `start_step..start_step + num_steps`, of the micro-batches of one rank.
pub(crate) fn jobs(
    plan: BatchPlan,
    views: NonZeroU64,
    parts: MicroBatches,
    start_step: u64,
    num_steps: u64,
) -> impl Iterator<Item = Job> + Send + 'static {
    (start_step..start_step.saturating_add(num_steps)).flat_map(move |step| {
        let (epoch, step_in_epoch) = plan.locate(step).unwrap_or((0, 0));
        let indices = plan.batch(epoch, step_in_epoch);
        let size = parts.size.map_or(usize::MAX, NonZeroUsize::get);
        let passes = if parts.two_passes && indices.len() > size { 2 } else { 1 };
        let Range { start, end } = own_places(parts, indices.len());
        (0..passes).flat_map(move |pass| {
            let (last_of_step, last) = (indices.len().saturating_sub(1), end.saturating_sub(1));
            let own = indices.clone().into_iter().enumerate().skip(start).take(end.saturating_sub(start));
            own.map(move |(i, index)| Job {
                step,
                epoch,
                view: epoch % views,
                index,
                part: i / size,
                ends_part: i == last_of_step || (i + 1) % size == 0,
                is_last_of_pass: i == last,
                ends_step: i == last && pass + 1 == passes,
            })
        })
    })
}

/// The samples of a step of `len` samples that this rank loads, by their places in the step.
pub(crate) fn own_places(parts: MicroBatches, len: usize) -> Range<usize> {
    let size = parts.size.map_or(usize::MAX, NonZeroUsize::get);
    let share = parts.share.of(len.div_ceil(size));
    share.start.saturating_mul(size)..share.end.saturating_mul(size).min(len)
}
