//! What a large data set costs: memory and time of its tables in memory and in an index, and of reading its shards in
//! the order of an epoch. Each command prints a line of figures; `docs/DATA.md` has some.
//!
//! ```sh
//! alias large='cargo run --release --package dualenc-data --example large_data --'
//! large generate DIR 2000000 100      # pairs, and bytes of an image; 10,000 pairs a shard
//! large memory DIR                    # the tables in memory, as without `data.index_dir`
//! large write DIR INDEX               # writes an index
//! large open DIR INDEX                # opens it, and looks at 100,000 samples in the order of an epoch
//! large load DIR INDEX 200 65536      # reads 200 batches of 256 images, in windows of 65,536; 0: none
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement that a developer runs")]

use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dualenc_data::{
    BatchPlan, CaptionMode, ContentHash, ContentId, Dataset, FeatureLookup, FoundIndex, INDEX_MANIFEST, ImageProcessor,
    IndexFile, IndexFiles, LoaderOptions, PairLoader, ShardWriter, Source, SourceTable, Tokens, UnreadableImages,
    UnreadablePolicy, WebdatasetSource, mix, open_index, write_index,
};

const PAIRS_PER_SHARD: usize = 10_000;

const WORDS: [&str; 16] = [
    "a", "photo", "of", "the", "red", "house", "near", "river", "two", "people", "walking", "dog", "under", "blue",
    "evening", "sky",
];

#[derive(Debug)]
struct Folder(PathBuf);

struct Column(BufWriter<File>);

impl IndexFiles for Folder {
    fn dir(&self) -> &Path {
        &self.0
    }

    fn create(&self, name: &str) -> Result<Box<dyn IndexFile>> {
        Ok(Box::new(Column(BufWriter::new(File::create(self.0.join(name))?))))
    }
}

impl Write for Column {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

impl IndexFile for Column {
    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}

/// A cache that knows no image before it is read and all after it, so that none is decoded.
#[derive(Debug)]
struct NoDecoding;

impl FeatureLookup for NoDecoding {
    fn known(&self, _: usize, _: u64) -> Option<ContentId> {
        None
    }

    fn find(&self, _: usize, _: u64, _: &ContentHash) -> std::result::Result<(), ContentHash> {
        Ok(())
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments[at].parse::<usize>().unwrap();
    let (command, dir) = (arguments[0].as_str(), Path::new(&arguments[1]));
    let table = SourceTable::from(Source::Webdataset(WebdatasetSource::new(dir)));
    let start = Instant::now();
    match command {
        "generate" => generate(dir, number(2), number(3)),
        "memory" => report(&table.read().unwrap(), start),
        "write" => {
            let index = PathBuf::from(&arguments[2]);
            fs::create_dir_all(&index).unwrap();
            let manifest = write_index(&[("data".to_owned(), &table)], 0.0, &Folder(index.clone())).unwrap();
            fs::write(index.join(INDEX_MANIFEST), manifest).unwrap();
            println!("written in {:.1} s; {}", start.elapsed().as_secs_f64(), memory());
        }
        "open" => report(&open(&arguments[2], &table), start),
        "load" => load(open(&arguments[2], &table), number(3) as u64, number(4)),
        other => panic!("no command `{other}`"),
    }
}

fn open(index: &str, table: &SourceTable) -> Dataset {
    match open_index(Path::new(index), &[table]).unwrap() {
        FoundIndex::Whole(dataset, _) => *dataset,
        other => panic!("{other:?}"),
    }
}

fn generate(dir: &Path, pairs: usize, image_bytes: usize) {
    fs::create_dir_all(dir).unwrap();
    for (number, start) in (0..pairs).step_by(PAIRS_PER_SHARD).enumerate() {
        let file = BufWriter::with_capacity(1 << 20, File::create(dir.join(format!("{number:05}.tar"))).unwrap());
        let mut shard = ShardWriter::new(file);
        for pair in start..pairs.min(start + PAIRS_PER_SHARD) {
            let draw = |word: usize| mix(7, &[pair as u64, word as u64]);
            let image: Vec<u8> = (0..image_bytes.div_ceil(8)).flat_map(|at| draw(at).to_le_bytes()).collect();
            let words: Vec<&str> = (0..12).map(|word| WORDS[(draw(word) % 16) as usize]).collect();
            shard.add(&format!("{pair:09}.jpg"), &image).unwrap();
            shard.add(&format!("{pair:09}.txt"), format!("{} {pair}", words.join(" ")).as_bytes()).unwrap();
        }
        shard.finish().unwrap().flush().unwrap();
    }
}

fn report(dataset: &Dataset, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let opened = memory();
    let started = Instant::now();
    dataset.survey().unwrap();
    let surveyed = started.elapsed().as_secs_f64();
    let pairs = dataset.num_pairs(CaptionMode::All);
    let plan = BatchPlan { seed: 1, batch_size: 1000, len: pairs, shuffle: true, window: None };
    let samples = (0..100).flat_map(|step| plan.batch(0, step));
    let bytes: usize = samples.map(|it| dataset.image(it).key().len() + dataset.caption(it).text.len()).sum();
    println!(
        "{pairs} pairs in {seconds:.2} s, fingerprint in {surveyed:.2} s; opened: {opened}; after 100,000 samples \
         ({bytes} bytes): {}",
        memory()
    );
}

fn load(dataset: Dataset, steps: u64, window: usize) {
    let len = dataset.num_pairs(CaptionMode::All);
    let window = (window > 0).then_some(window);
    let options = LoaderOptions {
        plan: BatchPlan { seed: 1, batch_size: 256, len, shuffle: true, window },
        dataset: Arc::new(dataset),
        mode: CaptionMode::All,
        slots: Default::default(),
        start_step: 0,
        num_steps: steps,
        micro_batches: Default::default(),
        processor: Arc::new(ImageProcessor::standard("vit", Some(8))),
        augment: None,
        views: NonZeroU64::MIN,
        cached_features: Some(Arc::new(NoDecoding)),
        tokens: Tokens::Absent,
        unreadable_policy: UnreadablePolicy { max_bad_fraction: 0.0 },
        unreadable_images: UnreadableImages::default(),
        workers: 4,
    };
    let (start, before) = (Instant::now(), read_bytes());
    let images: usize = PairLoader::new(options).unwrap().map(|batch| batch.unwrap().pairs.len()).sum();
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = (read_bytes() - before) as f64 / 1e6;
    println!("{images} images in {seconds:.1} s: {:.0} a second; {megabytes:.0} MB from disk", images as f64 / seconds);
}

/// The memory of this process: all that it holds, and of that what is its own and what is mapped files.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("? kB").trim();
        format!("{} MB", line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1000)
    };
    format!("peak {}, own {}, files {}", of("VmHWM:"), of("RssAnon:"), of("RssFile:"))
}

/// Bytes that this process had the disk read.
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok()).unwrap_or(0)
}
