//! Loads from disks that fail, and the record of bad images.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::builder::DatasetBuilder;
use crate::dataset::{CaptionMode, Dataset};
use crate::error::DataError;
use crate::image_processor::ImageProcessor;
use crate::images::disk::tests::{EACCES, EIO, ESTALE, faults_left, plan_faults};
use crate::images::location::ImageRef;
use crate::loader::PairLoader;
use crate::loader::batch::Batch;
use crate::loader::options::LoaderOptions;
use crate::loader::order::batch_plan::BatchPlan;
use crate::loader::unreadable::{UnreadableImages, UnreadablePolicy};
use crate::text::caption_tokens::Tokens;
use crate::text::tokenizer::Tokenizer;

const BATCH: usize = 4;
const IMAGES: usize = 12;
const STEPS_PER_EPOCH: u64 = (IMAGES / BATCH) as u64;
const NOT_AN_IMAGE: &[u8] = b"<html>";

fn path(dir: &Path, image: usize) -> PathBuf {
    dir.join(format!("{image}.png"))
}

fn write_png(dir: &Path, image: usize) {
    let picture = ::image::RgbImage::from_fn(8, 8, |x, y| ::image::Rgb([x as u8 * 9, y as u8 * 7, image as u8 * 20]));
    picture.save(path(dir, image)).unwrap();
}

/// Pairs of images and captions; the images in `bad` are HTML.
fn options(dir: &Path, bad: &[usize]) -> LoaderOptions {
    std::fs::write(dir.join("vocab.txt"), "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat").unwrap();
    let mut builder = DatasetBuilder::new(dir);
    for image in 0..IMAGES {
        write_png(dir, image);
        if bad.contains(&image) {
            std::fs::write(path(dir, image), NOT_AN_IMAGE).unwrap();
        }
        assert!(builder.push(ImageRef::File(path(dir, image)), "a cat"));
    }
    let dataset: Dataset = builder.build();
    let tokenizer = Arc::new(Tokenizer::from_dir(dir, 8).unwrap());
    LoaderOptions {
        tokens: Tokens::prepare(tokenizer, &dataset, 0.0, 1).unwrap(),
        plan: BatchPlan { seed: 1, batch_size: BATCH, len: IMAGES, shuffle: true, window: None },
        dataset: Arc::new(dataset),
        mode: CaptionMode::All,
        slots: Default::default(),
        start_step: 0,
        num_steps: 3 * STEPS_PER_EPOCH,
        micro_batches: Default::default(),
        processor: Arc::new(ImageProcessor::standard("vit", Some(8))),
        augment: None,
        views: NonZeroU64::MIN,
        cached_features: None,
        unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.5 },
        unreadable_images: UnreadableImages::default(),
        workers: 3,
    }
}

fn fresh(options: &LoaderOptions) -> LoaderOptions {
    LoaderOptions { unreadable_images: UnreadableImages::default(), ..options.clone() }
}

fn all(options: LoaderOptions) -> Vec<Batch> {
    PairLoader::new(options).unwrap().map(Result::unwrap).collect()
}

fn assert_equal(found: &[Batch], expected: &[Batch]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let parts = |batch: &Batch| (batch.step, batch.pairs.clone(), batch.tokens.clone(), batch.skipped.clone());
        assert_eq!(parts(found), parts(expected));
        assert!(found.pixels == expected.pixels, "other pixels in step {}", found.step);
    }
}

#[test]
fn passing_read_errors_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &[7]);
    let expected = all(fresh(&options));
    for fault in [EIO, ESTALE, 24, 12] {
        for image in [0, 7, 11] {
            // The second read fails three times; image 7 is known to be bad by then and is not read again.
            plan_faults(&path(dir.path(), image), [0, fault, fault, fault]);
        }
        plan_faults(&path(dir.path(), 5), [fault]);
        let options = fresh(&options);
        assert_equal(&all(options.clone()), &expected);
        assert_eq!([0, 5, 11].map(|image| faults_left(&path(dir.path(), image))), [0; 3]);
        assert_eq!(options.unreadable_images.list().iter().map(|it| it.image).collect::<Vec<_>>(), [7]);
        plan_faults(&path(dir.path(), 7), []);
    }
}

#[test]
fn lasting_read_errors_end_load() {
    let dir = tempfile::tempdir().unwrap();
    // One thread, so that the reads of the first epoch come first.
    let options = LoaderOptions { workers: 1, ..options(dir.path(), &[]) };
    for fault in [EIO, ESTALE, EACCES, 24, 12] {
        plan_faults(&path(dir.path(), 6), [0].into_iter().chain([fault; 20]));
        let options = fresh(&options);
        let results: Vec<_> = PairLoader::new(options.clone()).unwrap().collect();
        let (error, before) = results.split_last().unwrap();
        assert!(
            before.len() as u64 >= STEPS_PER_EPOCH && before.iter().all(Result::is_ok),
            "fails in the second epoch"
        );
        let error = error.as_ref().unwrap_err();
        assert!(matches!(error, DataError::Read { path, .. } if path.ends_with("6.png")), "{error}");
        assert!(error.to_string().contains(&format!("(os error {fault})")), "{error}");
        assert!(options.unreadable_images.list().is_empty(), "nothing is skipped");
    }
}

#[test]
fn restored_record_replaces_alike() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &[2, 9]);
    let stop = STEPS_PER_EPOCH + 1;
    let first = LoaderOptions { num_steps: stop, ..options.clone() };
    assert_eq!(all(first).iter().map(|batch| batch.skipped.len()).sum::<usize>(), 2);
    let json = serde_json::to_string(&options.unreadable_images.found(stop)).unwrap();
    // Both files are repaired while the run goes on. It does not use them, and neither does a resumed one.
    for image in [2, 9] {
        write_png(dir.path(), image);
    }
    let rest = LoaderOptions { start_step: stop, num_steps: 2 * STEPS_PER_EPOCH, ..options };
    let expected = all(rest.clone());
    assert!(expected.iter().flat_map(|batch| &batch.pairs).all(|pair| ![2, 9].contains(&pair.image)));

    let resumed = fresh(&rest);
    resumed.unreadable_images.restore(serde_json::from_str(&json).unwrap(), &resumed.dataset).unwrap();
    assert_eq!(resumed.unreadable_images.list(), rest.unreadable_images.list());
    assert_equal(&all(resumed), &expected);
    let forgotten = all(fresh(&rest));
    assert!(forgotten.iter().flat_map(|batch| &batch.pairs).any(|pair| pair.image == 2), "the record matters");
}

#[test]
fn found_images_are_those_of_done_steps() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &[2, 9]);
    let batches = all(options.clone());
    let record = &options.unreadable_images;
    for done in 0..=batches.len() as u64 {
        let expected: Vec<_> = batches.iter().filter(|it| it.step < done).flat_map(|it| it.skipped.clone()).collect();
        assert_eq!(record.found(done), expected);
    }
    assert_eq!(record.found(u64::MAX), record.list());

    let mut found = record.list();
    found[0].image = IMAGES;
    let message = record.restore(found, &options.dataset).unwrap_err().to_string();
    assert!(message.contains("is number 12, but the data set has 12 images"), "{message}");
    assert_eq!(record.list().len(), 2, "a failed restore changes nothing");
}

#[test]
fn windows_resume_at_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), &[3]);
    options.plan.window = Some(5);
    let whole = all(fresh(&options));
    let mut unshuffled: Vec<_> = whole.iter().flat_map(|batch| &batch.pairs).map(|pair| pair.image).collect();
    unshuffled.truncate(IMAGES);
    unshuffled.sort_unstable();
    unshuffled.dedup();
    assert_eq!(unshuffled.len(), IMAGES - 1, "each image but the bad one");
    for start_step in 1..options.num_steps {
        let rest = LoaderOptions { start_step, num_steps: options.num_steps - start_step, ..fresh(&options) };
        let found = all(rest);
        let order = |batches: &[Batch]| batches.iter().map(|it| (it.step, it.pairs.clone())).collect::<Vec<_>>();
        assert_eq!(order(&found), order(&whole[start_step as usize..]));
    }
}
