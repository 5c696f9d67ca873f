//! Disks that fail or stall, threads that panic, and processes at their limits.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dualenc_data::{
    CaptionMode, ContentHash, ContentId, DataError, FeatureLookup, Loaded, LoaderOptions, PairLoader, Stall, mix,
    ordered_map,
};

use crate::child;
use crate::limits::within;
use crate::support::{options, write_dataset};

#[cfg(unix)]
#[test]
fn unknown_read_error_ends_load() {
    // A link to itself cannot be opened (ELOOP): neither a damaged image nor a missing one.
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 8, 1, &[]);
    std::fs::remove_file(dir.path().join("2.png")).unwrap();
    std::os::unix::fs::symlink("2.png", dir.path().join("2.png")).unwrap();
    let mut options = options(dir.path(), dataset, CaptionMode::All, 4, false);
    options.num_steps = 2;
    let results: Vec<_> = PairLoader::new(options.clone()).unwrap().collect();
    let error = results.last().unwrap().as_ref().map(|batch| batch.step).unwrap_err();
    assert!(matches!(error, DataError::Read { path, .. } if path.ends_with("2.png")), "{error}");
    assert!(options.unreadable_images.list().is_empty(), "nothing is skipped");
}

/// Opens files until the process may open no more.
#[cfg(unix)]
fn use_up_files(dir: &Path) -> Vec<File> {
    let mut files = Vec::new();
    loop {
        match File::open(dir.join("vocab.txt")) {
            Ok(file) => files.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(24), "{error}");
                return files;
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn too_many_open_files() {
    if !child::is_child() {
        child::assert_passed(&child::run("faults::too_many_open_files", "ulimit -n 64"));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 8, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 4, false);
    options.num_steps = 2;
    let load = |options: LoaderOptions| PairLoader::new(options).unwrap().collect::<Result<Vec<_>, _>>();
    let expected = load(options.clone()).unwrap();

    // The first attempts fail; once files are closed, the load goes on as if nothing had happened.
    let files = use_up_files(dir.path());
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(files);
    });
    let passed = load(options.clone()).unwrap();
    closing.join().unwrap();
    for (passed, expected) in passed.iter().zip(&expected) {
        assert_eq!(passed.pairs, expected.pairs);
        assert!(passed.pixels == expected.pixels);
    }
    assert!(options.unreadable_images.list().is_empty(), "nothing is skipped");

    let files = use_up_files(dir.path());
    let error = load(options.clone()).map(|batches| batches.len()).unwrap_err();
    drop(files);
    let message = error.to_string();
    assert!(message.contains(".png`: Too many open files (os error 24), in each of 4 tries"), "{message}");
    assert!(options.unreadable_images.list().is_empty(), "nothing is skipped");
}

#[test]
fn caught_panics_print_nothing() {
    if child::is_child() {
        let results = ordered_map(0..4, 2, 4, |job| assert!(job != 2, "silent"));
        assert_eq!(results.filter(Result::is_err).count(), 1);
        let uncaught = std::thread::spawn(|| panic!("still printed"));
        uncaught.join().unwrap_err();
        return;
    }
    let printed = child::assert_passed(&child::run("faults::caught_panics_print_nothing", ":"));
    assert!(!printed.contains("silent"), "{printed}");
    assert_eq!(printed.matches("still printed").count(), 1, "{printed}");
}

/// Fails or stalls at one image.
#[derive(Debug)]
struct Trap {
    image: usize,
    panics: bool,
    /// Whether the stall is over.
    open: Mutex<bool>,
    changed: Condvar,
}

impl Trap {
    fn new(image: usize, panics: bool) -> Arc<Self> {
        Arc::new(Self { image, panics, open: Mutex::new(false), changed: Condvar::new() })
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl FeatureLookup for Trap {
    fn known(&self, image: usize, _: u64) -> Option<ContentId> {
        if image == self.image {
            assert!(!self.panics, "trap");
            drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        }
        None
    }

    fn find(&self, _: usize, _: u64, _: &ContentHash) -> Result<(), ContentHash> {
        Err([0; 32])
    }
}

/// Options that run into a trap; the images and the number of threads depend on `seed`.
fn trapped(dir: &Path, seed: u64, panics: bool) -> (Arc<Trap>, LoaderOptions) {
    let dataset = write_dataset(dir, 12, 1, &[]);
    let mut options = options(dir, dataset, CaptionMode::All, 4, true);
    let trap = Trap::new((mix(seed, &[0]) % 12) as usize, panics);
    (options.num_steps, options.workers) = (6, 1 + (seed % 4) as usize);
    options.cached_features = Some(Arc::clone(&trap) as Arc<dyn FeatureLookup>);
    (trap, options)
}

#[test]
fn panics_name_image() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let (trap, options) = trapped(dir.path(), seed, true);
        let results: Vec<_> = within(Duration::from_secs(60), move || PairLoader::new(options).unwrap().collect());
        let (error, before) = results.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok) && before.len() < 3, "all images are in the first three steps");
        let message = error.as_ref().map(|batch| batch.step).unwrap_err().to_string();
        let start = format!(
            "a loader thread failed on image `{}`: trap (at ",
            dir.path().join(format!("{}.png", trap.image)).display()
        );
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn stalls_are_reported_and_pass() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let (trap, options) = trapped(dir.path(), seed, false);
        let expected: Vec<_> = {
            let options = LoaderOptions { cached_features: None, ..options.clone() };
            PairLoader::new(options).unwrap().map(|batch| batch.unwrap().pixels).collect()
        };
        let key = dir.path().join(format!("{}.png", trap.image)).display().to_string();
        let trapped_key = key.clone();
        let (batches, stalls) = within(Duration::from_secs(60), move || {
            let mut loader = PairLoader::new(options).unwrap().with_stall_after(Duration::from_millis(5));
            let (mut batches, mut stalls) = (Vec::new(), Vec::new());
            while let Some(loaded) = loader.next_or_stall() {
                match loaded.unwrap() {
                    Loaded::Batch(batch) => batches.push(*batch),
                    // A slow machine may report an image before the trap. The trap is reported more than once.
                    Loaded::Stalled(stall) => {
                        stalls.push(stall);
                        if stalls.iter().filter(|stall| stall.key == key).count() == 2 {
                            trap.open();
                        }
                    }
                }
            }
            (batches, stalls)
        });
        let pixels: Vec<_> = batches.into_iter().map(|batch| batch.pixels).collect();
        assert!(pixels == expected, "a stall changes nothing");
        assert!(stalls.iter().filter(|stall| stall.key == trapped_key).count() >= 2, "{stalls:?}");
    }
    let stall = Stall { key: "a.tar/b.jpg".to_owned(), elapsed: Duration::from_secs(61), others: 2 };
    assert_eq!(
        stall.to_string(),
        "image `a.tar/b.jpg` has been loading for 61 s, and 2 others about as long; the run waits: check the disk or \
         the network file system"
    );
}

#[test]
fn drop_leaves_stalled_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (trap, options) = trapped(dir.path(), 3, false);
    within(Duration::from_secs(60), move || {
        let mut loader = PairLoader::new(options).unwrap().with_stall_after(Duration::from_millis(5));
        while !matches!(loader.next_or_stall().unwrap().unwrap(), Loaded::Stalled(_)) {}
        drop(loader);
    });
    trap.open();
}
