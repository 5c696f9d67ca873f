//! The rules of `[eval.NAME]`.

use super::Rules;
use crate::config::schema::{EvalSection, Task};

pub(super) fn evaluation(name: &str, eval: &EvalSection, rules: &mut Rules) {
    let section = format!("eval.{name}");
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_plain) {
        rules.refuse(
            &section,
            &[],
            format!("`{}` is no name for an evaluation", name.escape_debug()),
            "use `a-z`, `0-9`, `_` and `-`: it becomes part of the metrics",
        );
    }
    let (task, other) = match eval.task {
        Task::ZeroShot => ("zero-shot", "retrieval"),
        Task::Retrieval => ("retrieval", "zero-shot"),
    };
    let zero_shot = [
        ("images", eval.images.is_some()),
        ("classnames", eval.classnames.is_some()),
        ("templates", eval.templates.is_some()),
    ];
    let retrieval = [("data", eval.data.is_some())];
    let (own, foreign) = match eval.task {
        Task::ZeroShot => (&zero_shot[..], &retrieval[..]),
        Task::Retrieval => (&retrieval[..], &zero_shot[..]),
    };
    let of_task = format!("{section}.task");
    // The first key of a task is the one it cannot do without.
    if let Some((required, false)) = own.first() {
        let help = match eval.task {
            Task::ZeroShot => "a folder that holds one folder of images a class",
            Task::Retrieval => "a csv, tsv or jsonl of image and caption",
        };
        let key = format!("{section}.{required}");
        rules.refuse(&key, &[&of_task], format!("missing key `{key}`, which a {task} evaluation needs"), help);
    }
    for (key, _) in foreign.iter().filter(|(_, given)| *given) {
        let key = format!("{section}.{key}");
        let message = format!("`{key}` belongs to a {other} evaluation, and this one is {task}");
        rules.refuse(&key, &[&of_task], message, "");
    }
    if eval.every_epochs.is_some() && eval.every_steps.is_some() {
        let key = format!("{section}.every_steps");
        rules.refuse(&key, &[], format!("`{section}` has both `every_epochs` and `every_steps`"), "keep one");
    }
    let key = format!("{section}.every_steps");
    rules.check(eval.every_steps != Some(0), &key, 0, "at least 1", "`every_epochs = 0` evaluates only at the end");
    rules.check(eval.batch_size >= 1, &format!("{section}.batch_size"), 0, "at least 1", "");
}
