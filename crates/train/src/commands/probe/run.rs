//! Compares every image tower, layer and pooling with every text tower, layer and pooling.

use std::collections::HashSet;

use dualenc_data::{Skipped, counted};

use crate::commands::probe::compare::{chance, held_out_recall, kernel_alignment, mutual_neighbors};
use crate::commands::probe::feature_set::{FeatureSet, Protocol, Side};
use crate::commands::probe::report::{Chance, Combination, ProbeReport, ProbedTower, sort};
use crate::commands::probe::request::ProbeRequest;
use crate::commands::probe::sample::sample;
use crate::commands::probe::towers::{Features, ImagesRead, Inputs};
use crate::device::Compute;
use crate::error::TrainError;
use crate::events::{Event, Observer};
use crate::pairs::data_at;
use crate::stop_flag::StopFlag;

/// Neighbours of the mutual k-NN figure: Huh et al., 2024, sec. 3.
const NEIGHBORS: usize = 10;

/// Least pairs: some more than neighbours, so that the figure can differ from 1.
const MIN_PAIRS: usize = 16;

/// Measures how well every combination agrees on a sample of pairs.
///
/// # Errors
/// [`TrainError::Usage`] when there is no tower of a kind, a tower has not the layers or poolings that are asked for,
/// or too few pairs can be used; [`TrainError::Hub`], [`TrainError::Model`] or [`TrainError::Data`] when towers or data
/// cannot be read; [`TrainError::NotFiniteOutput`] when a tower computes NaN or an infinity; [`TrainError::Stopped`]
/// when `stop` is set.
pub fn probe(
    request: &ProbeRequest<'_>,
    compute: &Compute,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<ProbeReport, TrainError> {
    for (towers, flag) in [(request.image_towers, "--image-towers"), (request.text_towers, "--text-towers")] {
        if towers.is_empty() {
            return Err(TrainError::Usage(format!("`{flag}` names no tower")));
        }
    }
    let dataset = data_at(request.data, request.root)?.read()?;
    for note in &dataset.notes {
        observer.on(Event::Note(note.clone()));
    }
    for warning in &dataset.warnings {
        observer.on(Event::Warning(warning.clone()));
    }
    let skipped_rows = dataset.skipped.count;
    if skipped_rows > 0 {
        observer.on(Event::Warning(format!(
            "{} could not be used: {}; such as {}",
            counted(skipped_rows, "row"),
            dataset.skipped.by_cause(),
            dataset.skipped.first(1)
        )));
    }
    let pairs = sample(&dataset, request.sample);
    let inputs = Inputs { pairs: &pairs, request, compute, stop };
    let mut read = ImagesRead::default();
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    for tower in request.image_towers {
        images.extend(inputs.images(tower, &mut read, observer)?);
    }
    check_unreadable(&read.bad, pairs.len(), request.max_bad_fraction, observer)?;
    let (kept, copies) = distinct(&read);
    let usable = kept.len();
    if usable < MIN_PAIRS {
        return Err(TrainError::Usage(format!(
            "{} of `{}` can be used, too few to compare towers; give at least {MIN_PAIRS}, better 1000",
            counted(usable, "pair"),
            request.data.display()
        )));
    }
    for tower in request.text_towers {
        texts.extend(inputs.texts(tower, observer)?);
    }
    let protocol = Protocol { neighbors: NEIGHBORS, fitted: usable / 2, device: &compute.device, stop };
    let prepare = |features: Vec<Features>, side| -> Result<Vec<FeatureSet>, TrainError> {
        features.into_iter().map(|features| FeatureSet::new(select(features, &kept), side, &protocol)).collect()
    };
    let (images, texts) = (prepare(images, Side::Image)?, prepare(texts, Side::Text)?);
    let caption_ids: Vec<u64> = kept[protocol.fitted..].iter().map(|&pair| pairs[pair].caption_id).collect();
    let total = images.len() * texts.len();
    let mut combinations = Vec::with_capacity(total);
    for image in &images {
        for text in &texts {
            combinations.push(Combination {
                image: describe(image),
                text: describe(text),
                mutual_knn: mutual_neighbors(image, text),
                cka: kernel_alignment(image, text)?,
                recall: held_out_recall(image, text, &caption_ids, &protocol)?,
            });
            observer.on(Event::Work { name: "combinations", done: combinations.len(), total });
        }
    }
    sort(&mut combinations);
    for set in images.iter().chain(&texts).filter(|set| set.tested.is_none()) {
        observer.on(Event::Warning(format!(
            "`{}`, layer {}, pooled by `{}`, is the same for every input, and has no figures",
            set.tower, set.layer, set.pool
        )));
    }
    let tested = usable - protocol.fitted;
    Ok(ProbeReport {
        pairs: usable,
        fitted: protocol.fitted,
        tested,
        neighbors: NEIGHBORS,
        unreadable: read.bad.len(),
        copies,
        skipped_rows,
        chance: Chance { mutual_knn: NEIGHBORS as f64 / (usable - 1) as f64, recall: chance(&caption_ids) },
        combinations,
    })
}

fn describe(set: &FeatureSet) -> ProbedTower {
    let FeatureSet { tower, layer, num_layers, pool, width, .. } = set;
    ProbedTower { tower: tower.clone(), layer: *layer, num_layers: *num_layers, pool, width: *width }
}

/// The pairs with an image that every tower can use, without copies of an image; and the number of copies.
fn distinct(read: &ImagesRead) -> (Vec<usize>, usize) {
    let bad: HashSet<usize> = read.bad.iter().map(|skipped| skipped.image).collect();
    let (mut seen, mut copies) = (HashSet::new(), 0);
    let mut kept = Vec::new();
    for (pair, content) in read.contents.iter().enumerate() {
        let Some(content) = content.filter(|_| !bad.contains(&pair)) else { continue };
        if seen.insert(content) {
            kept.push(pair);
        } else {
            copies += 1;
        }
    }
    (kept, copies)
}

/// The rows of some pairs.
fn select(features: Features, pairs: &[usize]) -> Features {
    let row = |&pair: &usize| features.values[pair * features.width..][..features.width].iter().copied();
    let values = pairs.iter().flat_map(row).collect();
    Features { values, ..features }
}

/// Names the images that cannot be used, and refuses too many.
fn check_unreadable(
    bad: &[Skipped],
    total: usize,
    max_bad_fraction: f64,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    for skipped in bad {
        observer.on(Event::Skipped { image: skipped, of: "the pairs", listed_in: None });
    }
    if bad.len() as f64 <= max_bad_fraction * total as f64 {
        return Ok(());
    }
    Err(TrainError::Usage(format!(
        "{} of {total} images cannot be used, more than `--max-bad-fraction` = {max_bad_fraction} allows: {}; repair \
         or remove them, or raise `--max-bad-fraction`",
        bad.len(),
        Skipped::by_cause(bad)
    )))
}
