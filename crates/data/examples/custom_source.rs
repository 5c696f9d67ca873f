//! Loads batches from a source of its own: a text file with lines `PATH | CAPTION`, which no built-in source reads.
//!
//! ```sh
//! cargo run --release -p dualenc-data --example custom_source -- pairs.txt towers/vit towers/bert
//! ```
//!
//! The second and third argument are directories with an image processor and a tokenizer.

#![allow(clippy::print_stdout, reason = "an example prints its batches")]

use std::error::Error;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

use dualenc_data::{
    BatchPlan, CaptionMode, CaptionSlots, Dataset, DatasetBuilder, ImageProcessor, ImageRef, LoaderOptions,
    MicroBatches, PairLoader, Tokenizer, Tokens, UnreadableImages, UnreadablePolicy,
};

/// Captions are cut to this number of tokens.
const MAX_TOKENS: usize = 32;

/// Reads the list. Image paths are relative to its directory.
fn read(path: &Path) -> Result<Dataset, Box<dyn Error>> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut builder = DatasetBuilder::new(directory);
    for (number, line) in std::fs::read_to_string(path)?.lines().enumerate() {
        let (image, caption) = line
            .split_once(" | ")
            .ok_or_else(|| format!("{}:{}: expected `PATH | CAPTION`", path.display(), number + 1))?;
        builder.push(ImageRef::File(directory.join(image)), caption);
    }
    Ok(builder.build())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [list, image_tower, text_tower] = &arguments[..] else {
        return Err("usage: custom_source LIST IMAGE_TOWER_DIR TEXT_TOWER_DIR".into());
    };
    let dataset = Arc::new(read(Path::new(list))?);
    let tokenizer = Arc::new(Tokenizer::from_dir(text_tower, MAX_TOKENS)?);
    let workers = std::thread::available_parallelism()?.get();

    let mode = CaptionMode::All;
    let plan = BatchPlan { seed: 42, batch_size: 8, len: dataset.num_pairs(mode), shuffle: true, window: None };
    let loader = PairLoader::new(LoaderOptions {
        mode,
        slots: CaptionSlots::default(),
        plan,
        // Resuming costs nothing: start at any step.
        start_step: 0,
        num_steps: plan.batches_per_epoch() as u64,
        micro_batches: MicroBatches::default(),
        processor: Arc::new(ImageProcessor::from_dir(image_tower)?),
        augment: None,
        views: NonZeroU64::MIN,
        cached_features: None,
        tokens: Tokens::prepare(tokenizer, &dataset, 0.0, workers)?,
        unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.01 },
        unreadable_images: UnreadableImages::default(),
        workers,
        dataset: Arc::clone(&dataset),
    })?;
    for batch in loader {
        let batch = batch?;
        let first = &dataset.caption(batch.pairs[0].caption).text;
        println!("step {}  {} pairs, the first captioned `{first}`", batch.step, batch.pairs.len());
    }
    Ok(())
}
