//! Evaluation, embedding and export of a trained model agree for a run, its checkpoint and its exported directory.

use std::fs;

use serde_json::Value;

use crate::support::{Session, edit_floats, floats, goldens, stderr, tensors};

/// A finished run on the golden data, with a zero-shot and a retrieval evaluation.
fn trained() -> Session {
    let session = Session::new();
    for (class, images) in [("red_square", ["00", "01"]), ("blue_circle", ["02", "03"]), ("thing", ["04", "05"])] {
        for image in images {
            let source = goldens(&format!("train/images/{image}.png"));
            session.write(&format!("classes/{class}/{image}.png"), fs::read(source).unwrap());
        }
    }
    session.write("templates.txt", "{c}\na picture of a {c}\n");
    let rows: String = (0..6)
        .flat_map(|image| {
            [format!("{image:02}.png,caption {image}\n"), format!("{image:02}.png,another text {image}\n")]
        })
        .collect();
    for image in 0..6 {
        let source = goldens(&format!("train/images/{image:02}.png"));
        session.write(&format!("retrieval/{image:02}.png"), fs::read(source).unwrap());
    }
    session.write("retrieval/pairs.csv", format!("image,caption\n{rows}"));
    session.write_config(
        "[eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\ntemplates = \"templates.txt\"\nevery_steps = 5\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"retrieval/pairs.csv\"\nevery_epochs = 2\n",
    );
    session.succeed(&["train", "--config", "lit.toml", "--set", "model.lock=LU"]);
    session
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn metrics_agree_across_run_and_export() {
    let session = trained();
    let logged = session.metrics("run", "eval");
    let steps = |name: &str| -> Vec<u64> {
        logged.iter().filter(|line| line["name"] == name).map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("classes"), [0, 5, 10, 12]);
    assert_eq!(steps("pairs"), [0, 6, 12]);

    let by_config = json(&session.succeed(&["eval", "--config", "lit.toml", "--json", "-"]));
    assert_eq!(by_config["step"], 12);
    for name in ["classes", "pairs"] {
        let line = logged.iter().rfind(|line| line["name"] == name).unwrap();
        for (metric, value) in by_config["evaluations"][name].as_object().unwrap() {
            assert_eq!(&line[metric], value, "{name}: {metric}");
        }
    }
    let classes = &by_config["evaluations"]["classes"];
    assert_eq!(
        (&classes["num_images"], &classes["num_classes"], &classes["acc5"]),
        (&6.into(), &3.into(), &Value::Null)
    );
    let pairs = &by_config["evaluations"]["pairs"];
    assert_eq!((&pairs["num_images"], &pairs["num_texts"]), (&6.into(), &12.into()));
    assert_eq!(pairs["image_retrieval_recall@10"], 1.0);

    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    for model in ["run", "run/checkpoints/step-000012", "hf"] {
        let zero_shot =
            ["eval", "--model", model, "--task", "zero-shot", "--images", "classes", "--templates", "templates.txt"];
        let step = if model == "hf" { 0 } else { 12 };
        let figures = |arguments: &[&str]| {
            let mut found = json(&session.succeed(arguments));
            let found = found.as_object_mut().unwrap();
            assert_eq!((found.remove("model"), found.remove("step")), (Some(model.into()), Some(step.into())));
            Value::Object(found.clone())
        };
        assert_eq!(&figures(&[zero_shot.as_slice(), &["--json", "-"]].concat()), classes, "{model}");
        let retrieval =
            ["eval", "--model", model, "--task", "retrieval", "--data", "retrieval/pairs.csv", "--json", "-"];
        assert_eq!(&figures(&retrieval), pairs, "{model}");
    }
    session.succeed(&["eval", "--config", "lit.toml", "--checkpoint", "hf", "--json", "metrics.json"]);
    assert_eq!(json(&fs::read_to_string(session.path("metrics.json")).unwrap())["evaluations"]["pairs"], *pairs);
}

#[test]
fn normalised_embeds_survive_export() {
    let session = trained();
    session.write("texts.txt", "a red square\nsomething else entirely\nred\n");
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    for model in ["run", "hf"] {
        let out = format!("{model}.safetensors");
        let arguments =
            ["embed", "--model", model, "--images", "retrieval", "--texts", "texts.txt", "--raw", "--out", &out];
        session.succeed(&arguments);
    }
    let (run, hf) = (session.path("run.safetensors"), session.path("hf.safetensors"));
    for (kind, rows) in [("image", 6), ("text", 3)] {
        let (_, shape, _) = &tensors(&run)[&format!("{kind}_embeds")];
        assert_eq!(shape[0], rows);
        let (embeds, features) = (floats(&run, &format!("{kind}_embeds")), floats(&run, &format!("{kind}_features")));
        for (embed, feature) in embeds.chunks(shape[1]).zip(features.chunks(shape[1])) {
            let norm = feature.iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!(embed.iter().zip(feature).all(|(embed, feature)| (embed - feature / norm).abs() < 1e-6));
        }
        let exported = floats(&hf, &format!("{kind}_features"));
        let worst = features.iter().zip(&exported).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{kind}: export changed features by {worst}");
    }
    let bytes = fs::read(&run).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let paths = json(&metadata.metadata().as_ref().unwrap()["image_paths"]);
    let names: Vec<&str> =
        paths.as_array().unwrap().iter().map(|path| path.as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["00.png", "01.png", "02.png", "03.png", "04.png", "05.png"]);
}

#[test]
fn text_embeds_match_reference() {
    let session = Session::new();
    let dir = goldens("dual/vit_bert");
    let bytes = fs::read(dir.join("expected.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let captions = json(&metadata.metadata().as_ref().unwrap()["captions"]);
    let lines: Vec<&str> = captions.as_array().unwrap().iter().map(|caption| caption.as_str().unwrap()).collect();
    session.write("texts.txt", lines.join("\n"));
    for model in ["dual/vit_bert", "dual/vit_bert_v4"] {
        let model = goldens(model);
        session.succeed(&[
            "embed",
            "--model",
            model.to_str().unwrap(),
            "--texts",
            "texts.txt",
            "--raw",
            "--out",
            "out.safetensors",
        ]);
        for name in ["text_embeds", "text_features"] {
            let found = floats(&session.path("out.safetensors"), name);
            let expected = floats(&dir.join("expected.safetensors"), name);
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4, "{name} differs by {worst}");
        }
    }
}

/// An output that exists is kept unless there is something better.
#[test]
fn failed_embed_keeps_old_file() {
    let session = Session::new();
    let model = goldens("train/init");
    let model = model.to_str().unwrap();
    session.write("out.safetensors", "old");
    session.write("bad/0.png", "<html>404</html>");
    fs::create_dir(session.path("empty")).unwrap();
    session.write("empty.txt", "");
    session.write("blank.txt", "one\n \nthree\n\n");
    session.copy("train/images", "some");
    session.write("some/07.png", "not an image");
    let embed = |input: &[&'static str]| [&["embed", "--model", model, "--out", "out.safetensors"][..], input].concat();
    for (input, expected) in [
        (["--images", "empty"], "`empty` has no images"),
        (["--images", "bad"], "1 of 1 images cannot be used"),
        (["--images", "some"], "1 of 24 images cannot be used, more than `--max-bad-fraction` 0.01 allows"),
        (["--texts", "empty.txt"], "`empty.txt`: it is empty"),
        (["--texts", "blank.txt"], "`blank.txt`: lines 2, 4 are blank"),
    ] {
        let text = session.fail(2, &embed(&input));
        assert!(text.contains(expected), "{text}");
        assert_eq!(fs::read(session.path("out.safetensors")).unwrap(), b"old");
    }
    let text = session.fail(2, &embed(&["--images", "bad", "--max-bad-fraction", "1"]));
    assert!(text.contains("1 of 1 images cannot be used") && !text.contains("raise"), "{text}");

    let output = session.run(&embed(&["--images", "some", "--max-bad-fraction", "0.05"]));
    assert!(output.status.success() && stderr(&output).contains("skipped `some/07.png`"), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().contains("wrote 23 image and 0 text embeddings"));
    assert_eq!(floats(&session.path("out.safetensors"), "image_embeds").len(), 23 * 24);
    let names: Vec<_> = fs::read_dir(session.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains(".tmp-")), "{names:?}");
}

#[test]
fn cls_pooling_exports_linear_pooler() {
    let session = Session::new();
    session.write_config("");
    let pair = [
        format!("model.image_tower={}", goldens("train/vit").display()),
        format!("model.text_tower={}", goldens("train/bert").display()),
    ];
    let sets = ["model.init=", "model.embed_dim=6", "model.image_pool=cls", "model.lock=LU", &pair[0], &pair[1]];
    let mut arguments = vec!["train", "--config", "lit.toml"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let config = json(&fs::read_to_string(session.path("hf/config.json")).unwrap());
    assert_eq!(config["vision_config"]["pooler_act"], "linear");
    let images = goldens("train/images");
    for model in ["run", "hf"] {
        let out = format!("{model}.safetensors");
        session.succeed(&["embed", "--model", model, "--images", images.to_str().unwrap(), "--raw", "--out", &out]);
    }
    let (run, hf) = (
        floats(&session.path("run.safetensors"), "image_features"),
        floats(&session.path("hf.safetensors"), "image_features"),
    );
    assert!(run.len() == 24 * 6 && run.iter().zip(&hf).all(|(a, b)| (a - b).abs() <= 1e-6));

    let mut arguments = vec!["train", "--config", "lit.toml", "--set", "run.dir=mean", "--set", "model.text_pool=mean"];
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    session.succeed(&arguments);
    let text = session.fail(2, &["export", "--model", "mean", "--out", "hf2"]);
    assert!(text.contains("always takes the text tower's pooler") && text.contains("text_pool"), "{text}");
    assert!(!session.path("hf2").exists());
}

#[test]
fn resnet_trains_but_cannot_export() {
    let session = Session::new();
    session.write_config("");
    let tower = goldens("image_families/resnet_basic");
    let pair = [
        format!("model.image_tower={}", tower.display()),
        format!("model.text_tower={}", goldens("train/bert").display()),
    ];
    let mut arguments = vec!["train", "--config", "lit.toml", "--set", &pair[0], "--set", &pair[1]];
    for set in ["model.init=", "model.embed_dim=6", "model.lock=UU", "model.image_size=32", "train.epochs=2"] {
        arguments.extend(["--set", set]);
    }
    session.succeed(&arguments);
    let images = goldens("train/images");
    session.succeed(&[
        "embed",
        "--model",
        "run",
        "--images",
        images.to_str().unwrap(),
        "--raw",
        "--out",
        "run.safetensors",
    ]);
    let features = floats(&session.path("run.safetensors"), "image_features");
    assert!(features.len() == 24 * 6 && features.iter().all(|value| value.is_finite()));

    let text = session.fail(2, &["export", "--model", "run", "--out", "hf"]);
    assert!(text.contains("cannot project a `resnet` image tower") && text.contains("convnext"), "{text}");
    assert!(!session.path("hf").exists());
}

#[test]
fn trains_from_clip_or_siglip() {
    let session = Session::new();
    session.write_config("");
    let images = goldens("train/images");
    session.write("texts.txt", "a red dog\nthe blue sea\n");
    for (name, loss) in [("clip", "softmax"), ("clip_early", "sigmoid"), ("siglip", "sigmoid"), ("siglip", "softmax")] {
        let run = format!("{name}_{loss}");
        let sets = [
            format!("model.init={}", goldens(&format!("whole/{name}")).display()),
            format!("train.loss={loss}"),
            format!("run.dir={run}"),
            "train.epochs=1".to_owned(),
            "data.max_tokens=24".to_owned(),
        ];
        let mut arguments = vec!["train", "--config", "lit.toml"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        session.succeed(&arguments);
        let out = format!("{run}.safetensors");
        let embed =
            ["embed", "--model", &run, "--images", images.to_str().unwrap(), "--texts", "texts.txt", "--out", &out];
        session.succeed(&embed);
        assert!(floats(&session.path(&out), "text_embeds").iter().all(|value| value.is_finite()), "{run}");
        let export = ["export", "--model", &run, "--out", &format!("{run}_hf")];
        if name == "siglip" {
            assert!(session.fail(2, &export).contains("`siglip_text_model`"));
        } else {
            let output = session.run(&export);
            assert!(output.status.success(), "{}", stderr(&output));
            assert_eq!(stderr(&output).contains("`logit_bias`"), loss == "sigmoid", "{}", stderr(&output));
        }
    }
}

#[test]
fn overflowing_embeddings_are_an_error() {
    let session = Session::new();
    session.copy("train/images", "classes/thing");
    session.copy("train/images", "classes/other");
    session.write("texts.txt", "a red square\n");
    let zero_shot = ["--task", "zero-shot", "--images", "classes"];
    let (images, texts) = (["--images", "classes", "--out", "x"], ["--texts", "texts.txt", "--out", "x"]);
    for (tensor, input) in [("visual_projection.weight", "00.png"), ("text_projection.weight", "text `")] {
        let model = session.copy("train/init", tensor);
        // Finite weights, and sums past the largest `f32`.
        edit_floats(&model.join("model.safetensors"), tensor, |value| if value < 0.0 { -3e38 } else { 3e38 });
        let embed = if tensor.starts_with("visual") { images } else { texts };
        for arguments in [[&["eval", "--model", tensor], &zero_shot[..]], [&["embed", "--model", tensor], &embed]] {
            let text = session.fail(3, &arguments.concat());
            assert!(text.contains("not finite") && text.contains(input) && text.contains("weights"), "{text}");
        }
        assert!(!session.path("x").exists());
    }
    let model = session.copy("train/init", "scale");
    edit_floats(&model.join("model.safetensors"), "logit_scale", |_| 1e30);
    let data = goldens("train/train.csv");
    let loss = ["eval", "--model", "scale", "--task", "loss", "--data", data.to_str().unwrap(), "--pool-size", "8"];
    let text = session.fail(3, &loss);
    assert!(text.contains("the loss of the pool") && text.contains("`logit_scale`"), "{text}");
}

#[test]
fn half_precision_overflow_names_image() {
    let session = Session::new();
    session.write_config("");
    let init = session.copy("train/init", "init");
    // In `f16`, a weight of 1e6 is infinite.
    edit_floats(&init.join("model.safetensors"), "vision_model.layernorm.weight", |value| value * 1e6);
    let train = ["train", "--config", "lit.toml", "--set", "model.init=init", "--set", "model.lock=LL", "--set"];
    for cache in ["cache.enabled=true", "cache.enabled=false"] {
        let run = format!("run.dir={cache}");
        let half = [&train[..], &[cache, "--set", &run, "--set", "run.locked_precision=f16"]].concat();
        let text = session.fail(3, &half);
        assert!(text.contains("00.png") && text.contains("not finite"), "{text}");
        assert!(text.contains("`run.locked_precision` is `f16`"), "{text}");
    }
    session.succeed(&[&train[..], &["run.dir=single"]].concat());
    // The same for texts.
    let init = session.copy("train/init", "init");
    edit_floats(&init.join("model.safetensors"), "text_model.pooler.dense.weight", |value| value * 1e6);
    let text = session.fail(3, &[&train[..], &["run.dir=texts", "--set", "run.locked_precision=f16"]].concat());
    assert!(text.contains("text tower") && text.contains("`run.locked_precision` is `f16`"), "{text}");
}

#[test]
fn unreadable_images_are_counted_up_to_limit() {
    let session = Session::new();
    session.copy("train/images", "classes/thing");
    session.copy("train/images", "classes/other");
    session.copy("train/images", "images");
    let rows = fs::read_to_string(goldens("train/train.csv")).unwrap();
    session.write("pairs.csv", format!("{rows}images/05.png,\n"));
    for image in ["classes/thing/03.png", "images/03.png"] {
        session.write(image, "<!DOCTYPE html>not found");
    }
    session.write_config(
        "[eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\n\
         [eval.pairs]\ntask = \"retrieval\"\ndata = \"pairs.csv\"\n\
         [eval.held]\ntask = \"loss\"\ndata = \"pairs.csv\"\npool_size = 8\n",
    );
    let tolerant = ["--config", "lit.toml", "--set", "data.max_bad_fraction=0.05", "--set", "train.epochs=1"];
    let output = session.run(&[&["train"], &tolerant[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    // Beside each figure: on the progress lines, in the log, in the table.
    let of = [("classes", 47, 48), ("pairs", 23, 24), ("held", 23, 24)];
    let table = session.succeed(&[&["eval"], &tolerant[..]].concat());
    for (name, used, listed) in of {
        let line = &session.metrics("run", "eval").into_iter().find(|line| line["name"] == name).unwrap();
        assert_eq!((&line["num_images"], &line["num_unreadable"]), (&used.into(), &1.into()), "{name}");
        let expected = format!("1 of {listed} images cannot be used");
        let text = stderr(&output);
        let summary = text.lines().find(|line| line.contains(&format!("  {name}: "))).unwrap();
        assert!(summary.contains(&expected), "{summary}");
        assert_eq!(summary.contains("1 row is left out"), name != "classes", "{summary}");
        let heading = table.lines().find(|line| line.starts_with(&format!("{name} ("))).unwrap();
        assert!(heading.contains(&expected), "{heading}");
    }

    let text = stderr(&output);
    let warning = "warning: evaluation `pairs`: 1 row could not be used: ";
    assert!(text.contains(warning) && text.contains("pairs.csv"), "{text}");

    // Above the limit, by the config or by default.
    let text = session.fail(2, &["eval", "--config", "lit.toml", "--checkpoint", "run"]);
    assert!(text.contains("evaluation `classes`: 1 of 48 images cannot be used"), "{text}");
    assert!(text.contains("`data.max_bad_fraction` = 0.01") && text.contains("thing/03.png: "), "{text}");
    let text = session.fail(2, &["eval", "--model", "run", "--task", "retrieval", "--data", "pairs.csv"]);
    assert!(text.contains("evaluation `retrieval`: 1 of 24") && text.contains("images/03.png: "), "{text}");
}

#[test]
fn class_without_images_is_an_error() {
    let session = Session::new();
    session.copy("train/images", "classes/thing");
    session.write("classes/lost_one/a.png", "<!DOCTYPE html>not found");
    session.write_config("[eval.classes]\ntask = \"zero-shot\"\nimages = \"classes\"\n");
    let init = goldens("train/init");
    let text = session.fail(
        2,
        &["eval", "--config", "lit.toml", "--checkpoint", init.to_str().unwrap(), "--set", "data.max_bad_fraction=0.5"],
    );
    assert!(text.contains("evaluation `classes`") && text.contains("the class `lost one`"), "{text}");
}

#[test]
fn log_names_what_was_measured() {
    let session = trained();
    let of = |run: &str, name: &str| -> String {
        let line = session.metrics(run, "eval").into_iter().rfind(|line| line["name"] == name).unwrap();
        line["fingerprint"].as_str().unwrap().to_owned()
    };
    let before = ["classes", "pairs"].map(|name| of("run", name));
    assert_ne!(before[0], before[1]);
    let table = session.succeed(&["eval", "--config", "lit.toml"]);
    assert!(!table.contains("fingerprint") && !table.contains(&before[0]), "{table}");
    let train = |run: &str| {
        let run = format!("run.dir={run}");
        session.succeed(&["train", "--config", "lit.toml", "--set", "train.epochs=1", "--set", &run]);
    };
    train("same");
    assert_eq!(["classes", "pairs"].map(|name| of("same", name)), before);
    session.write("templates.txt", "{c}\nan image of a {c}\n");
    session.write("retrieval/00.png", fs::read(goldens("train/images/07.png")).unwrap());
    train("other");
    let after = ["classes", "pairs"].map(|name| of("other", name));
    assert!(after[0] != before[0] && after[1] != before[1]);
}
