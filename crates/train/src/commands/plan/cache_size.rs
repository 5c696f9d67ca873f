//! What the feature cache will take on disk, and what it holds already.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::commands::plan::report::CachePlan;
use crate::eval::evaluation::Evaluation;
use crate::features::image_index::training_views;
use crate::training::run::Run;

/// Cached images, and cached captions, of the towers that the stage of `run` locks. `dir`: the cache of the real run.
pub(super) fn of_stage(run: &Run, dir: &Path) -> Vec<CachePlan> {
    let entry = |what, rows: usize, [values, record]: [usize; 2], path: &Path| {
        // The name of a file is the key of its features, and so the same in every directory.
        let file = path.file_name().and_then(|name| fs::metadata(dir.join(name)).ok());
        let present = file.map_or(0, |file| file.len() / values.max(1) as u64);
        let rows = rows as u64;
        CachePlan { what, rows, present: present.min(rows), bytes: rows * (values + record) as u64 }
    };
    let mut entries = Vec::new();
    if let Some(features) = &run.locked.towers.images
        && let Some((_, path)) = features.size()
    {
        let evaluated = run.evaluations.iter().map(|evaluation| evaluation.images().num_images());
        let rows = training_images(run) + evaluated.sum::<usize>();
        entries.push(entry("images", rows, features.row_bytes(), path));
    }
    if let Some(features) = &run.locked.towers.texts
        && let Some(((_, path), row_bytes)) = features.size().zip(features.row_bytes())
    {
        let evaluated: HashSet<String> = run.evaluations.iter().flat_map(Evaluation::texts).collect();
        entries.push(entry("captions", training_captions(run) + evaluated.len(), row_bytes, path));
    }
    entries
}

/// Images of the training data times their cached views.
pub(super) fn training_images(run: &Run) -> usize {
    let training = run.learner.stages.at(run.position.step).training;
    run.data.dataset.num_images() * training_views(&run.config, &training).count()
}

/// Distinct captions of the training data.
pub(super) fn training_captions(run: &Run) -> usize {
    run.data.dataset.caption_ids().into_iter().collect::<HashSet<u64>>().len()
}
