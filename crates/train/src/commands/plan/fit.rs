//! The fit of the heads before the first step: the features of all pairs, from a sample, and the closed form.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use dualenc_data::{Dataset, TokenBatch};
use dualenc_model::parameters;

use crate::closed_form::canonical::Method;
use crate::closed_form::split::{Split, SplitImage};
use crate::closed_form::start::tried;
use crate::closed_form::timing::Extent;
use crate::commands::plan::budget::{Budget, Laps};
use crate::commands::plan::cache_size::{self, hash_of};
use crate::commands::plan::loading::spread;
use crate::commands::plan::report::{CachePlan, FitPlan};
use crate::commands::plan::schedule::{FEW_IMAGES, FEW_TEXTS, IMAGES, TEXTS};
use crate::config::{HeadInit, RunConfig};
use crate::error::TrainError;
use crate::features::image_index::{ImageList, Views};
use crate::features::locked_towers::{LockedFingerprints, LockedTowers, feature_cache_of};
use crate::training::run::Run;

/// What a fit takes, with what it leaves in the cache; `None`: `config`, that of the real run, asks for none.
///
/// # Errors
/// Those of the towers; [`TrainError::Read`] or [`TrainError::Write`] when the cache cannot be opened.
pub(super) fn measure(
    run: &Run,
    config: &RunConfig,
    seconds_per_image: f64,
    budget: &Budget,
) -> Result<Option<(FitPlan, Vec<CachePlan>)>, TrainError> {
    let method = match config.model.head_init {
        HeadInit::Random => return Ok(None),
        HeadInit::Cca => Method::Cca,
        HeadInit::Ridge => Method::Ridge,
    };
    let model = parameters::lock(run.learner.model.clone().with_adapters_merged());
    let towers = LockedTowers::new(&model, &run.data.processor, &run.compute, run.data.workers, &run.stop);
    let is_short = seconds_per_image * IMAGES as f64 > budget.left() / 2.0;
    budget.check_stop()?;
    let seconds = seconds_of_each(run, &towers, is_short)?;
    let cached = towers.with_cache(feature_cache_of(&run.config), &LockedFingerprints::of(&model)?)?;
    let cache = of_towers(run, &cached, &config.cache_dir());
    let dataset = &run.data.dataset;
    let images = dataset.num_images();
    let texts = cache_size::training_captions(run);
    let missing = |what: &str| {
        let entry = cache.iter().find(|entry| entry.what == what);
        entry.map_or(1.0, |entry| 1.0 - entry.present as f64 / entry.rows.max(1) as f64)
    };
    let features = seconds[0] * images as f64 * missing("images") + seconds[1] * texts as f64 * missing("captions");
    let mut heads = [run.learner.model.image_projection.clone(), run.learner.model.text_projection.clone()];
    let [image, text] = heads.each_mut().map(|head| head.linear_part().map(|part| part.weight.val().dims()[0]));
    // Refused when the heads are fitted.
    let Some(widths) = image.zip(text) else { return Ok(None) };
    let (ridges, powers) = tried(method, &config.fit);
    budget.check_stop()?;
    let extent = Extent {
        pairs: dataset.num_captions(),
        distinct: [images, texts],
        widths: widths.into(),
        embed_dim: run.learner.model.embed_dim(),
        tried: [ridges.len(), powers.len()],
        for_temperature: for_temperature(dataset),
    };
    budget.check_stop()?;
    let closed_form_seconds = extent.seconds(&run.compute.device)?;
    let plan = FitPlan { images, texts, features_seconds: features, closed_form_seconds };
    Ok(Some((plan, cache)))
}

/// Whether a fit holds images out for the temperature alone, as far as the captions tell: equal images are not known
/// before they are read.
fn for_temperature(dataset: &Dataset) -> bool {
    let captions = |image| dataset.captions_of(image).iter().map(|&it| dataset.caption_id(it as usize)).collect();
    let images = (0..dataset.num_images()).map(|image| SplitImage { content: None, captions: captions(image) });
    Split::of(&images.collect::<Vec<_>>()).is_some_and(|split| split.for_temperature.is_some())
}

/// Seconds of the features of an image and of a text, without a cache. Features that are given take none.
fn seconds_of_each(run: &Run, towers: &LockedTowers, is_short: bool) -> Result<[f64; 2], TrainError> {
    let dataset = &run.data.dataset;
    let mut seconds = [0.0; 2];
    let mut laps = Laps::start();
    if let (Some(images), None) = (&towers.images, dataset.image_feature_width()) {
        let sample = spread(dataset.num_images(), if is_short { FEW_IMAGES } else { IMAGES });
        let sample: Vec<_> = sample.map(|image| dataset.image(image)).collect();
        let count = sample.len().max(1);
        images.fill(&images.set(Arc::new(sample) as Arc<dyn ImageList>, Views::One), |_| {})?;
        seconds[0] = laps.lap() / count as f64;
    }
    if let (Some(texts), None) = (&towers.texts, dataset.text_feature_width()) {
        let sample = spread(dataset.num_captions(), if is_short { FEW_TEXTS } else { TEXTS });
        let (mut tokens, mut seen) = (TokenBatch::default(), HashSet::new());
        for text in sample.flat_map(|caption| dataset.texts(caption)).take(TEXTS) {
            if seen.insert(hash_of(&*text)) {
                tokens.push(run.data.tokenizer.encode(&text)?);
            }
        }
        laps.lap();
        texts.values_of(&tokens)?;
        seconds[1] = laps.lap() / seen.len().max(1) as f64;
    }
    Ok(seconds)
}

/// Rows of the training data that a fit leaves in the cache in `dir`, in the files of `towers`.
fn of_towers(run: &Run, towers: &LockedTowers, dir: &Path) -> Vec<CachePlan> {
    let mut entries = Vec::new();
    if let Some(features) = &towers.images
        && let Some((_, path)) = features.size()
    {
        entries.push(cache_size::entry("images", run.data.dataset.num_images(), features.row_bytes(), dir, path));
    }
    if let Some(features) = &towers.texts
        && let Some(((_, path), row_bytes)) = features.size().zip(features.row_bytes())
    {
        entries.push(cache_size::entry("captions", cache_size::training_captions(run), row_bytes, dir, path));
    }
    entries
}

#[cfg(test)]
mod tests {
    use dualenc_data::{DatasetBuilder, ImageRef};

    use super::*;

    #[test]
    fn shared_captions_take_another_fit() {
        let dataset = |captions: usize| {
            let mut builder = DatasetBuilder::new("/none");
            for image in 0..300 {
                builder.push(ImageRef::File(format!("/none/{image}.png").into()), &format!("a {}", image % captions));
            }
            builder.build()
        };
        assert_eq!([50, 300].map(|captions| for_temperature(&dataset(captions))), [true, false]);
    }
}
