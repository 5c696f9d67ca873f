//! Embeddings that are cut to their first values, `--dim`: every command gives those of `embed`, normalised again.

use serde_json::Value;

use crate::support::{Session, embedded, floats, goldens, stderr};

/// The first `dim` values of each row of `width`, normalised.
fn cut(values: &[f32], width: usize, dim: usize) -> Vec<f64> {
    let row = |row: &[f32]| {
        let row: Vec<f64> = row[..dim].iter().map(|value| f64::from(*value)).collect();
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.into_iter().map(|value| value / norm).collect::<Vec<f64>>()
    };
    values.chunks_exact(width).flat_map(row).collect()
}

#[track_caller]
fn assert_rows(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found}, expected {expected}");
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn embed_and_search_use_first_values() {
    let (session, model) = embedded();
    let embed = ["embed", "--model", &model, "--images", "images", "--texts", "texts.txt", "--out"];
    let output = session.run(&[&embed[..], &["narrow.safetensors", "--dim", "6"]].concat());
    let text = stderr(&output);
    assert!(output.status.success() && text.contains("it is not recorded which widths"), "{text}");
    for name in ["image_embeds", "text_embeds"] {
        let whole = floats(&session.path("embeds.safetensors"), name);
        assert_rows(&floats(&session.path("narrow.safetensors"), name), &cut(&whole, 24, 6));
    }
    // The whole width is the model as it is.
    session.succeed(&[&embed[..], &["whole.safetensors", "--dim", "24"]].concat());
    let bytes = |name: &str| std::fs::read(session.path(name)).unwrap();
    assert!(bytes("whole.safetensors") == bytes("embeds.safetensors"));
    let text = session.fail(2, &[&embed[..], &["none.safetensors", "--dim", "25"]].concat());
    assert!(text.contains("`--dim` is 25, but the embeddings of this model have 24 values; give 1 to 24"), "{text}");
    assert!(!session.path("none.safetensors").exists());

    session.succeed(&["index", "narrow.safetensors", "--out", "narrow.index"]);
    let images = cut(&floats(&session.path("embeds.safetensors"), "image_embeds"), 24, 6);
    let queries = cut(&floats(&session.path("embeds.safetensors"), "text_embeds"), 24, 6);
    let search = ["search", "--model", &model, "a green square", "--index"];
    for index in ["narrow.safetensors", "narrow.index"] {
        let found = json(&session.succeed(&[&search[..], &[index, "--dim", "6", "--json", "-"]].concat()));
        for hit in found[0]["hits"].as_array().unwrap() {
            let row = hit["row"].as_u64().unwrap() as usize;
            let score: f64 = queries[6..12].iter().zip(&images[6 * row..]).map(|(a, b)| a * b).sum();
            assert!((hit["score"].as_f64().unwrap() - score).abs() < 1e-3, "{hit}");
        }
        for (more, expected) in [
            (
                &[][..],
                "has embeddings of 6 values, but those of the model have 24; if this model wrote them with `--dim 6`",
            ),
            (
                &["--dim", "8"],
                "`--dim` cuts those of the model to 8; give the same as when they were written, `--dim 6`",
            ),
        ] {
            let text = session.fail(2, &[&search[..], &[index], more].concat());
            assert!(text.contains(expected), "{text}");
        }
    }
    let text = session.fail(2, &[&search[..], &["embeds.safetensors", "--dim", "6"]].concat());
    assert!(
        text.contains("`--dim` cuts those of the model to 6; leave it out, or embed again with `--dim 6`"),
        "{text}"
    );
    // Another model of the same width, as cut, is still another model.
    session.copy("train/init", "other");
    crate::support::edit_floats(&session.path("other/model.safetensors"), "text_projection.weight", |x| x * 1.01);
    let text = session.fail(2, &["search", "--model", "other", "--index", "narrow.index", "--dim", "6", "a"]);
    assert!(text.contains("written by a model with other weights"), "{text}");
    let classify = ["classify", "--model", &model, "--labels", "a red circle,a green square", "--json", "-"];
    let found = json(&session.succeed(&[&classify[..], &["--dim", "6", "images/07.png"]].concat()));
    for label in found["images"][0]["labels"].as_array().unwrap() {
        let at = if label["label"] == "a red circle" { 0 } else { 6 };
        let score: f64 = queries[at..at + 6].iter().zip(&images[6 * 7..]).map(|(a, b)| a * b).sum();
        assert!((label["score"].as_f64().unwrap() - score).abs() < 1e-5, "{label}");
    }
}

/// A run with nested embeddings of 24, 8 and 3 values.
fn nested() -> Session {
    let session = Session::new();
    let data = goldens("train/train.csv");
    session.write_config(&format!("matryoshka = [24, 8, 3]\n[eval.pairs]\ntask = \"retrieval\"\ndata = {data:?}\n"));
    let train = [
        "train",
        "--config",
        "lit.toml",
        "--set",
        "train.epochs=1",
        "--set",
        "model.text_head={kind=\"linear\",bias=true}",
    ];
    session.succeed(&train);
    session
}

#[test]
fn narrow_figures_and_exports_are_those_of_the_run() {
    let session = nested();
    let logged = session.metrics("run", "eval").pop().unwrap();
    let data = goldens("train/train.csv").display().to_string();
    let eval = ["eval", "--model", "run", "--task", "retrieval", "--data", &data, "--json", "-", "--dim"];
    for dim in [8, 3] {
        let output = session.run(&[&eval[..], &[&dim.to_string()]].concat());
        let (text, notes) = (String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output));
        assert!(output.status.success() && !notes.contains("train.matryoshka"), "{notes}");
        let found = json(&text);
        assert_eq!(found["dim"], dim);
        let figures: Vec<(&String, &Value)> = found.as_object().unwrap().iter().filter(|(_, it)| it.is_f64()).collect();
        assert!(figures.len() >= 6, "{found}");
        for (name, value) in figures {
            let expected = logged[format!("{name}_dim{dim}")].as_f64().unwrap();
            assert!((value.as_f64().unwrap() - expected).abs() < 1e-6, "{name}: {value}, in the run {expected}");
        }
    }
    let output = session.run(&[&eval[..], &["4"]].concat());
    assert!(stderr(&output).contains("trained with other widths (`train.matryoshka` was [24, 8, 3])"));
    let text = session.succeed(&["eval", "--model", "run", "--task", "retrieval", "--data", &data, "--dim", "8"]);
    assert!(text.contains("retrieval (retrieval, step 3, embeddings cut to 8 values)"), "{text}");
    let text = session.fail(2, &["eval", "--config", "lit.toml", "--dim", "8"]);
    assert!(text.contains("`--dim` is an option of `--model DIR`, but `--config` is given"), "{text}");
    assert!(text.contains("train with `train.matryoshka`") && !text.contains("--task"), "{text}");
    for dim in [&["--dim", "-1"][..], &["--dim=0"], &["--dim", "x"]] {
        let text = session.fail(2, &[&["embed", "--model", "run", "--out", "x"][..], dim].concat());
        assert!(text.contains("for '--dim <N>': expected a whole number of at least 1"), "{text}");
    }

    // The exported model gives what `embed --dim` gives, and the card has the figures of this width.
    session.write("texts.txt", "a red circle\na green square on grey\n");
    let images = goldens("train/images").display().to_string();
    let embed = ["embed", "--images", &images, "--texts", "texts.txt", "--out"];
    session.succeed(&[&embed[..], &["run.safetensors", "--model", "run", "--dim", "8"]].concat());
    let export = ["export", "--model", "run", "--format"];
    session.succeed(&[&export[..], &["sentence-transformers", "--out", "st", "--dim", "8"]].concat());
    let card = std::fs::read_to_string(session.path("st/README.md")).unwrap();
    assert!(card.contains("vectors of 8 values") && card.contains("first 8 of the 24 values"), "{card}");
    let recall = format!("{:.4}", logged["text_retrieval_recall@5_dim8"].as_f64().unwrap());
    assert!(card.contains(&format!("| `text_retrieval_recall@5` | {recall} |")) && !card.contains("_dim8"), "{card}");
    assert!(card.contains("truncate_dim=3") && card.contains("the first 3 values, too"), "{card}");
    let [low, high] = [0, 1].map(|end| logged["text_retrieval_recall@5_dim8_ci95"][end].as_f64().unwrap());
    assert!(card.contains(&format!("{recall} | {low:.4} to {high:.4} |")), "{card}");
    let config = json(&std::fs::read_to_string(session.path("st/config_sentence_transformers.json")).unwrap());
    assert_eq!(config["matryoshka_dims"], serde_json::json!([8, 3]));
    let dense = session.path("st/text_1_Dense/model.safetensors");
    assert_eq!(crate::support::tensors(&dense)["linear.weight"].1, [8, 12]);
    assert_eq!(floats(&dense, "linear.bias").len(), 8);

    let plain = ["--set", "run.dir=plain", "--set", "train.epochs=1", "--set", "train.matryoshka="];
    session.succeed(&[&["train", "--config", "lit.toml"][..], &plain].concat());
    session.succeed(&["export", "--model", "plain", "--out", "hf", "--dim", "8"]);
    session.succeed(&[&embed[..], &["plain.safetensors", "--model", "plain", "--dim", "8"]].concat());
    session.succeed(&[&embed[..], &["hf.safetensors", "--model", "hf"]].concat());
    for name in ["image_embeds", "text_embeds"] {
        let [run, exported] = ["plain", "hf"].map(|file| floats(&session.path(&format!("{file}.safetensors")), name));
        assert_eq!(run, exported, "{name}");
    }
    let card = std::fs::read_to_string(session.path("hf/README.md")).unwrap();
    assert!(!card.contains("Matryoshka"), "{card}");
}
