//! The answers behind the metrics of an evaluation, as text and as JSON.

use std::io::{Result, Write};

use dualenc_train::{CalibrationBin, ClassDetails, ClassResult, Confusion, Details};
use serde_json::{Value, json};

/// Most confused pairs of classes that are printed.
const PRINTED_PAIRS: usize = 10;

/// Prints the result of each class, the worst first, and the most confused pairs.
pub fn print(out: &mut impl Write, details: &Details) -> Result<()> {
    let Details::Classes(details) = details else { return Ok(()) };
    let several = details.classes.iter().any(|class| class.average_precision.is_some());
    let figure = if several { "average precision" } else { "recall" };
    let value = |class: &ClassResult| if several { class.average_precision } else { recall(class) };
    let mut classes: Vec<&ClassResult> = details.classes.iter().collect();
    classes.sort_by(|one, other| value(one).unwrap_or(f64::INFINITY).total_cmp(&value(other).unwrap_or(f64::INFINITY)));
    let width = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    writeln!(out, "  {:width$}  {figure:>9}  images  answered", "class")?;
    for class in classes {
        let value = value(class).map_or("-".to_owned(), |value| format!("{value:.4}"));
        let name = &class.name;
        let at = figure.len().max(9);
        writeln!(out, "  {name:width$}  {value:>at$}  {:>6}  {:>8}", class.images, class.predicted)?;
    }
    if details.confusions.is_empty() {
        return Ok(());
    }
    writeln!(out, "  most confused:")?;
    for confusion in details.confusions.iter().take(PRINTED_PAIRS) {
        let Confusion { label, predicted, count } = *confusion;
        let images = details.classes[label].images;
        let (label, predicted) = (&details.classes[label].name, &details.classes[predicted].name);
        writeln!(out, "    {count} of {images} `{label}` answered as `{predicted}`")?;
    }
    Ok(())
}

/// The results of all classes, all confused pairs and the calibration; `None` if nothing was classified.
pub fn to_json(details: &Details) -> Option<Value> {
    let Details::Classes(ClassDetails { classes, confusions, calibration, .. }) = details else { return None };
    let class = |class: &ClassResult| {
        json!({
            "name": class.name,
            "images": class.images,
            "recall": recall(class),
            "answered": class.predicted,
            "average_precision": class.average_precision,
        })
    };
    let pair = |confusion: &Confusion| {
        json!({
            "class": classes[confusion.label].name,
            "answered": classes[confusion.predicted].name,
            "count": confusion.count,
        })
    };
    let bin = |bin: &CalibrationBin| {
        let CalibrationBin { count, confidence, accuracy } = bin;
        json!({"count": count, "confidence": confidence, "accuracy": accuracy})
    };
    Some(json!({
        "classes": classes.iter().map(class).collect::<Vec<_>>(),
        "confusions": confusions.iter().map(pair).collect::<Vec<_>>(),
        "calibration": calibration.iter().map(bin).collect::<Vec<_>>(),
    }))
}

/// The fraction of the images of a class that have it as their first answer.
fn recall(class: &ClassResult) -> Option<f64> {
    (class.images > 0).then(|| class.hits as f64 / class.images as f64)
}
