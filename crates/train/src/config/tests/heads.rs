//! `[model.image_head]` and `[model.text_head]`: defaults by kind, and the message for each broken rule.

use dualenc_model::{HeadForm, HeadKind};

use super::{BASE, errors, load};
use crate::config::changed_keys;

#[test]
fn defaults_follow_the_kind() {
    let forms = |sets: &[&str]| {
        let model = load(BASE, sets).unwrap().model;
        [model.image_head.form(), model.text_head.form()]
    };
    assert_eq!(forms(&[]), [Some(HeadForm::LINEAR); 2]);
    for (set, kind) in [
        ("model.image_head.kind=glu", HeadKind::Gated { expansion: 8 }),
        ("model.image_head.kind=residual", HeadKind::Residual),
        ("model.image_head.kind=blocks", HeadKind::Blocks { count: 2 }),
    ] {
        let expected = HeadForm { kind, bias: true, norm: true, dropout: 0.0 };
        assert_eq!(forms(&[set]), [Some(expected), Some(HeadForm::LINEAR)], "{set}");
        // What is written to a run reads back as the same.
        let config = load(BASE, &[set]).unwrap();
        assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config, "{set}");
    }
    let set = ["model.image_head={kind='glu', expansion=4, norm=false, dropout=0.1}", "model.text_head.bias=true"];
    let glu = HeadForm { kind: HeadKind::Gated { expansion: 4 }, bias: true, norm: false, dropout: 0.1 };
    assert_eq!(forms(&set), [Some(glu), Some(HeadForm { bias: true, ..HeadForm::LINEAR })]);
    // The identity takes the width of the text tower.
    let identity = load(BASE, &["model.text_head.kind=identity"]).unwrap();
    assert_eq!((identity.model.embed_dim, identity.model.text_head.form()), (None, Some(HeadForm::IDENTITY)));
    // With `init`, a head is that of the model unless a kind is set.
    let init = ["model.init=org/model", "model.image_tower=", "model.text_tower="];
    assert_eq!(forms(&init), [None; 2]);
    assert_eq!(forms(&[&init[..], &["model.text_head.kind=linear"]].concat()), [None, Some(HeadForm::LINEAR)]);
}

#[test]
fn written_defaults_are_no_change() {
    let changes = |old: &[&str], new: &[&str]| {
        let changes = changed_keys(&load(BASE, old).unwrap(), &load(BASE, new).unwrap());
        changes.into_iter().map(|change| (change.key, change.safe)).collect::<Vec<_>>()
    };
    let written = ["model.image_head={kind='linear', bias=false, norm=false}", "model.text_head.kind=linear"];
    assert_eq!(changes(&[], &written), []);
    let blocks = "model.image_head.kind=blocks";
    assert_eq!(changes(&[blocks], &[blocks, "model.image_head.blocks=2", "model.image_head.dropout=0"]), []);
    assert_eq!(changes(&[blocks], &[blocks, "model.image_head.blocks=1"]), [("model.image_head.blocks".into(), false)]);
    assert!(changes(&[], &[blocks]).contains(&("model.image_head.kind".to_owned(), false)));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let heads = "[model.image_head]\nexpansion = 4\ndropout = 0.1\nblocks = 0\n\
                 [model.text_head]\nkind = \"glu\"\nblocks = 2\ndropout = 1.0\nexpansion = 0\n\n[data.train.csv]";
    assert_eq!(
        errors(&[("[data.train.csv]", heads)], &[]),
        r#"7 problems in the config `run.toml`
run.toml:10:13: `model.image_head.expansion` is set, but a head of kind `linear` has none
  help: remove the key, or choose another `kind`
run.toml:11:11: `model.image_head.dropout` is set, but a head of kind `linear` has none
  help: a linear head has no hidden values to drop: remove the key, or choose another `kind`
run.toml:12:10: `model.image_head.blocks` is set, but a head of kind `linear` has none
  help: remove the key, or choose another `kind`
run.toml:12:10: `model.image_head.blocks` is 0, expected at least 1
  help: a head without blocks is a linear one: set `kind = "linear"`
run.toml:15:10: `model.text_head.blocks` is set, but a head of kind `glu` has none
  help: remove the key
run.toml:16:11: `model.text_head.dropout` is 1, expected 0 or more and less than 1
run.toml:17:13: `model.text_head.expansion` is 0, expected at least 1"#
    );
}

#[test]
fn conflicts_of_heads() {
    let found = errors(
        &[(
            "lock = \"LU\"",
            "lock = \"LL\"\nimage_projection = { locked = true }\ntext_head = { kind = \"identity\" }",
        )],
        &["model.image_head.kind=identity"],
    );
    assert_eq!(
        found,
        [
            "2 problems in the config `run.toml`",
            "run.toml:7:8: nothing trains: `model.lock` is `LL` and the image projection is locked, beside a text head \
             without parameters (`identity`)",
            "  help: unlock a tower (`LU`) or a projection",
            "--set model.image_head.kind=identity: `model.image_head.kind` is `identity`, which only the text head can \
             be",
            "  help: choose another kind, or leave the image head as it is and set `model.text_head.kind`",
        ]
        .join("\n")
    );
    let found = errors(
        &[("lock = \"LU\"", "lock = \"LU\"\nimage_projection = { whitening = 0.6 }\nimage_head = { kind = \"glu\" }")],
        &[],
    );
    assert_eq!(
        found,
        [
            "1 problem in the config `run.toml`",
            "run.toml:8:34: `model.image_projection.whitening` is 0.6, but a head of kind `glu` has no linear map of \
             the features to whiten",
            "  help: choose `linear` or `residual`, or set `whitening = 0`",
        ]
        .join("\n")
    );
}

#[test]
fn rates_and_warnings_of_heads() {
    let found = errors(&[], &["train.image_projection_learning_rate=0", "train.text_projection_learning_rate=nan"]);
    assert!(found.contains("`train.image_projection_learning_rate` is 0, expected a finite number above 0"), "{found}");
    assert!(found.contains("`train.text_projection_learning_rate` is NaN"), "{found}");
    let sets = [
        "model.image_projection.locked=true",
        "model.image_head={kind='glu', dropout=0.1}",
        "model.text_head.kind=identity",
        "train.text_projection_learning_rate=1e-3",
    ];
    let warnings = load(BASE, &sets).unwrap().warnings();
    assert_eq!(
        warnings,
        [
            "`model.image_head.dropout` has no effect: the image head is locked",
            "`train.text_projection_learning_rate` has no effect: the text head has no parameters",
        ]
    );
}

#[test]
fn high_rates_of_fitted_heads_are_warned_of() {
    let fitted = ["model.head_init=cca", "model.text_layer=[1,2]", "model.text_pool=mean", "train.warmup_fraction=0.1"];
    let warnings = |sets: &[&str]| load(BASE, &[&fitted[..], sets].concat()).unwrap().warnings();
    let [warning] = &warnings(&["train.learning_rate=1e-3"])[..] else { panic!("one warning is expected") };
    assert!(warning.contains("a rate of 0.001 is likely to lose this start"), "{warning}");
    assert_eq!(warnings(&["train.learning_rate=1e-3", "train.projection_learning_rate=3e-4"]), [""; 0]);
    assert_eq!(warnings(&["train.learning_rate=1e-3", "train.optimizer=sgd"]), [""; 0]);
    assert_eq!(warnings(&["train.learning_rate=1e-3", "model.text_layer=2"]), [""; 0]);
    // On one layer, 1e-3 is the highest rate that was measured.
    let [warning] = &warnings(&["train.learning_rate=2e-3", "model.text_layer=2"])[..] else { panic!("no warning") };
    let expected = "the heads start fitted (`model.head_init`), and a rate of 0.002 is likely to lose this start: set \
                    `train.projection_learning_rate` to 1e-3 or less";
    assert_eq!(warning, expected);
    assert_eq!(warnings(&["train.learning_rate=1e-3", "model.head_init=random"]), [""; 0]);
}

/// Recipes that start from a fit warm up; without that, the first steps lose the start.
#[test]
fn short_warmups_of_fitted_heads_are_warned_of() {
    let fitted = ["model.head_init=cca", "train.learning_rate=3e-4"];
    let config = |sets: &[&str]| load(BASE, &[&fitted[..], sets].concat()).unwrap();
    for (sets, found) in [
        (&[][..], Some("there is no warm-up")),
        (&["train.warmup_steps=1"], Some("the warm-up has 1 step:")),
        (&["train.warmup_steps=11"], Some("the warm-up has 11 steps:")),
        (&["train.warmup_steps=12"], None),
        (&["train.warmup_fraction=0.1", "train.epochs=", "train.steps=50"], Some("the warm-up has 5 steps:")),
        (&["train.warmup_fraction=0.1", "train.epochs=", "train.steps=240"], None),
        (&["train.warmup_fraction=0.1"], None),
        (&["train.optimizer=sgd"], None),
        (&["model.head_init=random"], None),
    ] {
        let warnings = config(sets).warnings();
        assert_eq!(warnings.len(), usize::from(found.is_some()), "{sets:?}: {warnings:?}");
        assert!(warnings.iter().all(|it| found.is_some_and(|found| it.contains(found))), "{sets:?}: {warnings:?}");
        assert_eq!(config(sets).warnings_beside_start(), [""; 0], "a fit has no steps");
    }
    // A share of epochs is known with the data, and said once.
    let of_data = |sets: &[&str], steps| config(sets).warmup_warning_of_data(steps);
    assert!(of_data(&["train.warmup_fraction=0.1"], 5).is_some_and(|it| it.contains("has 5 steps: early steps at")));
    assert_eq!(of_data(&["train.warmup_fraction=0.1"], 24), None);
    assert_eq!(of_data(&["train.warmup_steps=5"], 5), None);
}

#[test]
fn keys_that_a_fit_replaces_are_warned_of() {
    let warnings = |sets: &[&str]| load(BASE, sets).unwrap().warnings();
    let alone = warnings(&["fit.ridge=0.1", "fit.power=1"]);
    assert_eq!(alone.len(), 2, "{alone:?}");
    assert!(alone[0].starts_with("`fit.ridge` has no effect here: only `dualenc fit` reads it"), "{alone:?}");
    let fitted = ["model.head_init=cca", "train.learning_rate=1e-4", "train.loss=sigmoid", "train.warmup_fraction=0.1"];
    let with = |more: &[&str]| warnings(&[&fitted[..], more].concat());
    let sets = ["model.logit_scale_init=3", "train.logit_bias_init=-4", "fit.ridge=0.1"];
    let found = with(&sets);
    assert_eq!(found.len(), 2, "{found:?}");
    for (found, key) in found.iter().zip(["`model.logit_scale_init`", "`train.logit_bias_init`"]) {
        assert!(found.starts_with(&format!("{key} has no effect beside `model.head_init`: a fit chooses")), "{found}");
    }
    // Defaults, and what a run wrote down.
    assert_eq!(with(&[]), [""; 0]);
    let text = load(BASE, &fitted).unwrap().to_toml().unwrap();
    assert_eq!(load(&text, &[]).unwrap().warnings(), [""; 0]);
    assert_eq!(warnings(&sets[..2].iter().chain(&["train.loss=sigmoid"]).copied().collect::<Vec<_>>()), [""; 0]);
}
