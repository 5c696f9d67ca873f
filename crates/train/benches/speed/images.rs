//! Images from the disk to a tower's input, on as many threads as the machine has cores.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dualenc_data::{ImageProcessor, ImageRef, image_files, load_pixels, ordered_map};

use crate::Work;

/// Drawings of a round.
const DRAWINGS: usize = 256;

/// The images of the row called `name`, as `scripts/bench_images.py` made them or the quickstart fetched them.
pub fn load(name: &str) -> Result<Work, Box<dyn Error>> {
    // As the program does before it loads images.
    dualenc_kernels::keep_freed_memory();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (dir, most) = match name {
        "images-png" => (root.join("quickstart/data/images"), DRAWINGS),
        "images-jpeg-fast" => (root.join("runs/bench/images-jpeg-large"), usize::MAX),
        _ => (root.join("runs/bench").join(name), usize::MAX),
    };
    let mut paths: Vec<PathBuf> = image_files(&dir)?.files;
    paths.truncate(most);
    if paths.is_empty() {
        return Err(format!("`{}` holds no image: run scripts/bench.sh {name}, which makes them", dir.display()).into());
    }
    let images: Vec<ImageRef> = paths.into_iter().map(ImageRef::File).collect();
    // Shorter side to 224 by bicubic, middle 224 x 224, normalised: torchvision's usual transform.
    let processor = ImageProcessor::standard("clip", Some(224)).with_fast_decode(name == "images-jpeg-fast");
    let processor = Arc::new(processor);
    let (count, workers) = (images.len(), std::thread::available_parallelism()?.get());
    let round = move || {
        let processor = Arc::clone(&processor);
        let jobs = images.clone().into_iter();
        for pixels in ordered_map(jobs, workers, workers * 8, move |image: ImageRef| load_pixels(&image, &processor)) {
            std::hint::black_box(pixels??);
        }
        Ok(())
    };
    Ok(Work { flops: 0.0, bytes: 0.0, images: count, round: Box::new(round) })
}
