//! Reads the shards of an order with windows in long stretches, a window before their samples are loaded, so that the
//! system has them in memory when they are. Samples alone are read in a random order within a window, which costs a
//! round trip to the disk or the server each.
//!
//! It changes nothing but the time that reading takes: it keeps no bytes, and leaves errors to the threads that load.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::images::location::ImageRef;
use crate::loader::feature_lookup::FeatureLookup;
use crate::loader::jobs::own_places;
use crate::loader::options::LoaderOptions;
use crate::panics::catch_quietly;

/// Bytes between two images that are read with them. A disk of 150 MB/s with seeks of 8 ms, or a server of 1 GB/s that
/// answers in 1 ms, reads as many in the time of another request.
const MOST_GAP: u64 = 1 << 20;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Number of a window in its epoch, with the epoch.
type Window = (u64, usize);

/// A part of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    shard: Arc<Path>,
    bytes: Range<u64>,
}

/// The thread that reads ahead, as those that start samples see it.
pub(crate) struct ReadAhead {
    sender: Sender<Window>,
    options: Arc<LoaderOptions>,
    /// The window that was begun last.
    last: Option<Window>,
}

impl ReadAhead {
    /// Starts the thread if the order has windows. It ends when this is dropped, and soon after `cancelled` is set; it
    /// drops `ending` then.
    pub(crate) fn start(options: &Arc<LoaderOptions>, cancelled: &Arc<AtomicBool>, ending: Sender<()>) -> Option<Self> {
        options.plan.windows(0)?;
        let (sender, windows) = channel();
        let (shared, cancelled) = (Arc::clone(options), Arc::clone(cancelled));
        std::thread::spawn(move || {
            let _ending = ending;
            // A failure here is one of the loader's threads too, which report it.
            let _ = catch_quietly(|| follow(&shared, &windows, &cancelled));
        });
        Some(Self { sender, options: Arc::clone(options), last: None })
    }

    /// Notes that a sample of the global `step` is about to be loaded.
    pub(crate) fn at(&mut self, step: u64) {
        let plan = &self.options.plan;
        let Some((epoch, step_in_epoch)) = plan.locate(step) else { return };
        let Some(order) = plan.windows(epoch) else { return };
        let window = (epoch, order.window_of(step_in_epoch * plan.batch_size));
        if self.last != Some(window) {
            self.last = Some(window);
            // The thread may have ended.
            let _ = self.sender.send(window);
        }
    }
}

/// Reads each window that is begun, unless it has read it already, and the one after it.
fn follow(options: &LoaderOptions, windows: &Receiver<Window>, cancelled: &AtomicBool) {
    let mut done: Option<Window> = None;
    for begun in windows {
        for window in [Some(begun), after(options, begun)].into_iter().flatten() {
            if done.is_none_or(|done| done < window) {
                read(&stretches(options, window), cancelled);
                done = Some(window);
            }
        }
    }
}

/// The window after another one; `None` if no step of the load is in it.
fn after(options: &LoaderOptions, (epoch, number): Window) -> Option<Window> {
    let plan = &options.plan;
    let used = plan.batches_per_epoch() * plan.batch_size;
    let next = plan.windows(epoch)?.window(number + 1);
    let (window, start) = if next.start < used { ((epoch, number + 1), next.start) } else { ((epoch + 1, 0), 0) };
    let step = window.0.checked_mul(plan.batches_per_epoch() as u64)?.checked_add((start / plan.batch_size) as u64)?;
    (step < options.start_step.saturating_add(options.num_steps)).then_some(window)
}

/// The parts of shards that have the images of a window which this rank loads, in the order of the data set.
fn stretches(options: &LoaderOptions, (epoch, number): Window) -> Vec<Stretch> {
    let plan = &options.plan;
    let Some(order) = plan.windows(epoch) else { return Vec::new() };
    let window = order.window(number);
    let own = own_places(options.micro_batches, plan.batch_size);
    let used = plan.batches_per_epoch() * plan.batch_size;
    let samples = window.clone().zip(order.samples(window));
    let samples = samples.filter(|(at, _)| *at < used && own.contains(&(at % plan.batch_size)));
    let mut samples: Vec<usize> = samples.map(|(_, sample)| sample).collect();
    samples.sort_unstable();
    let mut stretches: Vec<Stretch> = Vec::new();
    for sample in samples {
        let image = options.dataset.pair(options.mode, sample, plan.seed, epoch).image;
        let is_cached = |cache: &Arc<dyn FeatureLookup>| cache.known(image, epoch % options.views).is_some();
        let ImageRef::TarEntry { tar, offset, len, .. } = options.dataset.image(image) else { continue };
        if options.cached_features.as_ref().is_some_and(is_cached) {
            continue;
        }
        let bytes = offset..offset.saturating_add(len);
        let follows = |last: &&mut Stretch| {
            let is_near = bytes.start >= last.bytes.start && bytes.start <= last.bytes.end.saturating_add(MOST_GAP);
            last.shard == tar && is_near
        };
        match stretches.last_mut().filter(follows) {
            Some(last) => last.bytes.end = last.bytes.end.max(bytes.end),
            None => stretches.push(Stretch { shard: tar, bytes }),
        }
    }
    stretches
}

/// Reads stretches, so that the system has them in memory. One that cannot be read is left out.
fn read(stretches: &[Stretch], cancelled: &AtomicBool) {
    let mut buffer = vec![0; CHUNK];
    for Stretch { shard, bytes } in stretches {
        let Ok(mut file) = File::open(shard) else { continue };
        if file.seek(SeekFrom::Start(bytes.start)).is_err() {
            continue;
        }
        let mut rest = file.take(bytes.end - bytes.start);
        while !cancelled.load(Ordering::Relaxed) && rest.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::num::{NonZeroU64, NonZeroUsize};

    use super::*;
    use crate::dataset::CaptionMode;
    use crate::dataset::builder::DatasetBuilder;
    use crate::image_processor::ImageProcessor;
    use crate::loader::feature_lookup::{ContentHash, ContentId};
    use crate::loader::options::{MicroBatches, Share};
    use crate::loader::order::batch_plan::BatchPlan;
    use crate::loader::unreadable::{UnreadableImages, UnreadablePolicy};
    use crate::text::caption_tokens::Tokens;

    const SHARDS: usize = 10;
    const IMAGES: usize = 100;
    const PAIRS: usize = SHARDS * IMAGES;
    const BATCH: usize = 8;

    /// Shards of images of `len` bytes, each with a header and two captions.
    fn options(len: u64) -> LoaderOptions {
        let mut builder = DatasetBuilder::new("/data");
        for shard in 0..SHARDS {
            let tar: Arc<Path> = Arc::from(Path::new(&format!("/data/{shard}.tar")));
            for image in 0..IMAGES as u64 {
                let (name, offset) = (format!("{image}.jpg"), image * (len + 1024) + 512);
                for caption in ["one", "two"] {
                    builder
                        .push(ImageRef::TarEntry { tar: Arc::clone(&tar), name: name.clone(), offset, len }, caption);
                }
            }
        }
        LoaderOptions {
            dataset: Arc::new(builder.build()),
            mode: CaptionMode::One,
            slots: Default::default(),
            plan: BatchPlan { seed: 4, batch_size: BATCH, len: PAIRS, shuffle: true, window: Some(160) },
            start_step: 0,
            num_steps: 2 * (PAIRS / BATCH) as u64,
            micro_batches: MicroBatches::default(),
            processor: Arc::new(ImageProcessor::standard("vit", Some(8))),
            augment: None,
            views: NonZeroU64::MIN,
            cached_features: None,
            tokens: Tokens::Absent,
            unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.0 },
            unreadable_images: UnreadableImages::default(),
            workers: 1,
        }
    }

    /// The images of the batches that begin and end in a window.
    fn images(options: &LoaderOptions, (epoch, number): Window) -> BTreeSet<usize> {
        let steps = number * 160 / BATCH..((number + 1) * 160).min(PAIRS) / BATCH;
        steps.flat_map(|step| options.plan.batch(epoch, step)).collect()
    }

    fn covers(stretches: &[Stretch], image: &ImageRef) -> bool {
        let ImageRef::TarEntry { tar, offset, len, .. } = image else { return false };
        stretches.iter().any(|it| it.shard == *tar && it.bytes.start <= *offset && it.bytes.end >= offset + len)
    }

    #[test]
    fn windows_are_read_in_stretches() {
        let options = options(200_000);
        for window in [(0, 0), (0, 3), (1, 6)] {
            let (stretches, images) = (stretches(&options, window), images(&options, window));
            assert!(images.iter().all(|&image| covers(&stretches, &options.dataset.image(image))));
            // 16 blocks, of which those across the ends of shards have two parts.
            assert!((1..=24).contains(&stretches.len()), "{} stretches of {} images", stretches.len(), images.len());
            let (read, needed) =
                (stretches.iter().map(|it| it.bytes.end - it.bytes.start).sum::<u64>(), images.len() as u64 * 200_000);
            assert!(read < needed * 2, "{read} bytes for {needed}");
        }
    }

    #[test]
    fn every_window_comes_once_and_in_order() {
        let options = options(20_000);
        let mut windows = vec![(0, 0)];
        while let Some(next) = after(&options, *windows.last().unwrap()) {
            windows.push(next);
        }
        let expected: Vec<Window> = (0..2).flat_map(|epoch| (0..7).map(move |number| (epoch, number))).collect();
        assert_eq!(windows, expected, "1,000 pairs in windows of 160, two epochs");
        let short = LoaderOptions { num_steps: 21, ..options };
        assert_eq!((after(&short, (0, 0)), after(&short, (0, 1))), (Some((0, 1)), None));
    }

    #[test]
    fn ranks_leave_out_what_others_load() {
        let whole = options(4 << 20);
        let of_rank = |rank| {
            let size = NonZeroUsize::new(2);
            let micro_batches = MicroBatches { size, two_passes: false, share: Share { rank, ranks: 2 } };
            stretches(&LoaderOptions { micro_batches, ..whole.clone() }, (0, 1))
        };
        let ranks = [of_rank(0), of_rank(1)];
        for image in images(&whole, (0, 1)) {
            let image = whole.dataset.image(image);
            assert_eq!(ranks.iter().filter(|stretches| covers(stretches, &image)).count(), 1);
        }
    }

    #[derive(Debug)]
    struct FirstShard;

    impl FeatureLookup for FirstShard {
        fn known(&self, image: usize, _: u64) -> Option<ContentId> {
            (image < IMAGES).then_some(1)
        }

        fn find(&self, _: usize, _: u64, content: &ContentHash) -> Result<(), ContentHash> {
            Err(*content)
        }
    }

    #[test]
    fn cached_images_are_not_read() {
        let options = LoaderOptions { cached_features: Some(Arc::new(FirstShard)), ..options(20_000) };
        let all: Vec<Stretch> = (0..7).flat_map(|number| stretches(&options, (0, number))).collect();
        assert!(all.iter().all(|stretch| !stretch.shard.ends_with("0.tar")));
        assert!((1..SHARDS).all(|shard| all.iter().any(|it| it.shard.ends_with(format!("{shard}.tar")))));
    }

    #[test]
    fn whole_epochs_are_not_read_ahead() {
        let mut options = options(100);
        options.plan.window = None;
        let (ending, ended) = channel();
        assert!(ReadAhead::start(&Arc::new(options), &Arc::new(AtomicBool::new(false)), ending).is_none());
        assert!(ended.recv().is_err());
    }

    #[test]
    fn shards_that_are_gone_are_left_to_the_loader() {
        let (ending, ended) = channel();
        let options = Arc::new(options(100));
        let mut ahead = ReadAhead::start(&options, &Arc::new(AtomicBool::new(false)), ending).unwrap();
        (0..options.num_steps).for_each(|step| ahead.at(step));
        drop(ahead);
        assert!(ended.recv().is_err(), "the thread ends");
    }
}
