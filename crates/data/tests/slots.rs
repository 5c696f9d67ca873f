//! Several captions of an image in one pair: what a batch holds, and which weights its source has.

use std::num::NonZeroUsize;
use std::path::Path;

use dualenc_data::{
    Batch, CaptionMode, CaptionSlots, Dataset, LoaderOptions, MicroBatches, PairLoader, SourceTable, Tokenizer, Tokens,
    UnreadableImages,
};

use crate::support::{options, write_dataset};

fn all(options: &LoaderOptions) -> Vec<Batch> {
    let options = LoaderOptions { unreadable_images: UnreadableImages::default(), ..options.clone() };
    PairLoader::new(options).unwrap().map(Result::unwrap).collect()
}

/// Twelve images with `captions` captions each, two of them unreadable, in batches of 5 with three captions a pair.
fn slot_options(dir: &Path, captions: u32) -> LoaderOptions {
    let dataset = write_dataset(dir, 12, captions, &[3, 7]);
    let mut options = options(dir, dataset, CaptionMode::Slots, 5, true);
    options.slots = CaptionSlots { count: 3, pin_first: false };
    options.num_steps = 6;
    options
}

#[test]
fn batch_holds_all_captions() {
    let dir = tempfile::tempdir().unwrap();
    let options = slot_options(dir.path(), 4);
    let dataset = &options.dataset;
    assert_eq!(dataset.num_pairs(CaptionMode::Slots), 12);
    let batches = all(&options);
    assert_eq!(batches.len(), 6);
    for batch in &batches {
        assert_eq!((batch.slots(), batch.captions.len(), batch.tokens.ids.len()), (3, 15, 15));
        for (pair, captions) in batch.pairs.iter().zip(batch.captions.chunks(3)) {
            assert_eq!(captions[0], pair.caption);
            assert!(captions.iter().all(|&caption| dataset.caption(caption).image == pair.image));
            assert!(captions[0] != captions[1] && captions[1] != captions[2] && captions[0] != captions[2]);
        }
        for (&caption, ids) in batch.captions.iter().zip(&batch.tokens.ids) {
            assert_eq!(*ids, options.tokens.encode(dataset, caption, 0, 0).unwrap().ids);
        }
    }
    let one = LoaderOptions { mode: CaptionMode::One, ..options };
    assert!(all(&one).iter().all(|batch| batch.slots() == 1 && batch.captions.len() == 5));
    assert_eq!(Batch::default().slots(), 1);
}

#[test]
fn slots_resume_at_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let options = slot_options(dir.path(), 3);
    let parts = |batch: &Batch| (batch.step, batch.pairs.clone(), batch.captions.clone(), batch.tokens.clone());
    let whole: Vec<_> = all(&options).iter().map(parts).collect();
    for start in 1..6 {
        let workers = 1 + start as usize % 4;
        let resumed = LoaderOptions { start_step: start, num_steps: 6 - start, workers, ..options.clone() };
        assert_eq!(all(&resumed).iter().map(parts).collect::<Vec<_>>(), whole[start as usize..]);
    }
    let micro_batches = MicroBatches { size: NonZeroUsize::new(2), ..MicroBatches::default() };
    let in_parts = all(&LoaderOptions { micro_batches, ..options });
    assert_eq!(in_parts.len(), 18);
    let join = |captions: fn(&Batch) -> Vec<usize>| in_parts.iter().flat_map(captions).collect::<Vec<_>>();
    let expected: Vec<usize> = whole.iter().flat_map(|(_, _, captions, _)| captions.clone()).collect();
    assert_eq!(join(|batch| batch.captions.clone()), expected);
}

#[test]
fn repeated_captions_drop_other_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = slot_options(dir.path(), 1);
    let same = |batch: &Batch| batch.tokens.ids.chunks(3).filter(|ids| ids[0] == ids[1]).count();
    assert!(all(&options).iter().all(|batch| same(batch) == 5), "one caption fills all slots");
    let tokenizer = std::sync::Arc::new(Tokenizer::from_dir(dir.path(), 8).unwrap());
    options.tokens = Tokens::prepare(tokenizer, &options.dataset, 0.5, 1).unwrap();
    let batches = all(&options);
    assert!(batches.iter().map(same).sum::<usize>() < 15, "30 pairs drop half of five words");
    assert_eq!(batches[2].tokens, all(&options)[2].tokens);
}

/// How often each caption of the first image is the first of a sample, of 2,000.
fn first_captions(dataset: &Dataset) -> Vec<f64> {
    let mut counts = vec![0.0; dataset.captions_of(0).len()];
    for epoch in 0..2000 {
        let slots = CaptionSlots { count: 2, pin_first: false };
        let (pair, more) = dataset.sample(CaptionMode::Slots, slots, 0, 1, epoch);
        assert_ne!(pair.caption, more[0]);
        let place = dataset.captions_of(0).iter().position(|&caption| caption as usize == pair.caption);
        counts[place.unwrap()] += 1.0 / 2000.0;
    }
    counts
}

#[test]
fn weights_are_of_columns_entries_or_rows() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("0.png", "");
    write("columns.csv", "image,raw,long\n0.png,a,a b\n");
    write("rows.csv", "image,caption\n0.png,a\n0.png,b\n0.png,c\n");
    write("list.jsonl", r#"{"image": "0.png", "caption": ["a", "b", "c"]}"#);
    write("lists.jsonl", r#"{"image": "0.png", "raw": ["a", "b"], "long": "a b c"}"#);
    let read = |text: &str| {
        let mut table: SourceTable = toml::from_str(text).unwrap();
        table.resolve(dir.path());
        table.read().unwrap()
    };
    let cases: [(&str, &[f64]); 4] = [
        ("csv = { path = 'columns.csv', captions = ['raw', 'long'] }\ncaption_weights = [1, 3]", &[0.25, 0.75]),
        // Without columns, the weights are those of entries of a list or of rows; the last goes on.
        ("csv.path = 'rows.csv'\ncaption_weights = [2, 1]", &[0.5, 0.25, 0.25]),
        ("jsonl.path = 'list.jsonl'\ncaption_weights = [2, 1]", &[0.5, 0.25, 0.25]),
        // Each caption of a list has the weight of its column.
        ("jsonl = { path = 'lists.jsonl', captions = ['raw', 'long'] }\ncaption_weights = [1, 2]", &[0.25, 0.25, 0.5]),
    ];
    for (text, expected) in cases {
        let dataset = read(text);
        let found = first_captions(&dataset);
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.05);
        assert!(near && found.len() == expected.len(), "{text}: {found:?}");
        let plain = read(text.split('\n').next().unwrap());
        assert_ne!(dataset.fingerprint().unwrap(), plain.fingerprint().unwrap());
    }
    let by_place = read("csv.path = 'rows.csv'\ncaption_weights = [2, 1]");
    let by_column = read("csv.path = 'rows.csv'").with_use(1.0, &[2.0, 1.0], &[]);
    assert_ne!(by_place.fingerprint().unwrap(), by_column.fingerprint().unwrap());
}
