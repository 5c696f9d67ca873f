//! Towers that end at an earlier layer, and poolings of several vectors, as PyTorch computes them.

use std::fs;
use std::path::Path;

use dualenc_model::{
    Audit, Dropout, ImageTower, Pool, Pooling, TakenLayers, TextTower, TowerLock, TowerOptions, auto_text_pool,
    image_tower_from, parameters, text_tower_from,
};

use crate::support::{Expected, assert_close, cls, device, goldens};

pub const IMAGE_TOWERS: [(&str, &str); 4] = [
    ("vit", "towers/vit"),
    ("dinov2_registers", "image_families/dinov2_registers"),
    ("dinov3", "image_families/dinov3"),
    ("clip", "image_families/clip"),
];
pub const TEXT_TOWERS: [(&str, &str); 3] =
    [("bert", "towers/bert"), ("mpnet", "text_families/mpnet"), ("clip_text", "text_families/clip_text")];

pub fn image(dir: &Path, options: TowerOptions) -> Result<(ImageTower, Audit), String> {
    image_tower_from(dir, TowerLock::Locked, options, &device()).map_err(|error| error.to_string())
}

pub fn text(dir: &Path, options: TowerOptions) -> Result<(TextTower, Audit), String> {
    text_tower_from(dir, TowerLock::Locked, options, &device()).map_err(|error| error.to_string())
}

fn at(pool: Pool, number: i64, norm: bool) -> TowerOptions {
    TowerOptions { pool, layers: TakenLayers { numbers: number.into(), norm }, ..TowerOptions::default() }
}

fn pool(name: &str) -> Pool {
    serde_json::from_value(name.into()).unwrap()
}

/// The cases `pool.layer.state` of a fixture, with the number of layers.
pub fn cases(expected: &Expected) -> (Vec<(String, Pool, i64, String)>, i64) {
    let case = |name: &String| {
        let [pooled, layer, state] = name.split('.').collect::<Vec<_>>()[..] else { return None };
        Some((name.clone(), pool(pooled), layer.parse().unwrap(), state.to_owned()))
    };
    let cases: Vec<_> = expected.floats.keys().filter_map(case).collect();
    let layers = cases.iter().map(|case| case.2).max().unwrap();
    (cases, layers)
}

/// Nothing of a later block is loaded, or said to be unused.
pub fn assert_ends(name: &str, infos: &[parameters::ParamInfo], audit: &Audit, layer: i64, layers: i64) {
    let blocks = |paths: &mut dyn Iterator<Item = &str>, number: i64| {
        paths.filter(|path| path.split('.').any(|part| part == number.to_string())).count()
    };
    for number in 0..layers {
        let found = blocks(&mut infos.iter().map(|info| info.path.as_str()), number);
        assert_eq!(found > 0, number < layer, "{name}, block {number}");
        assert_eq!(blocks(&mut audit.unused.iter().map(String::as_str), number), 0, "{name}: {:?}", audit.unused);
    }
}

#[test]
fn image_layers_match_pytorch() {
    for (name, tower) in IMAGE_TOWERS {
        let expected = Expected::of_file(&goldens("layers").join(format!("{name}.safetensors")));
        let (cases, layers) = cases(&expected);
        assert!(layers > 1 && cases.len() == 6 * layers as usize, "{name}");
        for (case, pool, layer, state) in cases {
            for number in [layer, layer - layers - 1] {
                let (tower, audit) = image(&goldens(tower), at(pool, number, state == "norm")).unwrap();
                let pooled = tower.forward(expected.tensor("pixel_values"), &Dropout::off()).pooled;
                assert_eq!(pooled.dims()[1], tower.width(), "{name} {case}");
                assert_close(&format!("{name} {case}"), pooled, &expected.floats[&case].values);
                assert_ends(name, &parameters::list(&tower), &audit, layer, layers);
            }
        }
    }
}

#[test]
fn text_layers_match_pytorch() {
    for (name, tower) in TEXT_TOWERS {
        let expected = Expected::of_file(&goldens("layers").join(format!("{name}.safetensors")));
        let (cases, layers) = cases(&expected);
        assert!(layers > 1 && cases.len() >= 2 * layers as usize, "{name}");
        let has_norm = cases.iter().any(|(_, _, _, state)| state == "norm");
        for (case, pool, layer, state) in cases {
            // Without a final norm, the output of a block is taken as it is.
            let norm = state == "norm" || !has_norm;
            let (tower, audit) = text(&goldens(tower), at(pool, layer, norm)).unwrap();
            let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
            let pooled = tower.forward(&tokens, &Dropout::off()).unwrap().pooled;
            assert_close(&format!("{name} {case}"), pooled, &expected.floats[&case].values);
            assert_ends(name, &parameters::list(&tower), &audit, layer, layers);
        }
    }
}

#[test]
fn patch_mean_is_mean() {
    for (name, tower) in IMAGE_TOWERS {
        let [mean, patch_mean] =
            [Pool::Mean, Pool::PatchMean].map(|pool| image(&goldens(tower), at(pool, -1, true)).unwrap().0);
        assert_eq!((mean.form(), mean.width()), (patch_mean.form(), patch_mean.width()), "{name}");
        let pixels =
            || Expected::of_file(&goldens("layers").join(format!("{name}.safetensors"))).tensor("pixel_values");
        let pooled = |tower: &ImageTower| parameters::host(tower.forward(pixels(), &Dropout::off()).pooled).unwrap();
        assert_eq!(pooled(&mean).values, pooled(&patch_mean).values, "{name}");
    }
}

/// Cache keys of towers without the options stay as they were; the last layer by its number is the same tower.
#[test]
fn forms_change_only_with_options() {
    let form = |options| image(&goldens("towers/vit"), options).unwrap().0.form();
    assert_eq!(form(at(Pool::Cls, 3, true)), form(cls()));
    assert!(form(at(Pool::Cls, 3, false)).contains("pooler=dense tanh skip-final-norm) pooling=cls"));
    assert!(form(at(Pool::ClsMean, -1, true)).ends_with("pooler=dense tanh) pooling=cls+mean"));
    let text = |options| text(&goldens("text_families/clip_text"), options).unwrap().0.form();
    assert_eq!(text(at(Pool::Cls, 2, true)), text(cls()));
    assert!(text(at(Pool::Cls, 2, false)).contains(" skip-final-norm) pooling=cls"));
}

#[test]
fn refuses_layers_and_poolings() {
    let image_error = |tower: &str, options| image(&goldens(tower), options).map(drop).unwrap_err();
    let text_error = |tower: &str, options| text(&goldens(tower), options).map(drop).unwrap_err();
    for (found, expected) in [
        (image_error("towers/vit", at(Pool::Cls, 4, true)), "`image_layer` is 4, but this image tower has 3 layers"),
        (image_error("towers/vit", at(Pool::Cls, -4, true)), "choose one from 1 to 3, or from -3 to -1"),
        (image_error("towers/vit", at(Pool::Auto, 2, true)), "the pooler was trained for the normalised output"),
        (
            image_error("towers/vit", at(Pool::Auto, -1, false)),
            "set `image_pool` to one of \"cls\", \"mean\", \"cls+mean\"",
        ),
        (image_error("image_families/swin", at(Pool::Auto, 1, true)), "`image_layer` is 1, but a `swin` has stages"),
        (
            image_error("image_families/convnext", at(Pool::Auto, -1, false)),
            "`image_layer_norm` is false, but a `convnext`",
        ),
        (image_error("image_families/beit", at(Pool::Cls, 1, false)), "`image_layer_norm` is false, but a `beit`"),
        (
            image_error("image_families/siglip", at(Pool::ClsMean, -1, true)),
            "no class token; choose among \"auto\", \"mean\"",
        ),
        (image_error("image_families/convnext", at(Pool::ClsMean, -1, true)), "it has no class token"),
        (image_error("image_families/swin", at(Pool::PatchMean, -1, true)), "it has no patch tokens: `mean` is"),
        (image_error("towers/vit", at(Pool::Sentence, -1, true)), "it is a pooling of text towers"),
        (text_error("towers/bert", at(Pool::Pooler, 1, true)), "set `text_pool` to one of \"cls\", \"mean\", \"last\""),
        (text_error("towers/bert", at(Pool::Mean, 1, false)), "`text_layer_norm` is false, but a `bert` has no norm"),
        (text_error("towers/bert", at(Pool::ClsMean, -1, true)), "`text_pool` is a pooling of image towers"),
        (text_error("towers/bert", at(Pool::Sentence, -1, true)), "for the pooling of transformers, \"auto\""),
        (text_error("towers/bert", at(Pool::Sentence, 1, true)), "choose \"cls\", \"mean\" or \"last\""),
        (text_error("text_families/albert", at(Pool::Mean, 1, true)), "share 2 groups of weights"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    // The token at the end of the text has no weights of its own.
    let (tower, _) = text(&goldens("text_families/clip_text"), at(Pool::Auto, 1, true)).unwrap();
    assert_eq!((tower.pooling(), tower.num_layers()), (Pooling::Pooler, 1));
}

/// `towers/bert` with the files of sentence-transformers.
pub fn sentence_dir() -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    for file in ["config.json", "model.safetensors"] {
        copy(&goldens("towers/bert").join(file), &target.path().join(file));
    }
    let dense =
        ["2_Dense", "3_Dense"].map(|dir| ["config.json", "model.safetensors"].map(|file| format!("{dir}/{file}")));
    for file in ["modules.json".to_owned(), "1_Pooling/config.json".to_owned()].into_iter().chain(dense.concat()) {
        copy(&goldens("layers/sentence").join(&file), &target.path().join(&file));
    }
    target
}

#[test]
fn sentence_transformers_with_dense_layers() {
    let (dir, expected) = (sentence_dir(), Expected::read(&goldens("layers/sentence")));
    // The weights hold a pooler, with which transformers can run the model: for the last layer alone.
    let auto = |numbers| auto_text_pool(dir.path(), &TakenLayers { numbers, norm: true });
    assert_eq!((auto((-1).into()), auto(vec![2].into())), (Pool::Auto, Pool::Auto));
    assert_eq!((auto(1.into()), auto(vec![2, 1].into())), (Pool::Sentence, Pool::Sentence));
    let pooled = |tower: &TextTower| {
        let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
        tower.forward(&tokens, &Dropout::off()).unwrap().pooled
    };
    let (tower, audit) = text(dir.path(), at(Pool::Sentence, -1, true)).unwrap();
    assert_eq!((tower.pooled_width(), tower.dense_layers().len(), audit.notes.len()), (9, 2, 0), "{:?}", audit.notes);
    assert_close("sentence", pooled(&tower), &expected.floats["sentence_embedding"].values);
    assert!(tower.form().ends_with("pooling=mean dense=[20->14 bias=true tanh 14->9 bias=false identity]"));
    // What is asked for by name has no layers after it.
    let (tower, audit) = text(dir.path(), at(Pool::Mean, -1, true)).unwrap();
    assert_close("mean", pooled(&tower), &expected.floats["pooled"].values);
    assert!(audit.notes.len() == 2 && audit.notes[0].contains("`2_Dense`"), "{:?}", audit.notes);
    // A run that recorded `auto` had the pooler.
    assert_eq!(text(dir.path(), TowerOptions::default()).unwrap().0.pooling(), Pooling::Pooler);
    let inner = text(dir.path(), at(Pool::Sentence, 1, true)).map(drop).unwrap_err();
    assert!(inner.contains("`Dense` layers of sentence-transformers were trained for the last layer"), "{inner}");
}

#[test]
fn refuses_dense_layers_it_cannot_apply() {
    for (file, content, expected) in [
        (
            "3_Dense/config.json",
            r#"{"in_features": 13, "out_features": 9}"#,
            "`in_features` is 13, but what comes before",
        ),
        ("3_Dense/config.json", r#"{"in_features": 14}"#, "`out_features` is null"),
        (
            "3_Dense/config.json",
            r#"{"activation_function": "torch.nn.Mish"}"#,
            "`torch.nn.Mish`, which is not supported",
        ),
        ("3_Dense/config.json", r#"{"use_residual": true}"#, "`use_residual` is true"),
        ("3_Dense/config.json", r#"{"module_input_name": "token_embeddings"}"#, "does not map `sentence_embedding`"),
        ("3_Dense/config.json", "", "its config is missing"),
        ("2_Dense/model.safetensors", "", "no `model.safetensors` beside it"),
    ] {
        let dir = sentence_dir();
        let path = dir.path().join(file);
        fs::remove_file(&path).unwrap();
        if !content.is_empty() {
            fs::write(&path, content).unwrap();
        }
        let error = text(dir.path(), at(Pool::Sentence, -1, true)).map(drop).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
        // The pooling alone needs none of these files.
        text(dir.path(), at(Pool::Mean, -1, true)).unwrap();
    }
}

#[test]
fn auto_follows_sentence_transformers() {
    let dir = sentence_dir();
    let weights = dir.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let others: Vec<_> = file.iter().filter(|(name, _)| !name.contains("pooler")).collect();
    assert!(others.len() < file.len());
    fs::write(&weights, safetensors::serialize(others, None).unwrap()).unwrap();
    assert_eq!(auto_text_pool(dir.path(), &TakenLayers::default()), Pool::Sentence);
    let pooling = dir.path().join("1_Pooling/config.json");
    fs::write(&pooling, r#"{"pooling_mode": "max"}"#).unwrap();
    assert_eq!(auto_text_pool(dir.path(), &TakenLayers::default()), Pool::Auto);
    fs::remove_file(&pooling).unwrap();
    assert_eq!(auto_text_pool(dir.path(), &TakenLayers::default()), Pool::Auto);
    // A whole model has its own pooling.
    let whole = tempfile::tempdir().unwrap();
    fs::copy(goldens("whole/clip").join("config.json"), whole.path().join("config.json")).unwrap();
    fs::create_dir(whole.path().join("1_Pooling")).unwrap();
    fs::write(whole.path().join("1_Pooling/config.json"), r#"{"pooling_mode": "mean"}"#).unwrap();
    assert_eq!(auto_text_pool(whole.path(), &TakenLayers::default()), Pool::Auto);
}
