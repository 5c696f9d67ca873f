//! Loads every batch of one epoch and prints the time as JSON. `scripts/bench_loader.sh` compares it with PyTorch.
//!
//! ```sh
//! cargo run --release -p dualenc-data --example loader_speed -- pairs.csv towers/vit towers/bert 2
//! ```
//!
//! The arguments: a table or a tar shard, directories with an image processor and a tokenizer, and the number of worker
//! threads.

#![allow(clippy::print_stdout, reason = "the result of a benchmark")]

use std::error::Error;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dualenc_data::{
    BatchPlan, CaptionMode, CaptionSlots, ImageProcessor, LoaderOptions, MicroBatches, PairLoader, Source, Tokenizer,
    Tokens, UnreadableImages, UnreadablePolicy,
};

/// Captions are cut to this number of tokens.
const MAX_TOKENS: usize = 32;

/// Pairs per batch.
const BATCH_SIZE: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, image_tower, text_tower, workers] = &arguments[..] else {
        return Err("usage: loader_speed SOURCE IMAGE_TOWER_DIR TEXT_TOWER_DIR WORKERS".into());
    };
    let dataset = Arc::new(Source::from_path(Path::new(source))?.read()?);
    let tokenizer = Arc::new(Tokenizer::from_dir(text_tower, MAX_TOKENS)?);
    let (workers, mode) = (workers.parse()?, CaptionMode::All);
    let plan =
        BatchPlan { seed: 42, batch_size: BATCH_SIZE, len: dataset.num_pairs(mode), shuffle: true, window: None };
    let options = LoaderOptions {
        mode,
        slots: CaptionSlots::default(),
        plan,
        start_step: 0,
        num_steps: plan.batches_per_epoch() as u64,
        micro_batches: MicroBatches::default(),
        processor: Arc::new(ImageProcessor::from_dir(image_tower)?),
        augment: None,
        views: NonZeroU64::MIN,
        cached_features: None,
        tokens: Tokens::prepare(tokenizer, &dataset, 0.0, workers)?,
        unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.0 },
        unreadable_images: UnreadableImages::default(),
        workers,
        dataset,
    };
    let (started, mut images, mut sum) = (Instant::now(), 0, 0.0);
    for batch in PairLoader::new(options)? {
        let batch = batch?;
        images += batch.pairs.len();
        sum += f64::from(batch.pixels.values_of(0..1)[0]);
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{{\"images\": {images}, \"seconds\": {seconds}, \"sum\": {sum}}}");
    Ok(())
}
