//! `PairLoader` from its first batch to its last: order, resuming, unreadable images, dropping.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dualenc_data::{
    Augment, Batch, CaptionMode, ContentHash, ContentId, FeatureLookup, ImageRef, LoaderOptions, MicroBatches,
    PairLoader, Share, Tokenizer, Tokens, UnreadableImages, UnreadablePolicy, content_id, load_pixels,
};

use crate::limits::within;
use crate::support::{BAD_IMAGE, options, write_dataset};

fn all(options: LoaderOptions) -> Vec<Batch> {
    PairLoader::new(options).unwrap().map(Result::unwrap).collect()
}

fn assert_equal(a: &Batch, b: &Batch) {
    assert_eq!((a.step, a.epoch, &a.pairs, &a.tokens), (b.step, b.epoch, &b.pairs, &b.tokens));
    assert_eq!(a.pixels, b.pixels);
}

#[test]
fn batches_follow_plan() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 10, 2, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 8, true);
    options.num_steps = 5;
    let (plan, dataset, processor) = (options.plan, Arc::clone(&options.dataset), Arc::clone(&options.processor));
    let batches = all(options);
    assert_eq!(
        batches.iter().map(|batch| (batch.step, batch.epoch)).collect::<Vec<_>>(),
        [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    );
    assert!(batches[0].waited > Duration::ZERO, "the first batch takes time");
    for batch in &batches {
        let (epoch, step_in_epoch) = plan.locate(batch.step).unwrap();
        let expected = plan.batch(epoch, step_in_epoch);
        assert_eq!(batch.pairs.iter().map(|pair| pair.caption).collect::<Vec<_>>(), expected);
        let pixels = batch.pixels.to_values();
        assert_eq!((batch.pixels.len(), pixels.len()), (8, 8 * 3 * 16 * 16));
        for (pair, pixels) in batch.pairs.iter().zip(pixels.chunks_exact(3 * 16 * 16)) {
            assert_eq!(pixels, load_pixels(&dataset.image(pair.image), &processor).unwrap());
        }
        assert!(batch.tokens.ids.iter().all(|ids| ids[0] == 2 && *ids.last().unwrap() == 3), "{:?}", batch.tokens);
    }
}

#[test]
fn views_depend_on_epoch_only() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 8, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 8, false);
    options.num_steps = 2;
    let plain = all(options.clone());
    options.views = NonZeroU64::MAX;
    options.augment = Some(Augment { crop_scale: Some([0.3, 0.9]), flip: 0.5, ..Augment::default() });
    let whole = all(LoaderOptions { workers: 1, ..options.clone() });
    assert_eq!(plain[0].pixels, plain[1].pixels);
    assert_ne!(whole[0].pixels, plain[0].pixels);
    assert_ne!(whole[0].pixels, whole[1].pixels);
    assert_eq!(whole[0].pixels.len(), plain[0].pixels.len());
    let resumed = all(LoaderOptions { workers: 4, start_step: 1, num_steps: 1, ..options });
    assert_equal(&resumed[0], &whole[1]);
}

#[test]
fn word_dropout_is_reproducible() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 8, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 8, false);
    options.num_steps = 3;
    let plain = all(options.clone());
    let tokenizer = Arc::new(Tokenizer::from_dir(dir.path(), 8).unwrap());
    options.tokens = Tokens::prepare(tokenizer, &options.dataset, 0.4, 2).unwrap();
    let whole = all(LoaderOptions { workers: 1, ..options.clone() });
    let length = |batch: &Batch| batch.tokens.ids.iter().map(Vec::len).sum::<usize>();
    assert!(length(&whole[0]) < length(&plain[0]), "{:?}", whole[0].tokens);
    assert_ne!(whole[0].tokens, whole[1].tokens);
    // Special tokens are never dropped, and at least one token remains between them.
    assert!(
        whole.iter().flat_map(|batch| &batch.tokens.ids).all(|ids| ids.len() > 2 && ids[0] == 2 && ids.ends_with(&[3]))
    );
    let resumed = all(LoaderOptions { workers: 4, start_step: 1, num_steps: 2, ..options.clone() });
    resumed.iter().zip(&whole[1..]).for_each(|(resumed, whole)| assert_equal(resumed, whole));
    options.plan.seed += 1;
    assert_ne!(all(options)[0].tokens, whole[0].tokens);
}

#[test]
fn resumes_at_any_step() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 12, 3, &[3, 7]);
    for (mode, shuffle) in [(CaptionMode::All, true), (CaptionMode::One, true), (CaptionMode::One, false)] {
        let mut options = options(dir.path(), dataset.clone(), mode, 5, shuffle);
        options.num_steps = 9;
        let whole = all(LoaderOptions { unreadable_images: UnreadableImages::default(), ..options.clone() });
        assert_eq!(whole.len(), 9);
        for start in 1..9 {
            for workers in [1, 4] {
                let resumed = LoaderOptions {
                    start_step: start,
                    num_steps: 9 - start,
                    workers,
                    unreadable_images: UnreadableImages::default(),
                    ..options.clone()
                };
                for (batch, expected) in all(resumed).iter().zip(&whole[start as usize..]) {
                    assert_equal(batch, expected);
                }
            }
        }
    }
}

#[test]
fn replaces_unreadable_images() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 20, 1, &[4, 5, 19]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 5, false);
    options.num_steps = 8;
    let loaded = all(options.clone());
    let images: Vec<usize> = loaded[..4].iter().flat_map(|batch| batch.pairs.iter().map(|pair| pair.image)).collect();
    let expected: Vec<usize> = (0..20)
        .map(|i| match i {
            4 | 5 => 6,
            19 => 0,
            i => i,
        })
        .collect();
    assert_eq!(images, expected);
    let skipped: Vec<_> =
        loaded.iter().flat_map(|batch| batch.skipped.iter().map(move |it| (batch.step, it.image))).collect();
    assert_eq!(skipped, [(0, 4), (0, 5), (3, 19)]);
    let reasons = options.unreadable_images.list();
    assert!(reasons[0].key.ends_with("/4.png") && reasons[0].reason.contains("looks like an HTML page"), "{reasons:?}");

    let cache = Arc::new(EvenImages::default());
    let cached = all(LoaderOptions {
        cached_features: Some(cache.clone()),
        unreadable_images: UnreadableImages::default(),
        ..options
    });
    for (cached, loaded) in cached.iter().zip(&loaded) {
        assert_eq!((&cached.pairs, &cached.tokens, &cached.skipped), (&loaded.pairs, &loaded.tokens, &loaded.skipped));
        assert_eq!(cached.contents, loaded.contents);
        let pairs: Vec<usize> = (0..5).filter(|&pair| cached.pairs[pair].image % 2 == 1).collect();
        assert_eq!(cached.loaded.iter().map(|it| it.pair).collect::<Vec<_>>(), pairs);
        assert_eq!(cached.pixels.to_values(), loaded.pixels.values_of(pairs.into_iter()));
    }
    // Image 6 replaces 4 and 5 in the first epoch; once it is known to be cached, it is not read again.
    let found = cache.found.lock().unwrap().clone();
    assert!(found.len() < 20, "{found:?}");
}

/// A cache with the features of every even image.
#[derive(Debug, Default)]
struct EvenImages {
    found: Mutex<Vec<(usize, ContentId)>>,
}

impl FeatureLookup for EvenImages {
    fn known(&self, image: usize, _: u64) -> Option<ContentId> {
        self.found.lock().unwrap().iter().find(|(found, _)| *found == image).map(|(_, content)| *content)
    }

    fn find(&self, image: usize, _: u64, content: &ContentHash) -> Result<(), ContentHash> {
        // Features are computed only from images that can be decoded.
        if image % 2 == 1 || *content == *blake3::hash(BAD_IMAGE).as_bytes() {
            return Err([image as u8; 32]);
        }
        self.found.lock().unwrap().push((image, content_id(content)));
        Ok(())
    }
}

#[test]
fn views_cycle_by_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 6, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 3, true);
    options.num_steps = 8;
    let views = |options: &LoaderOptions| all(options.clone()).iter().map(|batch| batch.view).collect::<Vec<_>>();
    assert_eq!(views(&options), [0; 8]);
    options.views = 3.try_into().unwrap();
    assert_eq!(views(&options), [0, 0, 1, 1, 2, 2, 0, 0]);
    (options.start_step, options.num_steps) = (5, 2);
    assert_eq!(views(&options), [2, 0], "resumed");
}

#[test]
fn too_many_unreadable_images() {
    let dir = tempfile::tempdir().unwrap();
    let bad: Vec<u32> = (0..40).filter(|i| i % 3 == 0).collect();
    let dataset = write_dataset(dir.path(), 40, 1, &bad);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 4, false);
    options.num_steps = 10;
    options.unreadable_policy = UnreadablePolicy { max_bad_fraction: 0.1 };
    let results: Vec<_> = PairLoader::new(options.clone()).unwrap().collect();
    let error = results.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(results[..results.len() - 1].iter().all(Result::is_ok));
    // Image 12 is the fifth bad one, in the fourth batch.
    assert_eq!(results.len(), 4, "{error}");
    let start =
        "at least 5 of 40 images cannot be used, more than `data.max_bad_fraction` = 0.1 allows: not an image (5)
  ";
    assert!(error.starts_with(start), "{error}");
    let first = "/0.png: not a jpeg, png, webp, gif, bmp, tiff, qoi or pnm: looks like an HTML page";
    assert!(error.contains(first), "{error}");
    assert!(error.ends_with("or raise `data.max_bad_fraction`"), "{error}");

    // If every image is unreadable, loading fails even if the policy allows it.
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 6, 1, &[0, 1, 2, 3, 4, 5]);
    let mut options = crate::support::options(dir.path(), dataset, CaptionMode::All, 2, true);
    (options.num_steps, options.unreadable_policy.max_bad_fraction) = (3, 1.0);
    let error = PairLoader::new(options).unwrap().find_map(Result::err).unwrap().to_string();
    assert_eq!(error, "loader: none of the 6 images can be used");
}

#[test]
fn missing_images_are_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 8, 1, &[]);
    std::fs::remove_file(dir.path().join("2.png")).unwrap();
    let mut options = options(dir.path(), dataset, CaptionMode::All, 4, false);
    options.num_steps = 2;
    let batches = all(options);
    assert_eq!(batches[0].pairs[2].image, 3);
    assert!(batches[0].skipped[0].reason.contains("cannot be read: No such file"), "{:?}", batches[0].skipped);
}

#[test]
fn rejects_impossible_plans() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 4, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 8, true);
    options.num_steps = 1;
    let error = PairLoader::new(options.clone()).unwrap_err().to_string();
    assert_eq!(error, "loader: 4 pairs do not fill one batch of 8; lower `train.batch_size` or add data");
    options.plan.len = 3;
    assert!(PairLoader::new(options).unwrap_err().to_string().contains("the plan is for 3 pairs, the data set has 4"));
}

#[test]
fn drop_stops_load() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 30, 1, &[]);
    let mut options = options(dir.path(), dataset, CaptionMode::All, 10, true);
    options.num_steps = 1_000_000;
    let dataset = Arc::downgrade(&options.dataset);
    let mut loader = PairLoader::new(options).unwrap();
    assert!(loader.next().unwrap().is_ok());
    within(Duration::from_secs(60), move || drop(loader));
    assert!(dataset.upgrade().is_none(), "a thread still holds the data set");
}

#[test]
fn tar_entries_equal_files() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 5, 1, &[]);
    let mut tar = tar::Builder::new(std::fs::File::create(dir.path().join("s.tar")).unwrap());
    for (i, image) in dataset.images().enumerate() {
        let caption = dataset.caption(i).text.as_bytes();
        for (name, bytes) in [(format!("{i}.png"), image.read().unwrap()), (format!("{i}.txt"), caption.to_vec())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
    }
    tar.finish().unwrap();
    let shard = dualenc_data::WebdatasetSource::new(dir.path().join("s.tar")).read().unwrap();
    assert!(matches!(shard.image(0), ImageRef::TarEntry { .. }));
    let load = |dataset| {
        let mut options = options(dir.path(), dataset, CaptionMode::All, 5, true);
        options.num_steps = 2;
        all(options)
    };
    for (a, b) in load(shard).iter().zip(&load(dataset)) {
        assert_equal(a, b);
    }
}

#[test]
fn micro_batches_equal_step() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 12, 2, &[3, 7]);
    // 24 pairs: two steps of 10 and a last one of 4.
    let mut options = options(dir.path(), dataset, CaptionMode::All, 10, false);
    options.num_steps = 4;
    let fresh =
        |options: &LoaderOptions| LoaderOptions { unreadable_images: UnreadableImages::default(), ..options.clone() };
    let whole = all(fresh(&options));
    for two_passes in [false, true] {
        options.micro_batches = MicroBatches { size: NonZeroUsize::new(4), two_passes, share: Share::default() };
        let parts = all(fresh(&options));
        let lengths: Vec<usize> = parts.iter().map(|part| part.pairs.len()).collect();
        let expected = [vec![4, 4, 2], vec![4, 4, 2], vec![4], vec![4, 4, 2]];
        assert_eq!(
            lengths,
            expected.map(|step| if two_passes && step.len() > 1 { step.repeat(2) } else { step }).concat()
        );
        let mut parts = parts.into_iter();
        for step in &whole {
            for pass in 0..if two_passes && step.pairs.len() > 4 { 2 } else { 1 } {
                let mut joined = Batch { step: step.step, epoch: step.epoch, view: step.view, ..Batch::default() };
                let mut pixels = Vec::new();
                for n in 0.. {
                    let part = parts.next().unwrap();
                    assert_eq!((part.step, part.part), (step.step, n));
                    joined.pairs.extend(part.pairs);
                    pixels.extend(part.pixels.into_values());
                    joined.skipped.extend(part.skipped);
                    part.tokens.ids.into_iter().zip(part.tokens.type_ids).for_each(|(ids, type_ids)| {
                        joined.tokens.ids.push(ids);
                        joined.tokens.type_ids.push(type_ids);
                    });
                    if part.is_last_of_pass {
                        break;
                    }
                }
                assert_eq!(joined.pairs, step.pairs);
                assert_eq!(pixels, step.pixels.to_values());
                assert_eq!(joined.tokens, step.tokens);
                // Reported once.
                let skipped = if pass == 0 { step.skipped.as_slice() } else { &[] };
                assert_eq!(joined.skipped, skipped);
            }
        }
        assert!(parts.next().is_none());
    }
}

#[test]
fn ranks_share_micro_batches() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = write_dataset(dir.path(), 12, 2, &[3, 7]);
    // Two steps of 10 pairs and a last one of 4: 5, 5 and 2 parts.
    let mut options = options(dir.path(), dataset, CaptionMode::All, 10, false);
    options.num_steps = 3;
    for two_passes in [false, true] {
        let load = |rank, ranks| {
            let share = Share { rank, ranks };
            let micro_batches = MicroBatches { size: NonZeroUsize::new(2), two_passes, share };
            all(LoaderOptions { micro_batches, unreadable_images: UnreadableImages::default(), ..options.clone() })
        };
        let whole = load(0, 1);
        let shares = [load(0, 2), load(1, 2)];
        assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), whole.len());
        let mut rest = shares.map(Vec::into_iter);
        let passes = if two_passes { 2 } else { 1 };
        let mut expected = whole.into_iter();
        for (step, parts) in [[0, 1, 2, 3, 4].as_slice(), &[0, 1, 2, 3, 4], &[0, 1]].iter().enumerate() {
            for _ in 0..passes {
                // The first half has the odd part.
                let first = parts.len().div_ceil(2);
                for (at, part) in parts.iter().enumerate() {
                    let found = rest[usize::from(at >= first)].next().unwrap();
                    let expected = expected.next().unwrap();
                    assert_eq!((found.step, found.part), (step as u64, *part));
                    assert_equal(&found, &expected);
                    assert_eq!(found.is_last_of_pass, at + 1 == first || at + 1 == parts.len());
                }
            }
        }
        assert!(rest.iter_mut().all(|rest| rest.next().is_none()));
    }
}
