//! The rules of `[data]`.

use dualenc_data::{CaptionMode, SourceTable, counted};

use super::rules::Rules;
use crate::config::derived::stage_plan::StageStart;
use crate::config::schema::RunConfig;
use crate::config::schema::sources::EvalData;

pub(super) fn data(config: &RunConfig, rules: &mut Rules) {
    let data = &config.data;
    // The first and the last token are special.
    rules.check(
        data.max_tokens >= 3,
        "data.max_tokens",
        data.max_tokens,
        "at least 3",
        "two of them are special tokens",
    );
    rules.check(data.workers != Some(0), "data.workers", 0, "at least 1", "remove the key to use every core");
    let dropped = data.word_dropout;
    rules.check((0.0..1.0).contains(&dropped), "data.word_dropout", dropped, "0 or more and less than 1", "");
    // A text tower is cached in a stage that trains none of its weights: not all, not the last blocks, and no adapters.
    let stages = config.stages();
    let cached = stages.iter().find(|stage| !stage.training.text.any());
    if let Some(stage) = cached.filter(|_| dropped > 0.0 && config.cache.enabled) {
        let from = match stage.from {
            StageStart::Step(0) | StageStart::Epoch(0) => String::new(),
            StageStart::Step(step) => format!(" from step {step} on"),
            StageStart::Epoch(epoch) => format!(" from epoch {epoch} on"),
        };
        rules.refuse(
            "data.word_dropout",
            &["model.lock", "train.stage", "cache.enabled"],
            format!(
                "`data.word_dropout` is {dropped}, but the features of the locked text tower are cached{from}, \
                 and captions with words left out rarely repeat"
            ),
            "set `cache.enabled = false` to run the tower in every epoch, or remove the key",
        );
    }
    let is_slots = data.captions == CaptionMode::Slots;
    for (key, is_set) in
        [("data.caption_slots", data.caption_slots.is_some()), ("data.pin_first_caption", data.pin_first_caption)]
    {
        if is_set && !is_slots {
            let message = format!("`{key}` is set, but it is only for `data.captions = \"slots\"`");
            rules.refuse(key, &["data.captions"], message, "set `data.captions = \"slots\"`, or remove the key");
        }
    }
    let window = data.shuffle_window;
    rules.check(
        window.is_none_or(|window| window > 1),
        "data.shuffle_window",
        window.unwrap_or(0),
        "at least 2",
        "the number of samples among which each is shuffled; remove the key to shuffle each epoch as a whole, or set \
         `data.shuffle = false`",
    );
    if let (Some(window), false) = (window, data.shuffle) {
        rules.refuse(
            "data.shuffle_window",
            &["data.shuffle"],
            format!("`data.shuffle_window` is {window}, but `data.shuffle` is false"),
            "set `data.shuffle = true`, or remove the key",
        );
    }
    let slots = data.caption_slots.unwrap_or(1);
    rules.check((1..=MAX_SLOTS).contains(&slots), "data.caption_slots", slots, "1 to 256", "");
    let share = data.max_bad_fraction;
    rules.check((0.0..=1.0).contains(&share), "data.max_bad_fraction", share, "a fraction from 0 to 1", "");
    let pixels = data.max_pixels;
    rules.check(pixels >= 1, "data.max_pixels", pixels, "a number of pixels, at least 1", "");
}

/// The rules of `[data.train]` and of `[eval.NAME.data]`.
pub(super) fn sources(config: &RunConfig, rules: &mut Rules) {
    let (fraction, data_captions) = (config.data.validation_fraction, config.data.captions);
    let help = "the share of the images that is held out";
    rules.check(
        (0.0..1.0).contains(&fraction),
        "data.validation_fraction",
        fraction,
        "0 or more and less than 1",
        help,
    );
    let tables = config.data.train.tables();
    if tables.is_empty() {
        rules.refuse("data.train", &[], "`data.train` has no source".to_owned(), "add a table `[[data.train]]`");
    }
    let sides = |table: &SourceTable| table.features.as_ref().map_or([false; 2], |features| features.sides());
    if let Some((key, _)) = tables.iter().find(|(_, table)| sides(table) != sides(tables[0].1)) {
        let message = format!("`{key}` and `{}` do not have features of the same sides", tables[0].0);
        rules.refuse(key, &["data.train[0]"], message, "a model has a tower for a side, or takes features of it");
    }
    let is_shards = |table: &SourceTable| table.sources().iter().all(|(name, _)| *name == "webdataset");
    if let (Some(_), Some((key, _))) = (&config.data.index_dir, tables.iter().find(|(_, table)| !is_shards(table))) {
        rules.refuse(
            "data.index_dir",
            &[&format!("{key}.*")],
            format!("`data.index_dir` is set, but `{key}` is not a `webdataset` source"),
            "write shards with `dualenc data pack`, or remove the key",
        );
    }
    for (key, table) in tables {
        source(&key, table, rules);
        caption_weights(&key, table, data_captions, rules);
    }
    let sides = config.eval.iter().flat_map(|(name, eval)| {
        [("data", &eval.data), ("train_data", &eval.train_data)]
            .map(|(side, data)| (format!("eval.{name}.{side}"), data))
    });
    for (key, data) in sides {
        if let Some(EvalData::Source(table)) = data {
            source(&key, table, rules);
            for (name, given) in [
                ("weight", table.weight.is_some()),
                ("templates", table.templates.is_some()),
                ("caption_weights", table.caption_weights.is_some()),
            ] {
                if given {
                    let message = format!("`{key}.{name}` is only for training data");
                    rules.refuse(&format!("{key}.{name}"), &[], message, "remove the key");
                }
            }
        }
    }
}

/// Captions that a source numbers.
const MAX_SLOTS: usize = 256;

/// More often than this in an epoch, a pair is trained on by mistake.
const MAX_WEIGHT: f64 = 1e6;

fn source(key: &str, table: &SourceTable, rules: &mut Rules) {
    let found = table.sources();
    if found.len() != 1 {
        let names: Vec<String> = found.iter().map(|(name, _)| format!("`{name}`")).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
        let help = "name one of `csv`, `tsv`, `jsonl`, `json`, `folder`, `webdataset`, `classes`, `coco`, `parquet`, \
                    `features`";
        // A source that is unknown or incomplete is reported already, and was removed from the table.
        rules.refuse(key, &[&format!("{key}.*")], format!("`{key}` needs exactly one source, found {names}"), help);
    }
    if let Some(features) = &table.features {
        if let Some(problem) = features.problem() {
            let key = format!("{key}.features");
            rules.refuse(&key, &[&format!("{key}.*")], format!("`{key}`: {problem}"), "");
        }
        for (name, given) in [("templates", table.templates.is_some()), ("classnames", table.classnames.is_some())] {
            if given && features.sides()[1] {
                let key = format!("{key}.{name}");
                let message = format!("`{key}` changes texts, but the texts are features");
                rules.refuse(&key, &[], message, "remove the key");
            }
        }
    }
    let folder = table.folder.as_ref().map(|it| ("folder", it.caption.is_some(), it.captions.as_deref()));
    let shards = table.webdataset.as_ref().map(|it| ("webdataset", it.caption.is_some(), it.captions.as_deref()));
    for (format, caption, captions) in [folder, shards].into_iter().flatten() {
        let Some(captions) = captions else { continue };
        let name = format!("{key}.{format}.captions");
        if caption {
            let other = format!("{key}.{format}.caption");
            rules.refuse(&name, &[&other], format!("`{name}` and `{other}` are both set"), "remove one of them");
        }
        rules.check(!captions.is_empty(), &name, "empty", "at least one name", "");
    }
    let weight = table.weight.unwrap_or(1.0);
    let is_usual = weight > 0.0 && weight <= MAX_WEIGHT;
    rules.check(is_usual, &format!("{key}.weight"), weight, "a number above 0, at most 1000000", "");
    let weights = table.caption_weights.as_deref().unwrap_or(&[1.0]);
    let is_wrong = |weight: &&f64| !(weight.is_finite() && **weight >= 0.0);
    if let Some(wrong) = weights.iter().find(is_wrong) {
        rules.check(false, &format!("{key}.caption_weights"), wrong, "numbers of 0 or more", "");
    } else if weights.iter().sum::<f64>() <= 0.0 {
        rules.check(false, &format!("{key}.caption_weights"), "all 0", "a weight above 0", "");
    }
}

/// The rules of `caption_weights` beside the numbers themselves.
fn caption_weights(key: &str, table: &SourceTable, mode: CaptionMode, rules: &mut Rules) {
    let (Some(weights), [(format, source)]) = (&table.caption_weights, &table.sources()[..]) else { return };
    let name = format!("{key}.caption_weights");
    let (weights, columns) = (weights.len(), source.num_caption_columns());
    // Without columns, the weights are those of places.
    if weights != columns && columns > 1 {
        let (weights, columns) = (counted(weights, "weight"), counted(columns, "caption column"));
        rules.refuse(
            &name,
            &[&format!("{key}.{format}.captions")],
            format!("`{name}` has {weights}, but `{key}.{format}` has {columns}"),
            "give a weight for each",
        );
    } else if mode == CaptionMode::All {
        rules.refuse(
            &name,
            &["data.captions"],
            format!("`{name}` is set, but with `data.captions = \"all\"` every caption is a pair: none is drawn"),
            "set `data.captions = \"one\"` to draw one caption of an image in each epoch, or \"slots\" to draw \
             several at once, or remove the key",
        );
    }
}

pub(super) fn augment(config: &RunConfig, rules: &mut Rules) {
    let Some(augment) = &config.data.augment else { return };
    if let Some((key, expected)) = augment.problem() {
        let key = format!("data.augment.{key}");
        rules.refuse(&key, &[], format!("`{key}` is out of range, expected {expected}"), "");
    }
    let locked = config.stages().iter().any(|stage| !stage.training.image.any());
    if locked && config.cache.enabled && config.cache.views.is_none() {
        rules.refuse(
            "data.augment",
            &["model.lock", "cache.enabled", "cache.views"],
            "`data.augment` is set, but the features of the locked image tower are cached: every epoch would see the \
             same view"
                .to_owned(),
            "set `cache.views` to the number of views to cache for each image, or `cache.enabled = false` to run the \
             tower in every epoch",
        );
    }
}
