//! Reads and decodes every image once, on several threads.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use dualenc_data::{DataError, ImageRef, Limits, counted, decode, image_size, ordered_map};

use crate::commands::check::findings::Findings;
use crate::commands::check::look::Look;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::features::image_index::ImageList;

/// Images in progress per thread.
const QUEUE_PER_WORKER: usize = 8;

/// Images between two reports of progress.
const REPORT_EVERY: usize = 64;

/// How a check looks at images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Read only the start of each image: its format and size. Copies are not found then.
    pub fast: bool,
}

/// What one image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Width and height in pixels (of a row of features, its width and 1); and a hash of the file with its looks,
    /// unless the check is fast. A plain image has no looks.
    Good { size: (u32, u32), copy: Option<([u8; 32], Option<Box<Look>>)> },
    /// It cannot be used: the number of its fault.
    Bad(u32),
}

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A few words that images with the same fault share.
    pub cause: &'static str,
    pub reason: String,
    /// Whether the system could not read it, which ends a run.
    pub ends_run: bool,
}

/// The images seen so far. One that several lists name is read once.
pub(crate) struct Images {
    options: CheckOptions,
    limits: Limits,
    workers: usize,
    seen: Vec<Seen>,
    faults: Vec<Fault>,
    /// By the hash of its location.
    known: HashMap<u64, u32>,
}

impl Images {
    /// None so far. `workers`: threads.
    pub fn new(options: CheckOptions, limits: Limits, workers: usize) -> Self {
        Self { options, limits, workers, seen: Vec::new(), faults: Vec::new(), known: HashMap::new() }
    }

    /// Looks at the images of `list`, and returns the number of each for [`Images::seen`]. `name`: of the list, for
    /// progress reports.
    ///
    /// # Errors
    /// [`TrainError::Data`] if a thread fails.
    pub fn of(
        &mut self,
        name: &str,
        list: &Arc<dyn ImageList>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<u32>, TrainError> {
        let hashes: Vec<u64> = (0..list.num_images()).map(|image| hash(&list.image(image))).collect();
        let mut new: Vec<usize> = Vec::new();
        for (image, hash) in hashes.iter().enumerate() {
            let number = self.seen.len() + new.len();
            self.known.entry(*hash).or_insert_with(|| {
                new.push(image);
                number as u32
            });
        }
        let Self { options, limits, workers, .. } = *self;
        let (total, jobs, images) = (new.len(), new.into_iter(), Arc::clone(list));
        let work = move |image: usize| look_at(&images.image(image), options, &limits);
        for (done, looked) in (1..).zip(ordered_map(jobs, workers, workers * QUEUE_PER_WORKER, work)) {
            let seen = match looked? {
                Ok(seen) => seen,
                Err(fault) => {
                    self.faults.push(fault);
                    Seen::Bad(self.faults.len() as u32 - 1)
                }
            };
            self.seen.push(seen);
            if done % REPORT_EVERY == 0 || done == total {
                observer.on(Event::Work { name, done, total });
            }
        }
        Ok(hashes.iter().map(|hash| self.known[hash]).collect())
    }

    /// What image number `number` is.
    pub fn seen(&self, number: u32) -> &Seen {
        &self.seen[number as usize]
    }
}

fn hash(image: &ImageRef) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

fn look_at(image: &ImageRef, options: CheckOptions, limits: &Limits) -> Result<Seen, Fault> {
    if let Some(size) = options.fast.then(|| image_size(image, limits)).flatten() {
        return Ok(Seen::Good { size, copy: None });
    }
    let bytes = image.read().map_err(fault)?;
    if let ImageRef::FeatureRow { table, .. } = image {
        let copy = (!options.fast).then(|| (*blake3::hash(&bytes).as_bytes(), None));
        return Ok(Seen::Good { size: (table.width() as u32, 1), copy });
    }
    let decoded = match decode(&bytes, limits) {
        Ok(decoded) => decoded,
        Err(source) => return Err(fault(DataError::Image { key: image.key(), source })),
    };
    let size = (decoded.width, decoded.height);
    let copy = (!options.fast).then(|| (*blake3::hash(&bytes).as_bytes(), Look::of(&decoded).map(Box::new)));
    Ok(Seen::Good { size, copy })
}

/// Why an image cannot be used, from the error of reading or decoding it.
pub(crate) fn fault(error: DataError) -> Fault {
    let DataError::Image { source, .. } = error else {
        return Fault { cause: "cannot be read", reason: error.to_string(), ends_run: true };
    };
    let cause = source.cause();
    Fault { cause, reason: source.to_string(), ends_run: false }
}

/// Reports the bad images of a list by cause. More than `max_bad_fraction` of them, or one that the system cannot read,
/// ends a run. `what`: the list in words.
pub(crate) fn report_bad(
    key: &str,
    what: &str,
    (list, numbers, images): (&dyn ImageList, &[u32], &Images),
    max_bad_fraction: f64,
    findings: &mut Findings,
) {
    let bad = numbers.iter().enumerate().filter_map(|(image, number)| match images.seen(*number) {
        Seen::Bad(fault) => Some((image, &images.faults[*fault as usize])),
        Seen::Good { .. } => None,
    });
    let mut by_cause: BTreeMap<&str, Vec<(usize, &Fault)>> = BTreeMap::new();
    bad.for_each(|(image, fault)| by_cause.entry(fault.cause).or_default().push((image, fault)));
    let (all, total) = (by_cause.values().map(Vec::len).sum::<usize>(), numbers.len());
    // The same comparison as in a run, which also needs one image at least.
    let stops = all as f64 > max_bad_fraction * total as f64 || all == total;
    for (cause, images) in by_cause {
        let items = images.iter().map(|(image, fault)| match cause {
            "not found" => list.image(*image).key(),
            _ if fault.ends_run => fault.reason.clone(),
            _ => format!("{}: {}", list.image(*image).key(), fault.reason),
        });
        let items = items.collect();
        let count = images.len();
        let files = format!("{count} of {total} image files");
        let message = match cause {
            "not found" => format!("{what}{files} are missing:"),
            "cannot be read" => format!("{what}{files} cannot be read by the system, which ends a run:"),
            "cannot be used" => format!("{what}{files} cannot be used:"),
            cause => format!("{what}{files} are bad ({cause}):"),
        };
        let finding = match stops || images.iter().any(|(_, fault)| fault.ends_run) {
            true => findings.problem("bad_images", key, message),
            false => findings.warn("bad_images", key, message),
        };
        finding.value("cause", cause).value("count", count).value("images", total).items(items);
    }
    if all > 0 {
        let fraction = format!("`data.max_bad_fraction` = {max_bad_fraction}");
        if stops && all == total {
            findings.problem(
                "too_many_bad_images",
                key,
                format!("{what}none of {} can be used", counted(total, "image")),
            );
        } else if stops {
            let message = format!(
                "{what}{all} of {total} images cannot be used, more than {fraction} allows: repair or remove them, or \
                 raise it"
            );
            findings.problem("too_many_bad_images", key, message).value("count", all).value("images", total);
        } else {
            let message = format!("{what}{all} of {total} images are left out, as {fraction} allows");
            findings.fact("bad_images_left_out", key, message).value("count", all).value("images", total);
        }
    }
}

/// Reports the sizes of the images in pixels.
pub(crate) fn report_sizes(key: &str, numbers: &[u32], images: &Images, findings: &mut Findings) {
    let sizes = numbers.iter().filter_map(|number| match images.seen(*number) {
        Seen::Good { size: (width, height), .. } => Some((*width, *height)),
        Seen::Bad(_) => None,
    });
    let mut sides: Vec<u32> = sizes.map(|(width, height)| width.min(height)).collect();
    sides.sort_unstable();
    let (Some(&least), Some(&most)) = (sides.first(), sides.last()) else { return };
    let median = sides[sides.len() / 2];
    let message = format!("shorter side of the images in pixels: {least} to {most}, median {median}");
    let finding = findings.fact("image_sizes", key, message);
    finding.value("min", least).value("median", median).value("max", most);
}
