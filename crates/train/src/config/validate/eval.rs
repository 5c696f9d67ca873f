//! The rules of `[eval.NAME]`.

use super::rules::Rules;
use crate::config::schema::default;
use crate::config::schema::eval::{EvalSection, Task};

/// `has_validation`: the training data have a validation split, which needs no key.
pub(super) fn evaluation(name: &str, eval: &EvalSection, has_validation: bool, rules: &mut Rules) {
    let section = format!("eval.{name}");
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_plain) {
        rules.refuse(
            &section,
            &[],
            format!("`{}` is not a valid name for an evaluation", name.escape_debug()),
            "use `a-z`, `0-9`, `_` and `-`; the name becomes part of the metrics",
        );
    }
    let task = eval.task.name();
    let of_task = format!("{section}.task");
    let (required, help) = match eval.task {
        // A folder of classes, or labelled data.
        Task::ZeroShot | Task::Knn | Task::LinearProbe if eval.data.is_some() => ("data", ""),
        Task::ZeroShot | Task::Knn | Task::LinearProbe if eval.image_features.is_some() => ("image_features", ""),
        Task::ZeroShot | Task::Knn | Task::LinearProbe => (
            "images",
            "a directory that holds one folder of images per class, or `data`: images and the names of their classes",
        ),
        Task::Retrieval | Task::Loss => {
            ("data", "images and captions, such as a csv file, or a table `[eval.NAME.data.csv]`")
        }
    };
    const LABELLED: &[Task] = &[Task::ZeroShot, Task::Knn, Task::LinearProbe];
    const PROBES: &[Task] = &[Task::Knn, Task::LinearProbe];
    let keys = [
        ("images", eval.images.is_some(), LABELLED),
        ("image_features", eval.image_features.is_some(), LABELLED),
        ("labels", eval.labels.is_some(), LABELLED),
        ("class_features", eval.class_features.is_some(), &[Task::ZeroShot]),
        ("class_of", eval.class_of.is_some(), &[Task::ZeroShot]),
        ("classnames", eval.classnames.is_some(), LABELLED),
        ("templates", eval.templates.is_some(), &[Task::ZeroShot]),
        ("data", eval.data.is_some(), &Task::ALL),
        ("train_images", eval.train_images.is_some(), PROBES),
        ("train_data", eval.train_data.is_some(), PROBES),
        ("neighbors", eval.neighbors.is_some(), &[Task::Knn]),
        ("pool_size", eval.pool_size.is_some(), &[Task::Loss]),
    ];
    for (name, given, of) in keys {
        let key = format!("{section}.{name}");
        let applies = of.contains(&eval.task);
        if !given && name == required && !has_validation {
            rules.refuse(&key, &[&of_task], format!("missing key `{key}`, which a {task} evaluation requires"), help);
        }
        if given && !applies {
            let of = either(of);
            let message = format!("`{key}` is only for a {of} evaluation, but this one is {task}");
            rules.refuse(&key, &[&of_task], message, "");
        }
    }
    let both = |one: bool, other: bool| one && other && LABELLED.contains(&eval.task);
    for (images, data, is_both) in [
        ("images", "data", both(eval.images.is_some(), eval.data.is_some())),
        ("images", "image_features", both(eval.images.is_some(), eval.image_features.is_some())),
        ("data", "image_features", both(eval.data.is_some(), eval.image_features.is_some())),
        ("train_images", "train_data", both(eval.train_images.is_some(), eval.train_data.is_some())),
    ] {
        if is_both {
            let message = format!("`{section}` has both `{images}` and `{data}`");
            rules.refuse(&format!("{section}.{images}"), &[], message, "remove one of them");
        }
    }
    for (name, given, other, is_there) in [
        ("labels", eval.labels.is_some(), "image_features", eval.image_features.is_some()),
        ("class_of", eval.class_of.is_some(), "class_features", eval.class_features.is_some()),
    ] {
        if given && !is_there {
            let (key, other) = (format!("{section}.{name}"), format!("{section}.{other}"));
            rules.refuse(&key, &[&other], format!("`{key}` is set, but `{other}` is not"), "set both, or remove it");
        }
    }
    if eval.class_features.is_some() && eval.templates.is_some() {
        let key = format!("{section}.templates");
        let message = format!("`{key}` makes texts, but `{section}.class_features` has features in their place");
        rules.refuse(&key, &[], message, "remove one of them");
    }
    let neighbors = eval.neighbors.unwrap_or(default::NEIGHBORS);
    rules.check(neighbors >= 1, &format!("{section}.neighbors"), neighbors, "at least 1", "the nearest images vote");
    let pool = eval.pool_size.unwrap_or(2);
    let help = "a pair's negatives are the other pairs of its pool";
    rules.check(pool >= 2, &format!("{section}.pool_size"), pool, "at least 2", help);
    if eval.every_epochs.is_some() && eval.every_steps.is_some() {
        let key = format!("{section}.every_steps");
        rules.refuse(&key, &[], format!("`{section}` has both `every_epochs` and `every_steps`"), "remove one of them");
    }
    let key = format!("{section}.every_steps");
    rules.check(eval.every_steps != Some(0), &key, 0, "at least 1", "`every_epochs = 0` evaluates only at the end");
    rules.check(eval.batch_size >= 1, &format!("{section}.batch_size"), 0, "at least 1", "");
}

/// The names of tasks: `a, b or c`.
fn either(tasks: &[Task]) -> String {
    let names: Vec<&str> = tasks.iter().map(|task| task.name()).collect();
    match names.as_slice() {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        other => other.concat(),
    }
}
