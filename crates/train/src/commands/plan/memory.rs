//! Peak memory of a step at two numbers of pairs, and the batch that fits.

use dualenc_data::{Batch, TokenBatch};
use dualenc_kernels::return_freed_memory;

use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::host;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::training::step::{self, StepContext};

/// Steps of the size of the batch that must fit into the time left for the larger sizes to be measured.
const STEPS_TO_FIT: f64 = 15.0;

/// Fraction of the memory that a predicted batch may take: other processes and evaluations need some.
const USABLE: f64 = 0.9;

/// Most pairs of the first measurement: enough to fill every core.
const MOST_AT_FIRST: usize = 32;

/// The name of the measurements in progress reports, and how many they are.
const WORK: &str = "sizes of a step";
const PROBES: usize = 3;

/// A size above which the difference of two peaks is more than noise of the allocator.
const NOTABLE: u64 = 1 << 20;

/// Time and memory of loss and gradients of `pairs` pairs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub pairs: usize,
    pub seconds: f64,
    /// Peak of the process above its memory before; `None`: unknown.
    pub peak: Option<u64>,
}

/// Measures a step of two sizes, the smaller first: half of `batch` and the whole batch, or a quarter and a half where
/// a step takes long, or an eighth and a quarter where no step fits in the time. `batch` holds the pixels of all its
/// pairs.
///
/// # Errors
/// Those of [`step::forward_backward`]; [`TrainError::Stopped`] when a signal has arrived.
pub(super) fn measure(
    context: &StepContext<'_>,
    batch: &Batch,
    budget: &Budget,
    observer: &mut dyn Observer,
) -> Result<[Probe; 2], TrainError> {
    let whole = batch.pairs.len();
    let probe_next = |done: usize, pairs: usize, observer: &mut dyn Observer| {
        budget.check_stop()?;
        observer.on(Event::Work { name: WORK, done, total: PROBES });
        probe(context, &head(batch, pairs))
    };
    // The first step also starts threads and takes memory that stays. As few pairs as tell how long a step takes.
    let warm_up = probe_next(0, (whole / 8).min(MOST_AT_FIRST), observer)?;
    let step = warm_up.seconds * whole as f64 / warm_up.pairs as f64;
    let left = budget.left();
    if step > left {
        observer.on(Event::Note(format!(
            "a step takes about {step:.0} s here, so measuring takes several minutes, and a signal is answered after \
             a step at the latest; a smaller `train.batch_size` is measured faster"
        )));
    }
    let [small, large] = match step {
        step if step > left => [whole / 8, whole / 4],
        step if step * STEPS_TO_FIT > left => [whole / 4, whole / 2],
        _ => [whole / 2, whole],
    };
    let probes = [probe_next(1, small, observer)?, probe_next(2, large, observer)?];
    observer.on(Event::Work { name: WORK, done: PROBES, total: PROBES });
    Ok(probes)
}

fn probe(context: &StepContext<'_>, batch: &Batch) -> Result<Probe, TrainError> {
    let batch = batch.clone();
    let pairs = batch.pairs.len();
    return_freed_memory();
    let before = host::resident().filter(|_| context.compute.on_host && host::reset_peak());
    let mut laps = Laps::start();
    drop(step::forward_backward(context, batch)?);
    let seconds = laps.lap();
    let peak = before.and_then(|before| Some(host::peak()?.saturating_sub(before)));
    Ok(Probe { pairs, seconds, peak })
}

/// The first `pairs` pairs of a batch with pixels, at least 2 where there are as many.
pub(super) fn head(batch: &Batch, pairs: usize) -> Batch {
    let all = batch.pairs.len();
    let pairs = pairs.max(2).min(all);
    let texts = pairs * batch.slots();
    let loaded = batch.loaded.iter().filter(|loaded| loaded.pair < pairs).copied().collect::<Vec<_>>();
    Batch {
        pairs: batch.pairs[..pairs].to_vec(),
        pixels: batch.pixels.first(loaded.len()),
        loaded,
        tokens: TokenBatch {
            ids: batch.tokens.ids[..texts].to_vec(),
            type_ids: batch.tokens.type_ids[..texts].to_vec(),
        },
        captions: batch.captions[..texts].to_vec(),
        contents: batch.contents[..pairs].to_vec(),
        skipped: Vec::new(),
        ..*batch
    }
}

/// Bytes per pair, from the peaks of two sizes; `None`: unknown, or too little to measure.
pub(super) fn slope([small, large]: [Probe; 2]) -> Option<f64> {
    let more = large.peak?.saturating_sub(small.peak?);
    (more > NOTABLE && large.pairs > small.pairs).then(|| more as f64 / (large.pairs - small.pairs) as f64)
}

/// The largest number of pairs at which `peak`, measured at `pairs`, stays within `available`, when each pair takes
/// `per_pair` bytes: a multiple of 32, or a power of two below that. 0: not even one pair.
pub(super) fn largest_batch(available: u64, peak: u64, pairs: usize, per_pair: f64) -> usize {
    let room = available as f64 * USABLE - peak as f64;
    let fits = pairs as f64 + room / per_pair;
    round_down(fits.max(0.0) as usize)
}

/// Down to a multiple of 32, or to a power of two below that.
pub(super) fn round_down(pairs: usize) -> usize {
    match pairs {
        0 => 0,
        1..32 => 1 << pairs.ilog2(),
        _ => pairs / 32 * 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_that_fits_is_on_the_line() {
        // 90 % of 1000 MB are 900: 400 more than the peak, 4 MB a pair.
        assert_eq!(largest_batch(1_000_000_000, 500_000_000, 60, 4e6), 160);
        assert_eq!(largest_batch(1_000_000_000, 980_000_000, 60, 4e6), 32);
        assert_eq!(largest_batch(1_000_000_000, 2_000_000_000, 60, 4e6), 0);
        assert_eq!([0, 1, 3, 31, 32, 95].map(round_down), [0, 1, 2, 16, 32, 64]);
    }

    #[test]
    fn slope_needs_notable_difference() {
        let probe = |pairs, peak| Probe { pairs, seconds: 1.0, peak };
        assert_eq!(slope([probe(8, Some(10 << 20)), probe(16, Some(18 << 20))]), Some((1 << 20) as f64));
        assert_eq!(slope([probe(8, Some(10 << 20)), probe(16, Some(10 << 20))]), None);
        assert_eq!(slope([probe(8, None), probe(16, Some(18 << 20))]), None);
        assert_eq!(slope([probe(2, Some(10 << 20)), probe(2, Some(18 << 20))]), None);
    }
}
