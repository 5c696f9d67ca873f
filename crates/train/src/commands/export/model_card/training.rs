//! The training data and the recipe of a run.

use std::path::Path;

use serde_json::{Map, Value};

use crate::commands::export::model_card::markdown::{escape, grouped, table};
use crate::commands::export::model_card::origin::Origin;
use crate::config::{HeadInit, Loss, Precision, RunConfig, RunLength};

/// The sources, and how many pairs were seen.
pub(crate) fn data(config: &RunConfig, origin: &Origin) -> String {
    let mut lines = Vec::new();
    for (_, source) in config.data.train.tables() {
        for (form, _) in source.sources() {
            let name = serde_json::to_value(source).ok().and_then(|table| name_of(&table[form]));
            let name = name.map_or_else(String::new, |name| format!(" `{}`", name.replace('`', "'")));
            let weight = source.weight.map_or_else(String::new, |weight| format!(", weight {weight}"));
            lines.push(format!("- {form}{name}{weight}"));
        }
    }
    let number = |key: &str| origin.last_step.as_ref().and_then(|line| line.get(key));
    if let (Some(seen), Some(epochs)) =
        (number("samples_seen").and_then(Value::as_u64), number("epoch").and_then(Value::as_f64))
    {
        lines.push(format!("- {} pairs of image and text were seen, in {epochs:.2} epochs", grouped(seen)));
        if epochs > 0.0 {
            let pairs = (seen as f64 / epochs).round() as u64;
            lines.push(format!("- about {} pairs of image and text are one epoch", grouped(pairs)));
        }
    }
    let held_out = config.data.validation_fraction;
    if held_out > 0.0 {
        lines.push(format!("- {held_out} of the images were held out for evaluation"));
    }
    if config.data.augment.is_some() {
        lines.push("- images were augmented".to_owned());
    }
    lines.join("\n")
}

/// The last component of the path of a source, or of the first of several paths.
fn name_of(source: &Value) -> Option<String> {
    let (path, others) = match &source["path"] {
        Value::Array(paths) => (paths.first()?, paths.len() - 1),
        path => (path, 0),
    };
    let name = Path::new(path.as_str()?).file_name()?.to_string_lossy().into_owned();
    Some(if others == 0 { name } else { format!("{name} and {others} more") })
}

/// A hub id, or the last component of a path: the card does not tell where files are.
fn short_name(model: &str) -> String {
    let path = Path::new(model);
    let last = path.file_name().filter(|_| path.is_absolute());
    last.map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The keys of the config that decide how a model turns out.
pub(crate) fn recipe(config: &RunConfig, origin: &Origin) -> String {
    let train = &config.train;
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |key: &str, value: String| rows.push([key.to_owned(), value]);
    if let Some(step) = origin.step {
        row("steps", grouped(step));
    }
    let fitted = (config.model.head_init != HeadInit::Random).then(|| start_of_heads(config));
    if let Some(start) = &fitted {
        row("start of the heads", start.clone());
        if origin.step == Some(0) {
            row("seed", config.run.seed.to_string());
            return table(["setting", "value"], "---:", &rows);
        }
    }
    row(
        "length of the run",
        match config.length() {
            RunLength::Epochs(epochs) => format!("{epochs} epochs"),
            RunLength::Steps(steps) => format!("{} steps", grouped(steps)),
        },
    );
    row("batch size", grouped(train.batch_size as u64));
    if let several @ 2.. = config.caption_slots().count {
        row("captions of an image at once", several.to_string());
    }
    row(
        "loss",
        match train.loss {
            Loss::Softmax => "softmax (InfoNCE)".to_owned(),
            Loss::Sigmoid => "sigmoid (SigLIP)".to_owned(),
        },
    );
    if let Some(teacher) = &train.teacher {
        let scale = teacher.scale.map_or_else(String::new, |scale| format!(", scale {scale}"));
        let name = short_name(&teacher.model).replace('`', "'");
        row("teacher (distillation)", format!("{name}, weight {}{scale}", teacher.weight));
    }
    row("optimiser", train.optimizer.name().to_owned());
    row("learning rate", train.learning_rate.to_string());
    let optional = [
        ("learning rate of the projections", train.projection_learning_rate),
        ("learning rate of the image projection", train.image_projection_learning_rate),
        ("learning rate of the text projection", train.text_projection_learning_rate),
        ("warmup steps", train.warmup_steps.map(|steps| steps as f64)),
        ("warmup, as a fraction of the run", train.warmup_fraction),
        ("decay of averaged weights", train.ema_decay),
    ];
    row("schedule", train.schedule.name().to_owned());
    let dropout = [
        ("dropout of the image tower", config.model.image_dropout),
        ("dropout of the text tower", config.model.text_dropout),
    ];
    for (key, value) in optional.into_iter().chain(dropout) {
        if let Some(value) = value {
            row(key, value.to_string());
        }
    }
    row("weight decay", train.weight_decay.to_string());
    for (key, value, absent) in [
        ("layer decay of the image tower", train.image_layer_decay, 1.0),
        ("layer decay of the text tower", train.text_layer_decay, 1.0),
        ("label smoothing", train.label_smoothing, 0.0),
        ("clipped norm of the gradients", train.clip_grad_norm, 0.0),
        ("word dropout", config.data.word_dropout, 0.0),
        ("whitening of the image projection", config.model.image_projection.whitening, 0.0),
    ] {
        if value != absent {
            row(key, value.to_string());
        }
    }
    let stages = config.stages().len();
    if stages > 1 {
        row("stages", format!("{stages}, each with its own locks and learning rate"));
    }
    for (key, precision) in
        [("precision of training", config.run.precision), ("precision of locked towers", config.run.locked_precision)]
    {
        if precision != Precision::F32 {
            row(key, format!("{}; saved weights are f32", precision.name()));
        }
    }
    row("seed", config.run.seed.to_string());
    if let Some(loss) = last_loss(origin.last_step.as_ref()) {
        row("loss of the last step", loss);
    }
    let rows: Vec<[String; 2]> = rows.into_iter().map(|[key, value]| [key, escape(&value)]).collect();
    table(["setting", "value"], "---:", &rows)
}

/// How heads were fitted before the first step.
fn start_of_heads(config: &RunConfig) -> String {
    let method = match config.model.head_init {
        HeadInit::Random => "random",
        HeadInit::Cca => "closed form (CCA)",
        HeadInit::Ridge => "closed form (ridge regression)",
    };
    let given = |name: &str, value: Option<f64>| {
        value.map_or_else(|| format!("{name} chosen on held-out pairs"), |value| format!("{name} {value}"))
    };
    let power = (config.model.head_init == HeadInit::Cca).then(|| given("power", config.fit.power));
    [Some(method.to_owned()), Some(given("ridge", config.fit.ridge)), power]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

/// The loss, beside that of a model that tells no two pairs apart.
fn last_loss(line: Option<&Map<String, Value>>) -> Option<String> {
    let number = |key: &str| line?.get(key)?.as_f64();
    let loss = number("loss")?;
    let chance = number("chance_loss").map_or_else(String::new, |chance| format!(" (chance: {chance:.4})"));
    Some(format!("{loss:.4}{chance}"))
}
