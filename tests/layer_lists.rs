//! Several layers of a tower, pooled and concatenated, in a whole run.

use std::fs;

use serde_json::Value;

use crate::pooling::{session, train, weights};
use crate::precision::computes_bf16;
use crate::support::{Session, assert_close, column, goldens, stderr, tensors};

const LISTS: [&str; 4] =
    ["model.image_layer=[3,1]", "model.image_pool=cls+mean", "model.text_layer=[1,2]", "model.text_pool=mean"];

fn losses(session: &Session, run: &str) -> Vec<f64> {
    column(&session.metrics(run, "train"), "loss")
}

/// The steps of a cached, an uncached and a resumed run, and of one in micro-batches, are the same.
#[test]
fn lists_train_alike() {
    let session = session();
    for (name, more, trained) in [
        ("locked", &["model.lock=LL"][..], &[][..]),
        ("tuned", &["model.lock=LU"], &["text_tower.encoder.blocks.0.mlp.up.weight"]),
        // The first listed layer is outside of the gradient graph.
        (
            "last",
            &["model.lock=LL", "model.image_unlock_last=1", "model.text_unlock_last=1"],
            &["image_tower.encoder.blocks.2.mlp.up.weight", "text_tower.encoder.blocks.1.mlp.up.weight"],
        ),
        (
            "adapted",
            &["model.lock=LL", "model.image_lora={rank=2}", "model.text_lora={rank=2}"],
            &["image_tower.encoder.blocks.0.attention.query.adapter.up"],
        ),
        (
            "decayed",
            &["model.lock=UU", "train.image_layer_decay=0.5", "train.text_layer_decay=0.5"],
            &["image_tower.encoder.blocks.0.mlp.up.weight"],
        ),
    ] {
        let sets = [&LISTS[..], more].concat();
        train(&session, name, &sets);
        let resumed = format!("{name}-resumed");
        train(&session, &resumed, &[&sets[..], &["train.steps=3"]].concat());
        train(&session, &resumed, &sets);
        assert!(weights(&session, name, 6) == weights(&session, &resumed, 6), "{name}: resumed");
        let uncached = format!("{name}-uncached");
        train(&session, &uncached, &[&sets[..], &["cache.enabled=false"]].concat());
        // Means over texts round with the other texts of the batch.
        assert_close(&uncached, &losses(&session, &uncached), &losses(&session, name), 1e-5);
        let parts = format!("{name}-parts");
        train(&session, &parts, &[&sets[..], &["train.micro_batch_size=4"]].concat());
        assert_close(&parts, &losses(&session, &parts), &losses(&session, name), 1e-3);

        let saved = tensors(&session.path(name).join("checkpoints/step-000006/model.safetensors"));
        // Two layers of the class token and the mean of 20 values each, and two means of 12 values.
        assert_eq!(saved["image_projection.weight"].1, [80, 6], "{name}");
        assert_eq!(saved["text_projection.weight"].1, [24, 6], "{name}");
        trained.iter().for_each(|path| assert!(saved.contains_key(*path), "{name}: {:?}", saved.keys()));
    }
}

/// The tower ends with the highest layer of the list; images alone are the same bits with and without a cache.
#[test]
fn towers_end_with_the_highest_layer() {
    let session = session();
    let sets = ["model.lock=UL", "model.image_layer=[-2,1]", "model.image_pool=mean", "train.image_layer_decay=0.5"];
    train(&session, "run", &sets);
    let saved = tensors(&session.path("run").join("checkpoints/step-000006/model.safetensors"));
    assert!(saved.keys().any(|path| path.contains("image_tower.encoder.blocks.1.")));
    assert!(saved.keys().all(|path| !path.contains("image_tower.encoder.blocks.2.")), "{:?}", saved.keys());
    let sets = ["model.lock=LL", "model.image_layer=[-2,1]", "model.image_pool=mean"];
    train(&session, "cached", &sets);
    train(&session, "uncached", &[&sets[..], &["cache.enabled=false"]].concat());
    assert!(weights(&session, "cached", 6) == weights(&session, "uncached", 6));
    // The order of a list permutes the inputs of the head, and a list of one is that layer.
    train(&session, "one", &["model.lock=LL", "model.image_layer=[2]", "model.image_pool=mean"]);
    train(&session, "number", &["model.lock=LL", "model.image_layer=2", "model.image_pool=mean"]);
    assert!(weights(&session, "one", 6) == weights(&session, "number", 6));
    let recorded = fs::read_to_string(session.path("one/config.toml")).unwrap();
    assert!(recorded.contains("image_layer = 2\n"), "{recorded}");
}

#[test]
fn half_precision_and_fitted_heads() {
    let session = session();
    let run = |name: &str, more: &[&str]| {
        train(&session, name, &[&LISTS[..], more].concat());
        losses(&session, name)
    };
    if computes_bf16(&session) {
        let (expected, found) = (run("f32", &["model.lock=LU"]), run("bf16", &["model.lock=LU", "run.precision=bf16"]));
        assert_close("bf16", &found, &expected, 4e-2);
    }
    let (expected, found) =
        (run("locked", &["model.lock=LL"]), run("locked-f16", &["model.lock=LL", "run.locked_precision=f16"]));
    assert_close("locked f16", &found, &expected, 4e-2);
    let fitted = run("fitted", &["model.lock=LL", "model.head_init=cca", "fit.ridge=0.1", "fit.power=1"]);
    assert!(fitted[0] < expected[0], "{fitted:?} {expected:?}");
}

/// A text that was broken into lines, as one line.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn one_wrong_list_is_one_error() {
    let session = session();
    for (set, problem) in [
        ("model.image_layer=[2,2]", "`model.image_layer` lists layer 2 twice"),
        ("model.text_layer=[1,1]", "`model.text_layer` lists layer 1 twice"),
    ] {
        let text = session.fail(
            2,
            &["check", "--fast", "--config", "lit.toml", "--set", "run.dir=new", "--set", set, "--json", "found.json"],
        );
        let found: Value = serde_json::from_slice(&fs::read(session.path("found.json")).unwrap()).unwrap();
        let problems = found["findings"].as_array().unwrap().iter().filter(|it| it["level"] == "problem");
        let messages: Vec<&str> = problems.map(|it| it["message"].as_str().unwrap()).collect();
        assert!(text.contains(problem) && messages.len() == 1 && messages[0].contains(problem), "{messages:?}");
    }
}

#[test]
fn reports_name_the_layers() {
    let session = session();
    session.copy("train/images", "images");
    session.write("texts.txt", "a red circle\na green square\n");
    train(&session, "run", &[&LISTS[..], &["model.lock=LL"]].concat());
    let inspected = unwrapped(&session.succeed(&["inspect", "run"]));
    assert!(inspected.contains("of layers 3, 1 of 3, concatenated"), "{inspected}");
    assert!(inspected.contains("the mean of all tokens, of layers 1, 2 of 2, concatenated"), "{inspected}");
    for (format, program) in
        [("transformers", "transformers' VisionTextDualEncoder"), ("sentence-transformers", "sentence-transformers")]
    {
        let text = session.fail(2, &["export", "--model", "run", "--out", "no", "--format", format]);
        let text = unwrapped(&text);
        // Pooling is a reason of its own.
        let (count, end) = match format {
            "transformers" => (4, " - transformers' VisionTextDualEncoder always takes the text tower's pooler"),
            _ => (2, " `--format heads` writes the heads"),
        };
        for expected in [
            format!("{program} cannot express this model, for {count} reasons:"),
            format!(
                "- {program} pools one layer of a tower, but the image tower of this model concatenates layers 3, 1; \
                 to export, train with one layer as `image_layer` -"
            ),
            format!(
                "the text tower of this model concatenates layers 1, 2; to export, train with one layer as \
                 `text_layer`{end}"
            ),
        ] {
            assert!(text.contains(&expected), "{expected}: {text}");
        }
    }
    let text = unwrapped(&session.fail(2, &["export", "--model", "run", "--out", "no"]));
    for advice in ["to export, train with `image_pool = \"auto\"`", "to export, train with `text_pool = \"pooler\"`"] {
        assert!(text.contains(advice), "{advice}: {text}");
    }
    // sentence-transformers could express this head, and no list of layers.
    train(&session, "biased", &[&LISTS[..], &["model.lock=LL", "model.text_head.bias=true"]].concat());
    let text = unwrapped(&session.fail(2, &["export", "--model", "biased", "--out", "no"]));
    assert!(text.contains("is `linear, bias`") && !text.contains("--format sentence-transformers"), "{text}");
    session.succeed(&["export", "--model", "run", "--out", "heads", "--format", "heads"]);
    let card = fs::read_to_string(session.path("heads/README.md")).unwrap();
    assert!(card.contains("of layers 3, 1, concatenated"), "{card}");
    let order = "# (of images, layer after layer in the order 3, 1: of each the class token and the mean of the patch \
                 tokens, side by side, after the final norm of the encoder if it has one)\n\
                 # (of texts, layer after layer in the order 1, 2: of each the mean of all tokens,";
    assert!(card.contains(order), "{card}");
    assert_eq!(card.matches("- dualenc\n").count(), 1, "{card}");
    let out = ["--images", "images", "--texts", "texts.txt", "--out", "embeds.safetensors"];
    session.succeed(&[&["embed", "--model", "run"][..], &out].concat());
    assert_eq!(tensors(&session.path("embeds.safetensors"))["text_embeds"].1, [2, 6]);
    // What was said when it started is not said again.
    let said = |arguments: &[&str]| {
        let output = session.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        ["it pools layers 3, 1", "not used: pooler"].map(|part| stderr(&output).matches(part).count())
    };
    let start = ["--config", "lit.toml", "--set", "model.lock=LL"];
    let start: Vec<&str> = start.into_iter().chain(LISTS.iter().flat_map(|set| ["--set", *set])).collect();
    assert_eq!(said(&[&["train", "--set", "run.dir=again"][..], &start].concat()), [1, 2]);
    let again = ["--model", "run", "--images", "images", "--out", "again.safetensors"];
    assert_eq!(said(&[&["embed"][..], &again].concat()), [0, 0]);
    assert_eq!(said(&[&["cache", "--set", "run.dir=again"][..], &start].concat()), [0, 0]);
    let data = goldens("train/train.csv");
    let data = ["--task", "retrieval", "--data", data.to_str().unwrap()];
    assert_eq!(said(&[&["eval", "--model", "run"][..], &data].concat()), [0, 0]);
    assert_eq!(said(&["search", "--model", "run", "--index", "embeds.safetensors", "red"]), [0, 0]);
    // A run that recorded the text tower alone says so, too.
    train(&session, "text", &["model.lock=LL", "model.text_layer=[1,2]", "model.text_pool=mean"]);
    let text = session.fail(2, &["export", "--model", "text", "--out", "no"]);
    assert!(text.contains("the text tower of this model concatenates layers 1, 2"), "{text}");
    let listed: Vec<&str> = LISTS.iter().flat_map(|set| ["--set", set]).collect();
    let note = "`model.image_layer` and `model.text_layer` name several layers, which transformers cannot pool: \
                `dualenc export` writes such a model with `--format heads` only";
    for command in ["check", "plan"] {
        let said = session.succeed(&[&[command, "--config", "lit.toml", "--set", "run.dir=new"][..], &listed].concat());
        assert_eq!(said.matches(note).count(), 1, "{command}: {said}");
    }
    let said = session.succeed(&["check", "--config", "lit.toml", "--set", "run.dir=new"]);
    assert!(!said.contains("which transformers cannot pool"), "{said}");
}

#[test]
fn checkpoints_keep_their_lists() {
    let session = session();
    train(&session, "run", &[&LISTS[..], &["model.lock=LL"]].concat());
    // Another list is another run.
    let text = session
        .fail(2, &["train", "--config", "lit.toml", "--resume", "--set", "run.dir=run", "--set", "model.lock=LL"]);
    assert!(text.contains("model.image_layer") && text.contains("model.text_layer"), "{text}");
    let sets = ["model.lock=LL", "model.image_tower=", "model.text_tower=", "model.embed_dim=", "model.init=run"];
    train(&session, "next", &[&sets[..], &["train.learning_rate=1e-9", "train.steps=3"]].concat());
    let saved = tensors(&session.path("next/checkpoints/step-000003/model.safetensors"));
    assert_eq!(saved["image_projection.weight"].1, [80, 6]);
    let refused = ["train", "--config", "lit.toml", "--set", "run.dir=no", "--set", "model.image_layer=[1,3]"];
    let refused: Vec<&str> = refused.into_iter().chain(sets.iter().flat_map(|set| ["--set", set])).collect();
    let text = session.fail(2, &refused);
    assert!(text.contains("`model.image_layer` is not what the checkpoint of `model.init` was trained with"), "{text}");
}

#[test]
fn sentence_transformers_pool_each_layer() {
    let session = session();
    session.write("bert/1_Pooling/config.json", "{\"pooling_mode\": \"mean\"}");
    let lists = ["model.lock=LL", "model.text_layer=[2,1]"];
    train(&session, "auto", &lists);
    train(&session, "mean", &[&lists[..], &["model.text_pool=mean"]].concat());
    assert!(weights(&session, "auto", 6) == weights(&session, "mean", 6));
    let inspected = unwrapped(&session.succeed(&["inspect", "auto"]));
    let expected = "of layers 2, 1 of 2, concatenated, as `1_Pooling` of sentence-transformers says";
    assert!(inspected.contains(expected), "{inspected}");
}

#[test]
fn refuses_wrong_lists() {
    let session = session();
    for (set, expected) in [
        ("model.image_layer=[]", "`model.image_layer` lists no layer"),
        ("model.image_layer=[1,1]", "`model.image_layer` lists layer 1 twice"),
        ("model.text_layer=[0,1]", "`model.text_layer` is [0, 1], expected 1 or more, or -1"),
        ("model.image_layer=[1,4]", "`image_layer` lists 4, but this image tower has 3 layers"),
        ("model.image_layer=[3,-1]", "`image_layer` is [3, -1], which lists layer 3 of 3 twice"),
        ("model.image_layer=[2,3]", "but the pooler was trained for the normalised output of the last layer"),
        ("model.text_layer=[1,x]", "`model.text_layer` is the string \"[1,x]\", expected the number of a layer"),
    ] {
        let text = session.fail(2, &["train", "--config", "lit.toml", "--set", "run.dir=x", "--set", set]);
        assert!(text.contains(expected), "{set}: {text}");
    }
}
