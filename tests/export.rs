//! `dualenc export` of a run: its formats, and what the model card says.

use std::fs;

use serde_json::Value;

use crate::support::{Session, floats, goldens};

/// A finished run that was evaluated before its first step and after its last.
fn trained() -> Session {
    let session = Session::new();
    for image in 0..6 {
        let source = goldens(&format!("train/images/{image:02}.png"));
        session.write(&format!("pairs/{image:02}.png"), fs::read(source).unwrap());
    }
    let rows: String = (0..6).map(|image| format!("{image:02}.png,caption {image}\n")).collect();
    session.write("pairs/pairs.csv", format!("image,caption\n{rows}"));
    session.write_config("[eval.pairs_a]\ntask = \"retrieval\"\ndata = \"pairs/pairs.csv\"\nevery_epochs = 4\n");
    session.succeed(&["train", "--config", "lit.toml", "--set", "model.lock=LU"]);
    session
}

#[test]
fn card_says_what_the_run_recorded() {
    let session = trained();
    let out = session.succeed(&["export", "--model", "run", "--out", "hf"]);
    assert_eq!(out, "wrote a VisionTextDualEncoder to hf\n");
    let card = fs::read_to_string(session.path("hf/README.md")).unwrap();
    let (front, body) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    for line in ["# license: apache-2.0", "library_name: transformers", "pipeline_tag: zero-shot-image-classification"]
    {
        assert!(front.lines().any(|found| found == line), "{line}: {front}");
    }
    let eval = session.metrics("run", "eval").into_iter().rfind(|line| line["step"] == 12).unwrap();
    let recall = format!("| `image_retrieval_recall@1` | {:.4} |", eval["image_retrieval_recall@1"].as_f64().unwrap());
    for expected in [
        "# run\n",
        "the weights are those of step 12.",
        "| trained | locked, as pretrained | all of it, pretrained |",
        "| started from | init | init |",
        "- csv `train.csv`\n",
        "- 96 pairs of image and text were seen, in 4.00 epochs",
        "- about 24 pairs of image and text are one epoch",
        "| batch size | 8 |",
        "| loss | softmax (InfoNCE) |",
        "| learning rate | 0.001 |",
        "**pairs\\_a** (retrieval; 6 images, 6 texts)\n",
        &recall,
        "VisionTextDualEncoderModel.from_pretrained(path)",
        "AutoImageProcessor.from_pretrained(path, backend=\"pil\")",
        "Images are processed as by transformers with `backend=\"pil\"`",
        "## Licence\n",
    ] {
        assert!(body.contains(expected), "{expected}: {body}");
    }
    let here = session.path("");
    assert!(!card.contains(here.to_str().unwrap()) && !card.contains("goldens"), "a path of this machine: {card}");
}

#[test]
fn card_tells_random_weights_from_pretrained() {
    let session = Session::new();
    session.copy("train/vit", "vit");
    session.copy("train/bert", "bert");
    session.write_config("");
    let keys = ["model.init=", "model.image_tower=vit", "model.text_tower=bert", "model.lock=Lu", "train.epochs=1"];
    let keys = keys.iter().flat_map(|key| ["--set", key]);
    session.succeed(&["train", "--config", "lit.toml"].into_iter().chain(keys).collect::<Vec<_>>());
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let card = fs::read_to_string(session.path("hf/README.md")).unwrap();
    assert!(card.contains("| started from | vit | random weights, in the form of bert |"), "{card}");
}

#[test]
fn card_of_plain_model_is_short() {
    let session = trained();
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    session.succeed(&["export", "--model", "hf", "--out", "again"]);
    let card = fs::read_to_string(session.path("again/README.md")).unwrap();
    assert!(card.contains("# hf\n") && card.contains("How it was trained is not recorded."), "{card}");
    for section in ["## Training data", "## Recipe", "## Evaluation", "| trained |"] {
        assert!(!card.contains(section), "{section}: {card}");
    }
    assert!(card.contains("No evaluation of this model is recorded."), "{card}");
}

#[test]
fn long_texts_embed_alike() {
    let session = Session::new();
    session.write_config("");
    let limits = ["--set", "data.max_tokens=6", "--set", "train.epochs=1"];
    session.succeed(&[&["train", "--config", "lit.toml"], &limits[..]].concat());
    session.succeed(&["export", "--model", "run", "--out", "hf"]);
    let settings: Value = serde_json::from_slice(&fs::read(session.path("hf/tokenizer_config.json")).unwrap()).unwrap();
    assert_eq!(settings["model_max_length"], 6);
    session.write("texts.txt", format!("a red circle\n{}\n", "a red circle and a green square ".repeat(90)));
    let embed = |model: &str| {
        let out = format!("{model}.safetensors");
        session.succeed(&["embed", "--model", model, "--texts", "texts.txt", "--out", &out]);
        let text = session.succeed(&["inspect", model]);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("at most 6 tokens"), "{model}: {text}");
        floats(&session.path(&out), "text_embeds")
    };
    let (found, expected) = (embed("hf"), embed("run"));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(found.len() == expected.len() && worst <= 1e-6, "{worst}");
}

#[test]
fn mixture_has_no_figures_of_run() {
    let session = trained();
    session.succeed(&["interpolate", "--model", "run", "--alpha", "0.25", "--out", "mixed"]);
    let card = fs::read_to_string(session.path("mixed/README.md")).unwrap();
    assert!(card.contains("`(1 - alpha) * start + alpha * trained`, at alpha = 0.25."), "{card}");
    assert!(card.contains("not those of this mixture") && !card.contains("## Evaluation"), "{card}");
}

#[test]
fn formats_are_named() {
    let session = Session::new();
    let init = goldens("train/init");
    let init = init.to_str().unwrap();
    let out = session.succeed(&["export", "--model", init, "--format", "sentence-transformers", "--out", "st"]);
    assert_eq!(out, "wrote a SentenceTransformer to st\n");
    assert!(session.path("st/modules.json").exists() && !session.path("st/config.json").exists());
    let text = session.fail(2, &["classify", "--model", "st", "--labels", "a,b", "x.png"]);
    assert!(
        text.contains("`st` holds an image and a text model") && text.contains("`--format transformers`"),
        "{text}"
    );
    let text = session.fail(2, &["export", "--model", init, "--format", "tensorflow", "--out", "x"]);
    assert!(text.contains("transformers, sentence-transformers"), "{text}");
}
