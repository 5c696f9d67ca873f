//! A loaded model that encodes images and texts.

use crate::device::Compute;
use crate::eval::encoder::Encoder;
use crate::features::cut_texts::CutTexts;
use crate::features::locked_towers::LockedTowers;
use crate::models::load::LoadedModel;
use crate::stop_flag::StopFlag;

/// Calls `run` with an encoder that remembers no features afterwards.
pub(crate) fn with_encoder<R>(
    loaded: &LoadedModel,
    compute: &Compute,
    stop: &StopFlag,
    batch_size: usize,
    run: impl FnOnce(&Encoder<'_>) -> R,
) -> R {
    let model = loaded.model.valid();
    let workers = compute.threads;
    let locked = LockedTowers::new(&model, &loaded.processor, compute, workers, stop);
    let tokenizer = &loaded.tokenizer;
    let cut = CutTexts::default();
    run(&Encoder { model: &model, tokenizer, locked: &locked, compute, workers, stop, batch_size, others: None, cut })
}
