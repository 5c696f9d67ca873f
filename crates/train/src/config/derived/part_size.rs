//! How large the parts of a step are.

use crate::config::RunConfig;

/// Parts of a step that 1, 2, 4 and 8 devices share alike.
const PARTS: usize = 8;

impl RunConfig {
    /// The config with the size of a part written down, if several `ranks` or devices share a step and it names none.
    /// Written down, it stays the same when a run goes on with another number of devices.
    #[must_use]
    pub(crate) fn with_parts(mut self, ranks: usize) -> Self {
        self.train.micro_batch_size = self.part_size(ranks);
        self
    }

    /// Pairs of a part of a step on `ranks` devices, or on those of `run.device` if they are more; `None`:
    /// `train.micro_batch_size` is not set, and there is one device.
    pub(crate) fn part_size(&self, ranks: usize) -> Option<usize> {
        let devices = ranks.max(self.run.device.len());
        let several = (devices > 1).then(|| self.train.batch_size.div_ceil(PARTS.max(devices)));
        self.train.micro_batch_size.or(several)
    }
}
