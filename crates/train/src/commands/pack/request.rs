//! What `dualenc data pack` writes.

use std::path::PathBuf;

use dualenc_data::{Limits, ShardWriter};
use serde_json::{Value, json};

/// Samples per shard unless the user says otherwise: img2dataset's `number_sample_per_shard`.
pub(crate) const SAMPLES_PER_SHARD: usize = 10_000;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackForm {
    /// Tar shards, `000000.tar` and so on.
    Webdataset,
    /// Image files in `images`, and `pairs.csv`.
    Folder,
}

/// How large the written images are. Images are never enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackSize {
    /// The shorter side has at most this number of pixels.
    ShorterSide(u32),
    /// The longer side has at most this number of pixels.
    LongerSide(u32),
}

/// Whether images are encoded again. Without either, files are copied as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recode {
    /// The size to reduce larger images to. Images that are small enough are copied as they are.
    pub size: Option<PackSize>,
    /// Store every image as JPEG of this quality, from 1 to 100. Without it, reduced images are PNG, those of JPEG
    /// files JPEG of quality 95.
    pub quality: Option<u8>,
}

/// A request to pack data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRequest {
    /// The directory to write.
    pub out: PathBuf,
    /// The form of the output.
    pub form: PackForm,
    /// Whether images are encoded again.
    pub recode: Recode,
    /// Most samples of a shard; `None`: 10,000, unless `shard_bytes` is given.
    pub samples: Option<usize>,
    /// Most bytes of a shard. A larger sample has a shard of its own.
    pub shard_bytes: Option<u64>,
    /// The evaluation to pack instead of the training data.
    pub eval: Option<String>,
    /// The source of `[[data.train]]` to pack, from 0; `None`: all.
    pub source: Option<usize>,
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Images that were written.
    pub images: usize,
    /// Their captions.
    pub captions: usize,
    /// Bytes of the shards, or of the images.
    pub bytes: u64,
    /// Shards, or parts of a folder.
    pub shards: usize,
    /// Images that cannot be used, and are left out.
    pub bad: usize,
    /// Rows of the source that name no usable pair.
    pub skipped_rows: usize,
}

impl PackRequest {
    /// Whether a sample of `bytes` fits into a shard of `samples` samples and `used` bytes.
    pub(crate) fn has_room(&self, samples: usize, used: u64, bytes: u64) -> bool {
        let default = if self.shard_bytes.is_some() { usize::MAX } else { SAMPLES_PER_SHARD };
        let all = used.saturating_add(bytes).saturating_add(ShardWriter::<Vec<u8>>::END_BYTES);
        let has_bytes = self.shard_bytes.is_none_or(|limit| all <= limit);
        samples == 0 || samples < self.samples.unwrap_or(default) && has_bytes
    }

    /// Everything that decides which bytes are written for given data.
    pub(crate) fn options(&self, limits: &Limits) -> Value {
        let size = match self.recode.size {
            None => Value::Null,
            Some(PackSize::ShorterSide(side)) => json!({"shorter_side": side}),
            Some(PackSize::LongerSide(side)) => json!({"longer_side": side}),
        };
        let form = match self.form {
            PackForm::Webdataset => "webdataset",
            PackForm::Folder => "folder",
        };
        json!({
            "form": form,
            "size": size,
            "quality": self.recode.quality,
            "samples": self.samples,
            "shard_bytes": self.shard_bytes,
            "max_pixels": limits.max_pixels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_close_at_either_limit() {
        let request = |samples, shard_bytes| PackRequest {
            out: PathBuf::new(),
            form: PackForm::Webdataset,
            recode: Recode::default(),
            samples,
            shard_bytes,
            eval: None,
            source: None,
        };
        let by_count = request(Some(2), None);
        assert!(by_count.has_room(1, 1 << 40, 1) && !by_count.has_room(2, 0, 1));
        let by_bytes = request(None, Some(1024 + 100));
        assert!(by_bytes.has_room(1, 60, 40) && !by_bytes.has_room(1, 60, 41));
        assert!(by_bytes.has_room(0, 0, 1000), "a large sample has a shard of its own");
        assert!(by_bytes.has_room(20_000, 10, 1), "bytes replace the default count");
        assert!(!request(None, None).has_room(SAMPLES_PER_SHARD, 10, 1));
    }
}
