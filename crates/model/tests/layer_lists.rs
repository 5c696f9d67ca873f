//! Towers that pool several layers and concatenate the results.

use std::collections::BTreeMap;
use std::fs;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use dualenc_model::{
    Audit, Dropout, Pool, Pooling, TakenLayers, TextTower, TowerLock, TowerOptions, image_tower_from, parameters,
    text_tower_from,
};

use crate::support::{Expected, assert_close, cls, device, goldens};
use crate::taken_layers::{IMAGE_TOWERS, TEXT_TOWERS, assert_ends, cases, image, sentence_dir, text};

fn list(pool: Pool, numbers: &[i64], norm: bool) -> TowerOptions {
    TowerOptions { pool, layers: TakenLayers { numbers: numbers.to_vec().into(), norm }, ..TowerOptions::default() }
}

/// Lists for a tower of this many layers, with the layers that they mean.
fn lists(layers: i64) -> Vec<(Vec<i64>, Vec<i64>)> {
    let all: Vec<i64> = (1..=layers).collect();
    let mut lists = vec![(all.clone(), all.clone()), (vec![-1, 1], vec![layers, 1])];
    if layers > 2 {
        // The tower ends before its last block.
        lists.extend([(vec![2, 1], vec![2, 1]), (vec![1, 1 - layers], vec![1, 2])]);
    }
    lists
}

/// The rows of `pool.LAYER.state` of these layers, side by side.
fn joined(expected: &Expected, pool: &str, layers: &[i64], state: &str) -> Vec<f32> {
    let parts: Vec<_> = layers.iter().map(|layer| &expected.floats[&format!("{pool}.{layer}.{state}")]).collect();
    let rows = parts[0].shape[0];
    let row = |row: usize| {
        parts.iter().flat_map(move |part| part.values[row * part.shape[1]..][..part.shape[1]].iter().copied())
    };
    (0..rows).flat_map(row).collect()
}

fn expected_of(name: &str) -> Expected {
    Expected::of_file(&goldens("layers").join(format!("{name}.safetensors")))
}

fn assert_note(audit: &Audit, layers: &[i64], of: i64) {
    let numbers = layers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    let note = format!("it pools layers {numbers} of {of}, concatenated");
    assert!(audit.notes.iter().any(|found| found.starts_with(&note)), "{:?}", audit.notes);
}

#[test]
fn image_lists_are_layers_side_by_side() {
    for (name, dir) in IMAGE_TOWERS {
        let expected = expected_of(name);
        let (cases, of) = cases(&expected);
        for (case, pool, _, state) in cases.into_iter().filter(|case| case.2 == 1) {
            for (numbers, layers) in lists(of) {
                let (tower, audit) = image(&goldens(dir), list(pool, &numbers, state == "norm")).unwrap();
                let pooled = tower.forward(expected.tensor("pixel_values"), &Dropout::off()).pooled;
                assert_eq!(pooled.dims()[1], tower.width(), "{name} {case} {numbers:?}");
                let pool = case.split('.').next().unwrap();
                assert_close(&format!("{name} {case} {numbers:?}"), pooled, &joined(&expected, pool, &layers, &state));
                assert_ends(name, &parameters::list(&tower), &audit, *layers.iter().max().unwrap(), of);
                if state == "norm" {
                    assert_note(&audit, &layers, of);
                }
            }
        }
    }
}

#[test]
fn text_lists_are_layers_side_by_side() {
    for (name, dir) in TEXT_TOWERS {
        let expected = expected_of(name);
        let (cases, of) = cases(&expected);
        let has_norm = cases.iter().any(|(_, _, _, state)| state == "norm");
        for (case, pool, _, state) in cases.into_iter().filter(|case| case.2 == 1) {
            for (numbers, layers) in lists(of) {
                let norm = state == "norm" || !has_norm;
                let (tower, audit) = text(&goldens(dir), list(pool, &numbers, norm)).unwrap();
                let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
                let pooled = tower.forward(&tokens, &Dropout::off()).unwrap().pooled;
                assert_eq!(pooled.dims()[1], tower.pooled_width(), "{name} {case} {numbers:?}");
                let pool = case.split('.').next().unwrap();
                assert_close(&format!("{name} {case} {numbers:?}"), pooled, &joined(&expected, pool, &layers, &state));
                assert_ends(name, &parameters::list(&tower), &audit, *layers.iter().max().unwrap(), of);
                if norm {
                    assert_note(&audit, &layers, of);
                }
            }
        }
    }
}

/// The gradients of a module's parameters by path; none for parameters without one.
fn gradients_of(module: &impl Module, gradients: &Gradients) -> BTreeMap<String, Vec<f32>> {
    struct Gather<'a> {
        path: parameters::PathStack,
        gradients: &'a Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Gather<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(self.path.path(), parameters::host(gradient).unwrap().values);
            }
        }
    }
    let mut gather = Gather { path: parameters::PathStack::default(), gradients, found: BTreeMap::new() };
    module.visit(&mut gather);
    gather.found
}

/// Factors of the pooled values in a loss, `[rows, width]`, for the layer at this place of a list.
fn factors(place: usize, [rows, width]: [usize; 2]) -> Tensor<2> {
    let value = |at: usize| ((at + 100 * place) as f32 * 0.7).sin();
    Tensor::from_data(TensorData::new((0..rows * width).map(value).collect::<Vec<_>>(), [rows, width]), &device())
}

/// The gradients of a loss over all layers at once are the sums of those over each layer alone. `run`: the pooled
/// output of a tower of these layers, and the gradients that a loss gives its parameters.
#[track_caller]
fn assert_gradients_add(
    layers: &[i64],
    run: impl Fn(&[i64], &dyn Fn([usize; 2]) -> Tensor<2>) -> BTreeMap<String, Vec<f32>>,
) {
    let found = run(layers, &|[rows, width]| {
        let place = |place| factors(place, [rows, width / layers.len()]);
        Tensor::cat((0..layers.len()).map(place).collect(), 1)
    });
    let mut expected: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (place, &layer) in layers.iter().enumerate() {
        for (path, values) in run(&[layer], &|shape| factors(place, shape)) {
            let sum = expected.entry(path).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    assert!(found.len() > 20 && found.keys().eq(expected.keys()), "{:?}\n{:?}", found.keys(), expected.keys());
    for (path, values) in &found {
        let largest = expected[path].iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let pairs = values.iter().zip(&expected[path]);
        let worst = pairs.fold(0.0f32, |most, (found, expected)| most.max((found - expected).abs()));
        assert!(worst <= 1e-4 * largest.max(1.0), "{path}: differs by {worst} of {largest}");
    }
    let is_moved = |path: &str| {
        expected.iter().any(|(name, values)| name.contains(path) && values.iter().any(|value| value.abs() > 1e-3))
    };
    assert!(is_moved("blocks.0.mlp") && is_moved("blocks.1.mlp"), "{:?}", expected.keys());
}

#[test]
fn gradients_flow_through_each_layer() {
    let expected = expected_of("vit");
    for (pool, norm) in [(Pool::ClsMean, true), (Pool::Cls, false)] {
        assert_gradients_add(&[3, 1, 2], |layers, factors| {
            let options = list(pool, layers, norm);
            let (tower, _) = image_tower_from(&goldens("towers/vit"), TowerLock::Unlocked, options, &device()).unwrap();
            let pooled = tower.forward(expected.tensor("pixel_values"), &Dropout::training(1)).pooled;
            let factors = factors(pooled.dims());
            gradients_of(&tower, &(pooled * factors).sum().backward())
        });
    }
    let expected = expected_of("mpnet");
    assert_gradients_add(&[1, 2], |layers, factors| {
        let options = TowerOptions { dropout: Some(0.0), ..list(Pool::Mean, layers, true) };
        let (tower, _) =
            text_tower_from(&goldens("text_families/mpnet"), TowerLock::Unlocked, options, &device()).unwrap();
        let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
        let pooled = tower.forward(&tokens, &Dropout::training(1)).unwrap().pooled;
        let factors = factors(pooled.dims());
        gradients_of(&tower, &(pooled * factors).sum().backward())
    });
}

/// A list of one is that layer: cache keys stay as they were. A list of several has a form of its own, in its order.
#[test]
fn forms_name_the_layers() {
    let form = |numbers: &[i64]| image(&goldens("towers/vit"), list(Pool::Cls, numbers, true)).unwrap().0.form();
    assert_eq!(form(&[-1]), image(&goldens("towers/vit"), cls()).unwrap().0.form());
    assert_eq!((form(&[3]), form(&[-1])), (form(&[-1]), form(&[3])));
    assert!(form(&[1, 3]).ends_with("pooler=dense tanh pooled-layers=[1 3]) pooling=cls"), "{}", form(&[1, 3]));
    assert_eq!(form(&[1, -1]), form(&[1, 3]));
    assert_ne!(form(&[3, 1]), form(&[1, 3]));
    let form = |numbers: &[i64]| text(&goldens("towers/bert"), list(Pool::Mean, numbers, true)).unwrap().0.form();
    assert!(form(&[1, 2]).ends_with(" pooled-layers=[1 2]) pooling=mean"), "{}", form(&[1, 2]));
    assert!(!form(&[2]).contains("pooled-layers"));
}

#[test]
fn refuses_lists() {
    let image_error = |tower: &str, options| image(&goldens(tower), options).map(drop).unwrap_err();
    let text_error = |tower: &str, options| text(&goldens(tower), options).map(drop).unwrap_err();
    for (found, expected) in [
        (
            image_error("towers/vit", list(Pool::Cls, &[1, 4], true)),
            "`image_layer` lists 4, but this image tower has 3 layers; choose one from 1 to 3, or from -3 to -1",
        ),
        (image_error("towers/vit", list(Pool::Cls, &[1, -4], true)), "`image_layer` lists -4, but this image tower"),
        (
            image_error("towers/vit", list(Pool::Cls, &[1, 3, -1], true)),
            "`image_layer` is [1, 3, -1], which lists layer 3 of 3 twice; list each layer once",
        ),
        (image_error("towers/vit", list(Pool::Cls, &[], true)), "`image_layer` lists no layer; remove the key"),
        (
            image_error("towers/vit", list(Pool::Auto, &[2, 3], true)),
            "`image_layer` takes layers 2, 3 of 3, concatenated, but the pooler was trained for the normalised output",
        ),
        (
            image_error("image_families/siglip", list(Pool::Auto, &[1, -1], true)),
            "but the pooler was trained for the normalised output of the last layer",
        ),
        (
            image_error("image_families/swin", list(Pool::Auto, &[1, -1], true)),
            "`image_layer` is [1, -1], but a `swin` has stages",
        ),
        (image_error("image_families/beit", list(Pool::Cls, &[1, 2], false)), "`image_layer_norm` is false"),
        (
            text_error("towers/bert", list(Pool::Pooler, &[1, 2], true)),
            "`text_layer` takes layers 1, 2 of 2, concatenated, but the pooler was trained",
        ),
        (text_error("text_families/albert", list(Pool::Mean, &[1, 2], true)), "`text_layer` is [1, 2], but the layers"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    // Poolings without weights of their own see every layer.
    let (tower, _) = text(&goldens("text_families/clip_text"), list(Pool::Auto, &[1, 2], true)).unwrap();
    assert_eq!((tower.pooling(), tower.pooled_width()), (Pooling::Pooler, 2 * tower.config().encoder.width));
}

/// A tower of sentence-transformers without `Dense` layers pools each layer as it was trained to pool the last.
#[test]
fn sentence_pooling_of_each_layer() {
    let dir = sentence_dir();
    let refused = text(dir.path(), list(Pool::Sentence, &[1, 2], true)).map(drop).unwrap_err();
    let expected = "`text_layer` takes layers 1, 2 of 2, concatenated, but the `Dense` layers of sentence-transformers";
    assert!(refused.contains(expected), "{refused}");
    let modules = dir.path().join("modules.json");
    let mut kept: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(&modules).unwrap()).unwrap();
    kept.retain(|module| !module["type"].as_str().unwrap().ends_with(".Dense"));
    fs::write(&modules, serde_json::to_string(&kept).unwrap()).unwrap();
    let expected = Expected::read(&goldens("layers/sentence"));
    let pooled = |tower: &TextTower| {
        let (tokens, _) = expected.tokens("", tower.config().position_count()).unwrap();
        parameters::host(tower.forward(&tokens, &Dropout::off()).unwrap().pooled).unwrap().values
    };
    let [sentence, mean] =
        [Pool::Sentence, Pool::Mean].map(|pool| text(dir.path(), list(pool, &[2, 1], true)).unwrap().0);
    assert_eq!((sentence.pooling(), sentence.pooled_width()), (Pooling::Mean, 40));
    assert_eq!(pooled(&sentence), pooled(&mean));
}
