//! `dualenc inspect` on golden models, on a run, and on directories that are damaged or hold no model.

use std::fs;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::support::{Session, edit_floats, goldens, stderr, tensors};

#[test]
fn reports_dual_encoder() {
    let session = Session::new();
    session.copy("dual/vit_bert", "model");
    let expected = "\
model: a VisionTextDualEncoder, 9,929 parameters

image tower   vit, 4,296 parameters
  shape       1 block of width 16 with 4 heads
  takes       images of 24x24 px in patches of 6x6 px
  pooling     auto takes the pooler: a linear of the class token and tanh
  tensors     24 found, none missing or left over
  lock        can be locked as it is
  export      as VisionTextDualEncoder
text tower    bert, 4,960 parameters
  shape       2 blocks of width 12 with 4 heads
  takes       40 tokens at most, of 159 words
  pooling     auto takes the pooler: a linear of the first token and tanh
  tensors     39 found, none missing or left over
  lock        can be locked as it is
  export      as VisionTextDualEncoder
projections   image 16 to 24, text 12 to 24
logit_scale   2.1000, a factor of 8.17 on cosines (temperature 0.1225)
weights       model.safetensors, 47.0 kB: 66 F32 tensors
images        ViT: resize to 24x24 (bilinear), normalise by mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5]
tokenizer     WordPiece, 159 ids, [CLS] .. [SEP], pad [PAD]=0, at most 40 tokens

no problems found
";
    assert_eq!(session.succeed(&["inspect", "model"]), expected);
    assert_eq!(session.succeed(&["inspect", "model", "--json", "report.json"]), expected);
    let json = fs::read_to_string(session.path("report.json")).unwrap();
    assert_eq!(session.succeed(&["inspect", "model", "--json", "-"]), json);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["kind"], &json["model_type"]), (&"whole-model".into(), &"vision-text-dual-encoder".into()));
    let tower = &json["image_tower"];
    assert_eq!(
        (&tower["family"], &tower["patch_size"], &tower["lock_refused"]),
        (&"vit".into(), &6.into(), &Value::Null)
    );
    assert_eq!(json["head"]["text_projection"], serde_json::json!([12, 24]));
    assert_eq!((&json["run"], &json["problems"]), (&Value::Null, &serde_json::json!([])));
}

#[test]
fn missing_pooler_prevents_lock() {
    let session = Session::new();
    session.copy("towers/vit_classifier", "tower");
    let expected = "\
tower: an image tower, 5,080 parameters

image tower   vit, 5,080 parameters
  shape       2 blocks of width 12 with 3 heads
  takes       images of 32x32 px in patches of 8x8 px
  pooling     auto takes the pooler: a linear of the class token and tanh; the weights lack it, so that it
              would start at random
  tensors     38 found
  missing     vit.pooler.dense.bias
              vit.pooler.dense.weight
  left over   classifier.bias
              classifier.weight
  lock        cannot be locked as it is
              These weights were saved without a pooler. Set `image_pool = \"cls\"` (or \"mean\") to take the last
              hidden state instead, or unlock the tower so that its pooler can be learned.
  export      as VisionTextDualEncoder
weights       model.safetensors, 24.3 kB: 40 F32 tensors
images        ViT: resize to 32x32 (bilinear), normalise by mean [0.5, 0.5, 0.5], std [0.5, 0.5, 0.5] (no file
              says so; its family usually does)

no problems found
";
    assert_eq!(session.succeed(&["inspect", "tower"]), expected);
}

#[test]
fn explains_auto_pooling() {
    let session = Session::new();
    let pooling = |name: &str| {
        // The golden towers lack tokenizers, which is a problem.
        let json: Value = serde_json::from_slice(&session.run(&["inspect", name, "--json", "-"]).stdout).unwrap();
        let tower = ["image_tower", "text_tower"].iter().find_map(|tower| json[tower]["pooling"].as_str());
        tower.unwrap().to_owned()
    };
    session.copy("text_families/distilbert", "distilbert");
    assert_eq!(pooling("distilbert"), "the first token: its family has no pooler");
    session.copy("towers/bert_mlm", "bert");
    let random = "the weights lack it, so that it would start at random";
    assert_eq!(pooling("bert"), format!("the pooler: a linear of the first token and tanh; {random}"));
    for name in ["distilbert", "bert"] {
        session.write(&format!("{name}/1_Pooling/config.json"), "{\"pooling_mode_mean_tokens\": true}");
    }
    session.copy("towers/bert", "with_pooler");
    session.write("with_pooler/1_Pooling/config.json", "{\"pooling_mode\": \"cls\"}");
    let reason = "as `1_Pooling` of sentence-transformers says";
    assert_eq!(pooling("distilbert"), format!("the mean of all tokens, {reason}"));
    assert_eq!(pooling("bert"), format!("the mean of all tokens, {reason}"));
    // A pooler in the weights comes first.
    assert_eq!(pooling("with_pooler"), "the pooler: a linear of the first token and tanh");
    for (golden, expected) in [
        ("towers/dinov2", "the class token: its family has no pooler layer"),
        ("image_families/swin", "the mean over the last feature map"),
        ("image_families/beit", "the pooler: the mean of the patch tokens, normalised"),
    ] {
        session.copy(golden, golden);
        assert_eq!(pooling(golden), expected);
    }
}

#[test]
fn explains_impossible_export() {
    let session = Session::new();
    session.copy("text_families/distilbert", "tower");
    let text = session.problems(&["inspect", "tower"]);
    let expected = "\
  export      not possible
              transformers' VisionTextDualEncoder cannot run a `distilbert` text tower, which has no pooler;
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn reports_towers_of_whole_models() {
    let session = Session::new();
    let clip = [
        "image tower   clip_vision_model",
        "text tower    clip_text_model",
        "  pooling     auto takes the token at the end of the text\n",
        "projections   image 12 to 10, text 8 to 10\n",
        "no problems found",
    ];
    let siglip = [
        "model: a whole `siglip`",
        "padded to ",
        "projections   none: the towers' outputs are compared as they are\n",
        "logit_bias    -",
        "no problems found",
    ];
    let chinese =
        ["text tower    bert", "auto takes the first token: its whole model takes that\n", "no problems found"];
    let cases: [(&str, &[&str]); 5] = [
        ("clip", &clip),
        ("clip_early", &clip[..2]),
        ("open_clip", &clip[..3]),
        ("siglip", &siglip),
        ("chinese_clip", &chinese),
    ];
    for (kind, parts) in cases {
        let session = Session::new();
        session.copy(&format!("whole/{kind}"), "model");
        let text = session.succeed(&["inspect", "model"]);
        for part in parts {
            assert!(text.contains(part), "{kind}: {part} is not in\n{text}");
        }
        assert!(!text.contains("missing  ") && !text.contains("left over   "), "{kind}: {text}");
    }
    let dir = session.copy("dual/vit_bert", "model");
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), config.replace("\"hidden_size\": 12", "\"hidden_size\": 8")).unwrap();
    let text = session.problems(&["inspect", "model"]);
    let problem = "the model cannot be loaded: text_projection.weight: expected [24, 8], found [24, 12]\n";
    assert!(text.contains(problem), "{text}");
}

#[test]
fn reports_stages_of_resnet() {
    let session = Session::new();
    session.copy("image_families/resnet", "tower");
    let text = session.succeed(&["inspect", "tower"]);
    assert!(text.contains("  shape       stages of 1, 2 blocks of width 8, 12\n"), "{text}");
    assert!(text.contains("  takes       images of any size\n") && text.contains("62 F32, 12 I64 tensors"), "{text}");
}

#[test]
fn lists_problems_of_damaged_tower() {
    let session = Session::new();
    let dir = session.copy("towers/bert_sharded", "tower");
    fs::remove_file(dir.join("model-00001-of-00003.safetensors")).unwrap();
    let shard = fs::read(dir.join("model-00003-of-00003.safetensors")).unwrap();
    fs::write(dir.join("model-00003-of-00003.safetensors"), &shard[..shard.len() - 4]).unwrap();
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    let wide = config.replace("\"intermediate_size\": 20", "\"intermediate_size\": 24");
    assert_ne!(config, wide);
    fs::write(dir.join("config.json"), wide).unwrap();
    let text = session.problems(&["inspect", "tower"]);
    for part in [
        "text tower    bert, ",
        "  missing     embeddings.LayerNorm.bias\n",
        "... and 5 more\n",
        "  misshapen   encoder.layer.0.intermediate.dense.bias: expected [24], found [20]\n",
        "cannot be locked as it is\n              Weights of other shapes cannot be loaded.\n",
        "weights       model-00002-of-00003.safetensors",
        "cannot read `tower/model-00001-of-00003.safetensors`: No such file",
        "`tower/model-00003-of-00003.safetensors` is not a readable safetensors file",
        "the text tower cannot be loaded: 5 tensors are of another shape\n",
        "4 problems\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn reports_config_beside_pickle() {
    let session = Session::new();
    let dir = session.copy("towers/bert", "tower");
    fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    let text = session.problems(&["inspect", "tower"]);
    assert!(text.contains("tower: a text tower") && text.contains("There are no weights."), "{text}");
    assert!(text.contains("`pytorch_model.bin` is a") && text.contains("save_pretrained"), "{text}");
}

#[test]
fn reports_progress_and_valid_checkpoints() {
    let session = Session::new();
    session.write_config("[checkpoint]\nevery_steps = 4\n");
    session.succeed(&["train", "--config", "lit.toml", "--set", "model.lock=LU"]);
    let text = session.succeed(&["inspect", "run"]);
    let head = "\
run: a run, 11,273 parameters

step          12 of 12, epoch 4.00, 96 pairs seen
checkpoint    step-000012 is the newest valid one
  valid       steps 4, 8, 12
lock          LU
trains        5,633 parameters
image tower   vit, 5,640 parameters
  from        ";
    assert!(text.starts_with(head) && text.ends_with("\n\nno problems found\n"), "{text}");
    let of_checkpoint = session.succeed(&["inspect", "run/checkpoints/step-000008"]);
    assert!(
        of_checkpoint.starts_with(
            "run/checkpoints/step-000008: a checkpoint, 11,273 parameters\n\nstep          8 of 12, epoch 2.67,"
        ),
        "{of_checkpoint}"
    );
    // The reported temperature is that of the checkpoint.
    let scale = |text: &str| text.lines().find(|line| line.starts_with("logit_scale")).unwrap().to_owned();
    assert_ne!(scale(&text), scale(&of_checkpoint));

    session.write("run/checkpoints/step-000012/optimizer.safetensors", "torn");
    let text = session.problems(&["inspect", "run"]);
    assert!(
        text.contains("step-000008 is the newest valid one\n  valid       steps 4, 8\n  damaged     1 checkpoint"),
        "{text}"
    );
    assert!(text.contains("`optimizer.safetensors` is damaged"), "{text}");
    let text = session.problems(&["inspect", "run/checkpoints/step-000012"]);
    assert!(text.contains("none that is valid") && text.contains("image tower   vit"), "{text}");
}

#[test]
fn names_foreign_and_bad_files() {
    let session = Session::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n";
    let dir = session.copy("train/bert", "text");
    fs::write(dir.join("tokenizer.json"), pointer).unwrap();
    let text = session.problems(&["inspect", "text"]);
    assert!(text.contains("tokenizer.json`: it is a Git LFS pointer"), "{text}");
    let dir = session.copy("train/vit", "image");
    edit_floats(&dir.join("model.safetensors"), "layernorm.weight", |_| f32::NAN);
    fs::write(dir.join("preprocessor_config.json"), "<html><title>Sign in</title></html>").unwrap();
    let json = session.problems(&["inspect", "image", "--json", "-"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["image_tower"]["lock_refused"], "Its weights hold NaN or infinite values.");
    let problems: Vec<&str> = json["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let [processor, values] = problems.as_slice() else { panic!("{problems:?}") };
    assert!(processor.contains("preprocessor_config.json` is malformed: it is an HTML page"), "{processor}");
    let expected = "the image tower holds NaN or infinite values: layernorm.weight: ";
    assert!(values.starts_with(expected) && values.ends_with("the first, NaN, at flat index 0"), "{values}");
    // The same stops `check` and `train` before the first step.
    session.write_config("");
    let towers = ["--set", "model={image_tower=\"image\",text_tower=\"text\",lock=\"LU\",embed_dim=8}"];
    for command in ["check", "train"] {
        let text = session.fail(2, &[&[command, "--config", "lit.toml"][..], &towers].concat());
        assert!(text.contains("layernorm.weight: ") && text.contains("NaN or infinite"), "{text}");
    }
    assert!(!session.path("run/metrics.jsonl").exists());
}

#[test]
fn notes_prefix_of_wrapper() {
    let session = Session::new();
    let path = session.copy("train/vit", "tower").join("model.safetensors");
    let all = tensors(&path);
    let views = all.iter().map(|(name, (_, shape, bytes))| {
        (format!("module.{name}"), TensorView::new(Dtype::F32, shape.clone(), bytes.as_slice()).unwrap())
    });
    fs::write(&path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
    let text = session.succeed(&["inspect", "tower"]);
    let note = format!("`module.` taken off {} tensor names, as DistributedDataParallel writes them", all.len());
    assert!(text.contains(&format!("  note        {note}\n")), "{text}");
    session.write_config("");
    let text = goldens("train/bert");
    let towers = format!("model={{image_tower=\"tower\",text_tower={text:?},lock=\"LU\",embed_dim=8}}");
    let output = session.run(&["train", "--config", "lit.toml", "--set", &towers, "--set", "train.epochs=1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("image tower: {note}\n")), "{}", stderr(&output));
}

#[test]
fn rejects_directories_without_model() {
    let session = Session::new();
    session.write("folder/notes.txt", "no model");
    let text = session.fail(2, &["inspect", "folder"]);
    assert!(text.contains("found `notes.txt`; expected `config.json`"), "{text}");
    session.write("gpt/config.json", "{\"model_type\": \"gpt2\"}");
    let text = session.fail(2, &["inspect", "gpt"]);
    for part in ["`gpt2`", "image or text tower", "vit, deit", "bert, roberta", "vision-text-dual-encoder, clip"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    session.copy("train/vit", "folder/0_CLIPModel");
    let text = session.fail(2, &["inspect", "folder"]);
    assert!(text.contains("the model is in its sub-folder: give `folder/0_CLIPModel`"), "{text}");
    session.fail(2, &["inspect", "nowhere"]);
    let images = goldens("train/images");
    session.fail(2, &["inspect", images.to_str().unwrap()]);
}

/// Towers that are taken from a whole model have other widths than its projections, where the run pools them otherwise.
#[test]
fn towers_of_whole_models_are_inspected_alone() {
    let session = Session::new();
    session.copy("dual/vit_bert", "model");
    session.write_config("");
    let text = fs::read_to_string(session.path("lit.toml")).unwrap();
    let towers = "image_tower = \"./model\"\ntext_tower = \"./model\"\nembed_dim = 6";
    let lines: Vec<&str> = text.lines().map(|line| if line.starts_with("init = ") { towers } else { line }).collect();
    session.write("lit.toml", lines.join("\n"));
    let lists = ["image_pool=cls+mean", "text_layer=[1,2]", "text_pool=mean"];
    for (run, sets) in
        [("lists", &lists[..]), ("tokens", &["image_head={tokens='query', token_width=8, token_heads=2}"])]
    {
        let dir = format!("run.dir={run}");
        let mut arguments = vec!["train", "--config", "lit.toml", "--set", &dir, "--set", "model.lock=LL"];
        let sets: Vec<String> = sets.iter().map(|set| format!("model.{set}")).collect();
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        session.succeed(&[&arguments[..], &["--set", "train.epochs=1"]].concat());
        let text = session.succeed(&["inspect", run]).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("no problems found"), "{run}: {text}");
        assert_eq!(text.contains("tokens, width 8, 2 heads, then linear"), run == "tokens", "{text}");
    }
    // What is wrong with the one directory is said once.
    fs::remove_file(session.path("model/model.safetensors")).unwrap();
    let text = session.problems(&["inspect", "lists"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(text.matches("holds no `model.safetensors`").count(), 1, "{text}");
}
