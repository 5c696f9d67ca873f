//! `dualenc data pack`: the training data as WebDataset shards, or as a folder of images with a table.
//!
//! This file has [`pack`], which goes through the images. The others:
//! - `request`: what to write
//! - `sample`: an image with its captions as bytes
//! - `target`: writes samples, as shards or as files
//! - `manifest`: what a directory holds, so that an interrupted command goes on

pub(crate) mod manifest;
pub(crate) mod request;
mod sample;
mod target;

use std::fs;
use std::sync::Arc;

use dualenc_data::{Dataset, counted, ordered_map};
use serde_json::Value;

use crate::commands::pack::manifest::{Chunk, Manifest};
use crate::commands::pack::request::{PackRequest, Packed};
use crate::commands::pack::sample::{BadSample, read_sample};
use crate::commands::pack::target::{Target, chunk_name};
use crate::config::{RunConfig, Task};
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::pairs::{Pairs, read_eval_data};
use crate::run_dir::bad_samples::row_line;
use crate::stop_flag::StopFlag;

/// Samples in progress per thread.
const QUEUE_PER_WORKER: usize = 4;

/// Bad images that an error names.
const NAMED: usize = 10;

/// Writes the pairs that `config` trains on, or those of an evaluation, to `request.out`: every image once, with its
/// captions, in order. Equal data give equal bytes. A directory that an interrupted command left is completed.
///
/// # Errors
/// [`TrainError::Usage`] when the directory holds something else, the data cannot be packed, or more images are bad
/// than `data.max_bad_fraction` allows; [`TrainError::Data`] when the data cannot be read; [`TrainError::Write`] when a
/// file cannot be written, which leaves complete shards in place; [`TrainError::Stopped`] when `stop` is set.
pub fn pack(
    config: &RunConfig,
    request: &PackRequest,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Packed, TrainError> {
    let dataset = select(config, request, observer)?;
    let fingerprint = blake3::Hash::from(dataset.fingerprint()?).to_hex().to_string();
    let mut manifest =
        Manifest::open(&request.out, &fingerprint, (request, &config.image_limits()), dataset.num_images())?;
    let resumed = manifest.next_image();
    if manifest.complete {
        observer.on(Event::Note(format!("`{}` is complete: nothing was written", request.out.display())));
    } else {
        fs::create_dir_all(&request.out).map_err(TrainError::write(&request.out))?;
        if resumed > 0 {
            let (done, all) = (resumed, dataset.num_images());
            observer.on(Event::Note(format!("going on after {done} of {all} images that are packed already")));
        }
        manifest.save(&request.out)?;
        let mut packer = Packer { config, request, dataset: &dataset, bad: Vec::new(), manifest: &mut manifest };
        packer.restore_bad()?;
        packer.run(stop, observer)?;
    }
    let chunks = &manifest.chunks;
    Ok(Packed {
        images: chunks.iter().map(|chunk| chunk.samples).sum(),
        captions: chunks.iter().map(|chunk| chunk.captions).sum(),
        bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        shards: chunks.iter().filter(|chunk| chunk.samples > 0).count(),
        bad: manifest.bad(),
        skipped_rows: dataset.skipped.count,
    })
}

/// Refuses features, which are not images.
fn check_pixels(dataset: &Dataset) -> Result<(), TrainError> {
    if dataset.image_feature_width().is_none() && dataset.text_feature_width().is_none() {
        return Ok(());
    }
    Err(TrainError::Usage(
        "the data are features, which shards of images cannot hold; train on them as they are".to_owned(),
    ))
}

/// The pairs to pack.
fn select(config: &RunConfig, request: &PackRequest, observer: &mut dyn Observer) -> Result<Arc<Dataset>, TrainError> {
    if let Some(name) = &request.eval {
        let Some(section) = config.eval.get(name) else {
            let names: Vec<String> = config.eval.keys().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(TrainError::Usage(format!("there is no evaluation `{name}`; those of the config: {names}")));
        };
        if matches!(section.task, Task::ZeroShot | Task::Knn | Task::LinearProbe) {
            return Err(TrainError::Usage(format!(
                "evaluation `{name}` reads a folder of classes, which has no captions to pack; copy the folder"
            )));
        }
        let validation = if section.data.is_none() { Pairs::read(config)?.validation } else { None };
        let dataset = read_eval_data(name, section.data.as_ref(), validation.as_ref())?;
        check_pixels(&dataset)?;
        return Ok(dataset);
    }
    let Pairs { train, validation } = Pairs::read(config)?;
    let dataset = match request.source {
        None => train,
        Some(number) => {
            let sources = train.parts().len();
            let Some(part) = train.parts().get(number) else {
                return Err(TrainError::Usage(format!(
                    "there is no source {number}; the config has {sources}, numbered from 0"
                )));
            };
            let images = part.images.clone();
            Arc::new(train.filter(|image| images.contains(&image)))
        }
    };
    check_pixels(&dataset)?;
    check_use(&dataset, request, observer)?;
    if let Some(validation) = validation {
        let images = counted(validation.num_images(), "image");
        observer.on(Event::Note(format!(
            "{images} held out by `data.validation_fraction` are not packed; pack them with `--eval NAME`, and train \
             on the shards without that key"
        )));
    }
    let others: Vec<String> = config.eval.keys().map(|name| format!("`{name}`")).collect();
    if !others.is_empty() {
        let names = others.join(", ");
        observer.on(Event::Note(format!("the data of evaluations are not packed: {names}; use `--eval NAME`")));
    }
    Ok(dataset)
}

/// Shards hold pairs, and nothing about how they are used.
fn check_use(dataset: &Dataset, request: &PackRequest, observer: &mut dyn Observer) -> Result<(), TrainError> {
    let parts: Vec<_> = dataset.parts().iter().filter(|part| !part.images.is_empty()).collect();
    let is_used_alike = |part: &&dualenc_data::Part| {
        let of = |part: &dualenc_data::Part| {
            (part.weight, part.templates.clone(), part.caption_weights.clone(), part.weights_by_place)
        };
        of(part) == of(parts[0])
    };
    if request.source.is_none() && !parts.iter().all(is_used_alike) {
        return Err(TrainError::Usage(format!(
            "the {} sources of `data.train` have different weights or templates, which shards cannot hold; pack each \
             into a directory of its own with `--source N`, from 0",
            parts.len()
        )));
    }
    let Some(part) = parts.first() else { return Ok(()) };
    // The lines of a shard have places, and no columns.
    let has_places = part.weights_by_place || has_columns_in_order(dataset);
    let kept = [
        ("weight", part.weight != 1.0),
        ("templates", !part.templates.is_empty()),
        ("caption_weights", !part.caption_weights.is_empty() && has_places),
    ];
    let kept: Vec<String> = kept.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| format!("`{key}`")).collect();
    if !kept.is_empty() {
        let keys = kept.join(", ");
        observer.on(Event::Note(format!("not part of the shards, so set it for them again: {keys}")));
    }
    if !has_places && (!part.caption_weights.is_empty() || dataset.captions().any(|caption| caption.slot > 0)) {
        let text = "the shards have all captions of an image as lines, and not the columns that they come from, which \
                    images lack or have several captions of: there, `caption_weights` would count lines";
        observer.on(Event::Warning(text.to_owned()));
    }
    Ok(())
}

/// Whether every image has one caption of each column, in order: the places of its captions are then the columns.
fn has_columns_in_order(dataset: &Dataset) -> bool {
    let columns = dataset.captions().map(|caption| caption.slot).max().unwrap_or(0);
    let is_row = |image: usize| {
        dataset.captions_of(image).iter().map(|&caption| dataset.caption(caption as usize).slot).eq(0..=columns)
    };
    columns > 0 && (0..dataset.num_images()).all(is_row)
}

/// Goes through the images of a data set.
struct Packer<'a> {
    config: &'a RunConfig,
    request: &'a PackRequest,
    dataset: &'a Arc<Dataset>,
    bad: Vec<BadSample>,
    manifest: &'a mut Manifest,
}

impl Packer<'_> {
    fn run(&mut self, stop: &StopFlag, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let (start, total) = (self.manifest.next_image(), self.dataset.num_images());
        let workers = self.config.data.workers.unwrap_or_else(rayon::current_num_threads).max(1);
        let (dataset, limits) = (Arc::clone(self.dataset), self.config.image_limits());
        let recode = self.request.recode;
        let read = move |image: usize| read_sample(&dataset, image, recode, &limits);
        let mut samples = ordered_map(start..total, workers, workers * QUEUE_PER_WORKER, read).peekable();
        let mut next = start;
        let mut target = Target::new(self.request);
        while next < total {
            let number = self.manifest.chunks.len();
            let (mut chunk, first) = (Chunk { name: chunk_name(number), ..Chunk::default() }, next);
            target.begin(number)?;
            // An image that does not fit waits for the next chunk.
            while let Some(sample) = samples.next_if(|sample| match sample {
                Ok(Ok(Ok(sample))) => self.request.has_room(chunk.samples, chunk.bytes, sample.entry_bytes()),
                _ => true,
            }) {
                match sample?? {
                    Ok(sample) => {
                        target.add(next, &sample)?;
                        chunk.samples += 1;
                        chunk.captions += sample.captions.len();
                        chunk.bytes += sample.entry_bytes();
                    }
                    Err(bad) => {
                        chunk.bad += 1;
                        self.bad.push(bad);
                        self.check_bad()?;
                    }
                }
                next += 1;
                observer.on(Event::Work { name: "images", done: next, total });
                if let Some(signal) = stop.signal() {
                    return Err(TrainError::Stopped { signal });
                }
            }
            (chunk.first_image, chunk.next_image) = (first, next);
            self.commit(&mut target, chunk)?;
        }
        target.finish(self.dataset, &self.bad)?;
        self.manifest.complete = true;
        self.save()
    }

    /// Makes a chunk visible, and records it.
    fn commit(&mut self, target: &mut Target<'_>, mut chunk: Chunk) -> Result<(), TrainError> {
        if let Some(bytes) = target.commit(chunk.samples > 0)? {
            chunk.bytes = bytes;
        }
        self.manifest.chunks.push(chunk);
        self.save()
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let rows = self.dataset.skipped.rows.iter().map(row_line);
        let lines: Vec<Value> = rows.chain(self.bad.iter().map(BadSample::to_json)).collect();
        manifest::save_bad(&self.request.out, &lines)?;
        self.manifest.save(&self.request.out)
    }

    /// The bad images that an interrupted command found in the chunks that it completed.
    fn restore_bad(&mut self) -> Result<(), TrainError> {
        let next = self.manifest.next_image();
        let lines = manifest::load_bad(&self.request.out)?;
        self.bad = lines.iter().filter_map(BadSample::from_json).filter(|bad| bad.image < next).collect();
        if self.bad.len() != self.manifest.bad() {
            return Err(TrainError::Usage(format!(
                "`{}` lists {} bad images, but its manifest counts {}: it has been changed; choose a new directory",
                self.request.out.join(manifest::BAD_SAMPLES).display(),
                self.bad.len(),
                self.manifest.bad()
            )));
        }
        Ok(())
    }

    /// Refuses more bad images than a run tolerates.
    fn check_bad(&self) -> Result<(), TrainError> {
        let (bad, total, limit) = (self.bad.len(), self.dataset.num_images(), self.config.data.max_bad_fraction);
        if bad as f64 <= limit * total as f64 {
            return Ok(());
        }
        let first: Vec<String> =
            self.bad.iter().take(NAMED).map(|bad| format!("  {}: {}", bad.key, bad.reason)).collect();
        Err(TrainError::Usage(format!(
            "{bad} of {total} images cannot be used, more than `data.max_bad_fraction` = {limit} allows:\n{}\nrepair \
             or remove them (`dualenc check` lists all), or raise `data.max_bad_fraction`",
            first.join("\n")
        )))
    }
}
