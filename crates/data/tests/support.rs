//! Goldens, images and data sets for the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{
    BatchPlan, CaptionMode, CsvSource, Dataset, LoaderOptions, Tokenizer, Tokens, UnreadableImages, UnreadablePolicy,
};
use safetensors::SafeTensors;

/// A path below `tests/goldens` of the repository.
pub fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens")).join(path)
}

/// A tensor file of the goldens.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn read(path: &str) -> Self {
        let path = golden(path);
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    pub fn names(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    /// An entry of the file's metadata.
    pub fn metadata(&self, key: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        header.metadata().as_ref().unwrap()[key].clone()
    }

    pub fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.bytes(name);
        (shape, bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

/// A PNG of a smooth picture that depends on `seed`.
pub fn png(seed: u32, width: u32, height: u32) -> Vec<u8> {
    encoded(seed, width, height, image::ImageFormat::Png)
}

pub fn encoded(seed: u32, width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7 + seed * 31) as u8, (y * 5 + seed * 17) as u8, (x * y + seed) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Writes a BERT vocabulary of a few words.
pub fn write_vocabulary(dir: &Path) {
    let words =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "picture", "of", "a", "cat", "dog", "##s", "0", "1", "2", "3"];
    std::fs::write(dir.join("vocab.txt"), words.join("\n")).unwrap();
}

/// Writes a CSV of `count` images with `captions` captions each, and reads it. Images in `bad` are HTML.
pub const BAD_IMAGE: &[u8] = b"<!DOCTYPE html><html>not found";

pub fn write_dataset(dir: &Path, count: u32, captions: u32, bad: &[u32]) -> Dataset {
    let mut table = String::from("image,caption\n");
    for i in 0..count {
        let bytes = if bad.contains(&i) { BAD_IMAGE.to_vec() } else { png(i, 20 + i % 7, 24) };
        std::fs::write(dir.join(format!("{i}.png")), bytes).unwrap();
        for caption in 0..captions {
            table += &format!("{i}.png,picture {caption} of a cat{}\n", if i % 2 == 0 { "" } else { "s" });
        }
    }
    let path = dir.join("data.csv");
    std::fs::write(&path, table).unwrap();
    CsvSource::new(path).read().unwrap()
}

/// Options for all images of `dataset`, at 16 x 16 pixels.
pub fn options(dir: &Path, dataset: Dataset, mode: CaptionMode, batch_size: usize, shuffle: bool) -> LoaderOptions {
    write_vocabulary(dir);
    let tokenizer = Arc::new(Tokenizer::from_dir(dir, 8).unwrap());
    let tokens = Tokens::prepare(tokenizer, &dataset, 0.0, 2).unwrap();
    LoaderOptions {
        plan: BatchPlan { seed: 42, batch_size, len: dataset.num_pairs(mode), shuffle, window: None },
        dataset: Arc::new(dataset),
        mode,
        slots: Default::default(),
        start_step: 0,
        num_steps: 0,
        micro_batches: Default::default(),
        processor: Arc::new(dualenc_data::ImageProcessor::standard("vit", Some(16))),
        augment: None,
        views: std::num::NonZeroU64::MIN,
        cached_features: None,
        tokens,
        unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.2 },
        unreadable_images: UnreadableImages::default(),
        workers: 3,
    }
}

/// The CRC of the PNG specification, annex D.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
