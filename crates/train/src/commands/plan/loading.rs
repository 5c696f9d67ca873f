//! Reading and decoding images one by one, on one thread.

use std::time::Instant;

use dualenc_data::{DataError, decode_view};

use crate::error::TrainError;
use crate::training::run::Run;

/// Images that are measured at most.
const IMAGES: usize = 32;

/// Seconds after which no further image is measured.
const LIMIT: f64 = 3.0;

/// Mean times, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loading {
    pub read: f64,
    pub decode: f64,
    pub measured: usize,
    pub unusable: usize,
}

/// Reads and decodes images that are spread over the training data.
///
/// # Errors
/// [`TrainError::Data`] when a file cannot be read for another reason than its content.
pub(super) fn measure(run: &Run) -> Result<Loading, TrainError> {
    let (data, config) = (&run.data, &run.config);
    let dataset = &data.dataset;
    let mut found = Loading::default();
    let started = Instant::now();
    for number in spread(dataset.num_images(), IMAGES) {
        if started.elapsed().as_secs_f64() > LIMIT {
            break;
        }
        if dataset.image_feature_width().is_some() {
            // Features are read with the batch that needs them.
            break;
        }
        let view = config.data.augment.map(|augment| augment.view(config.run.seed, 0, number));
        let begun = Instant::now();
        let bytes = match dataset.image(number).read() {
            Err(DataError::Image { .. }) => {
                found.unusable += 1;
                continue;
            }
            bytes => bytes?,
        };
        let read = begun.elapsed().as_secs_f64();
        match decode_view(&bytes, &dataset.image(number), &data.processor, view) {
            Err(DataError::Image { .. }) => found.unusable += 1,
            pixels => {
                pixels?;
                found.read += read;
                found.decode += begun.elapsed().as_secs_f64() - read;
                found.measured += 1;
            }
        }
    }
    let count = found.measured.max(1) as f64;
    (found.read, found.decode) = (found.read / count, found.decode / count);
    Ok(found)
}

/// At most `count` numbers below `len`, evenly spread, ascending.
pub(super) fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |at| at * len / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_spread() {
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(3, 8).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0, 8).count(), 0);
    }
}
