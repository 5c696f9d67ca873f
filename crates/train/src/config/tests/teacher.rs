//! `[train.teacher]`: defaults by loss, its path, and the message for each broken rule.

use super::{BASE, errors, load};

#[test]
fn scale_follows_the_loss() {
    let teacher = |sets: &[&str]| load(BASE, sets).unwrap().train.teacher.unwrap();
    assert_eq!(load(BASE, &[]).unwrap().train.teacher, None);
    let hub = "train.teacher.model=openai/clip-vit-base-patch32";
    let found = teacher(&[hub]);
    assert_eq!(found.model, "openai/clip-vit-base-patch32");
    assert_eq!((found.weight, found.scale, found.bias), (0.5, Some(60.0), None));
    assert_eq!(teacher(&[hub, "train.loss=sigmoid"]).scale, None);
    let config = load(BASE, &["train.teacher={model='../runs/old', weight=1, scale=80}"]).unwrap();
    let found = config.train.teacher.clone().unwrap();
    assert_eq!((found.model.as_str(), found.weight, found.scale), ("/runs/old", 1.0, Some(80.0)));
    // What is written to a run reads back as the same.
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn teacher_rules() {
    let edit = |more: &str, sets: &[&str]| {
        errors(&[("[eval.vendor]", &format!("[train.teacher]\n{more}\n\n[eval.vendor]"))], sets)
    };
    assert_eq!(
        edit("model = \"\"\nweight = 0\nscale = -1\nbias = 2.0", &[]),
        r#"4 problems in the config `run.toml`
run.toml:18:9: `train.teacher.model` is empty
  help: a run, a checkpoint, a whole model such as `openai/clip-vit-base-patch32`, or no `[train.teacher]`
run.toml:19:10: `train.teacher.weight` is 0, expected above 0 and at most 1
  help: remove `[train.teacher]` to train without one
run.toml:20:9: `train.teacher.scale` is -1, expected a finite number above 0
run.toml:21:8: `train.teacher.bias` is set, but `train.loss` is `softmax`, which has no bias
  help: remove it, or set `loss = "sigmoid"`"#
    );
    assert_eq!(
        edit("model = \"./clip\"\nbias = inf", &["train.loss=sigmoid", "model.lock=LL", "train.mixup_alpha=0.5"]),
        r#"2 problems in the config `run.toml`
run.toml:19:8: `train.teacher.bias` is inf, expected a finite number
--set train.mixup_alpha=0.5: `train.mixup_alpha` is 0.5, but there is a `[train.teacher]`, which knows no blends
  help: remove one of them"#
    );
}

#[test]
fn teacher_refuses_features_as_data() {
    let sets = ["model.image_tower=", "data.train={features={images='i.npy', texts='t.npy'}}", "model.text_tower="];
    let sets = [&sets[..], &["model.lock=LL", "train.teacher.model=./clip"]].concat();
    let found = load(BASE, &sets).unwrap_err();
    for side in ["images", "texts"] {
        let message =
            format!("`train.teacher.model` is set, but the data have features of {side}: a teacher needs the");
        assert!(found.contains(&message), "{found}");
    }
}
