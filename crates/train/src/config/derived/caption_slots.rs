//! How many captions of an image a pair has, and what the data lack for these.

use dualenc_data::{CaptionMode, CaptionSlots, Dataset, counted};

use crate::config::schema::{RunConfig, default};

impl RunConfig {
    /// How the captions of a pair are drawn.
    pub(crate) fn caption_slots(&self) -> CaptionSlots {
        match self.data.captions {
            CaptionMode::Slots => CaptionSlots {
                count: self.data.caption_slots.unwrap_or(default::CAPTION_SLOTS),
                pin_first: self.data.pin_first_caption,
            },
            CaptionMode::All | CaptionMode::One => CaptionSlots::default(),
        }
    }

    /// What `dataset` lacks for the captions that the config asks for: one sentence each.
    pub(crate) fn caption_warnings(&self, dataset: &Dataset) -> Vec<String> {
        let slots = self.caption_slots().count;
        let mut warnings = if slots > 1 { warnings_of_slots(dataset, slots) } else { Vec::new() };
        for (part, (key, _)) in dataset.parts().iter().zip(self.data.train.tables()) {
            let is_only = |image: usize| dataset.captions_of(image).len() == 1;
            if part.caption_weights.len() > 1 && part.weights_by_place && part.images.clone().all(is_only) {
                warnings.push(format!(
                    "`{key}.caption_weights` has no effect: no image of this source has more than one caption; name \
                     the columns with `captions`, or remove the key"
                ));
            }
        }
        warnings
    }
}

fn warnings_of_slots(dataset: &Dataset, slots: usize) -> Vec<String> {
    let has_few = |fewer: usize| (0..dataset.num_images()).filter(move |&it| dataset.captions_of(it).len() < fewer);
    let (few, all) = (has_few(slots).count(), dataset.num_images());
    if few == all && has_few(2).count() == all {
        return vec![
            "`data.captions` is \"slots\", but no image has more than one caption: each repeats in every slot, at \
             the price of as many passes through the text tower; name the columns with `captions`, or remove the key"
                .to_owned(),
        ];
    }
    let warning = format!(
        "{few} of {} {} fewer than {slots} captions, which repeat to fill `data.caption_slots`",
        counted(all, "image"),
        if few == 1 { "has" } else { "have" }
    );
    (few > 0).then_some(warning).into_iter().collect()
}
