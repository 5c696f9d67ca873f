//! The parts of the card that depend on the log of a run, and escaping.

use serde_json::json;

use crate::commands::export::model_card::figures;
use crate::commands::export::model_card::markdown::{escape, grouped, quoted, table};
use crate::commands::export::model_card::origin::Origin;

fn origin(log: &str, step: u64, with_figures: bool) -> Origin {
    let mut origin = Origin { step: Some(step), ..Origin::default() };
    origin.read(log.as_bytes(), step, with_figures).unwrap();
    origin
}

fn eval(step: u64, name: &str, acc1: f64, fingerprint: &str) -> String {
    json!({
        "kind": "eval", "step": step, "name": name, "task": "zero-shot", "fingerprint": fingerprint, "acc1": acc1,
        "acc1_ci95": [acc1 - 0.1, acc1 + 0.1], "acc5": null, "num_images": 1200, "num_classes": 3, "num_unreadable": 2,
    })
    .to_string()
        + "\n"
}

#[test]
fn figures_are_of_exported_step() {
    let log = [
        eval(0, "a", 0.25, "x"),
        eval(0, "b", 0.5, "old"),
        "{\"kind\":\"train\",\"step\":5,\"loss\":2.5}\n".to_owned(),
        eval(5, "a", 0.5, "x"),
        eval(5, "b", 0.625, "new"),
        eval(10, "a", 0.75, "x"),
        "{\"kind\":\"ev".to_owned(),
    ]
    .concat();
    let found = origin(&log, 5, true);
    assert_eq!(found.last_step.as_ref().unwrap()["loss"], 2.5);
    let text = figures::section(&found.figures, found.step);
    let expected = "\
**a** (zero-shot; 1,200 images, 3 classes; left out: 2 unreadable images)

| metric | value | 95 % interval | before training |
| --- | ---: | ---: | ---: |
| `acc1` | 0.5000 | 0.4000 to 0.6000 | 0.2500 |
| `acc5` | - |  | - |

**b** (zero-shot; 1,200 images, 3 classes; left out: 2 unreadable images)

| metric | value | 95 % interval |
| --- | ---: | ---: |
| `acc1` | 0.6250 | 0.5250 to 0.7250 |
| `acc5` | - |  |

Intervals: 95 %, by the percentile bootstrap over the images with all of their texts; of fractions that are 0 or 1, \
Wilson's score interval.";
    assert_eq!(text, expected, "{text}");
    // Step 7 was not evaluated; the figures of step 5 are not its own.
    let later = origin(&log, 7, true);
    assert!(figures::section(&later.figures, later.step).contains("measured at step 5, before the exported weights"));
    assert!(origin(&log, 5, false).figures.is_empty(), "a mixture was never evaluated");
}

#[test]
fn names_cannot_break_the_card() {
    assert_eq!(escape("a|b\n# `c` <d> [e](f)"), "a\\|b \\# \\`c\\` \\<d\\> \\[e\\](f)");
    assert_eq!(quoted("a\"b: #c\n"), r#""a\"b: #c\n""#);
    assert_eq!([7, 1234, 1_000_000].map(grouped), ["7", "1,234", "1,000,000"]);
    assert_eq!(table(["a", "b"], "---:", &[["1".into(), "2".into()]]), "| a | b |\n| --- | ---: |\n| 1 | 2 |");
}

#[test]
fn figures_of_cut_embeddings_are_their_own() {
    let line = |step: u64, name: &str, metrics: serde_json::Value| {
        let mut line = json!({"kind": "eval", "step": step, "name": name, "task": "retrieval", "fingerprint": "x"});
        line.as_object_mut().unwrap().extend(metrics.as_object().cloned().unwrap());
        line.to_string() + "\n"
    };
    let nested = |a: f64, b: f64| json!({"acc1": a, "acc1_ci95": [0.1, 0.2], "acc1_dim8": b, "num_images": 1200});
    let log = [
        line(0, "a", nested(0.25, 0.125)),
        line(5, "a", nested(0.75, 0.5)),
        line(5, "b", json!({"acc1": 0.75, "num_images": 3})),
    ];
    let mut found = origin(&log.concat(), 5, true);
    found.keep_width(8);
    let expected = "\
**a** (retrieval; 1,200 images)

| metric | value | before training |
| --- | ---: | ---: |
| `acc1` | 0.5000 | 0.1250 |";
    assert_eq!(figures::section(&found.figures, found.step), expected);
}
