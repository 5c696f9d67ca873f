//! Exports every golden dual encoder and every whole model that can be one, and loads it again: the features are the
//! same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use dualenc_model::{Dropout, TokenSequences, parameters, read_safetensors};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::*;
use crate::commands::export::json_files::read_object;
use crate::commands::export::tokenizer_copy::tokenizer_class;
use crate::device::Compute;

mod as_pytorch;
mod head_exports;
mod route_exports;
mod sentence_exports;

/// Collects notes and warnings, and audits of missing or unused tensors.
#[derive(Default)]
pub(super) struct Messages(pub(super) Vec<String>);

impl Observer for Messages {
    fn on(&mut self, event: Event<'_>) {
        match event {
            Event::Note(text) | Event::Warning(text) => self.0.push(text),
            Event::Audit { part, audit } => self.0.push(format!("audit of the {part}: {audit:?}")),
            _ => {}
        }
    }
}

pub(super) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

/// A copy of a fixture. Fixtures without a tokenizer get a small one.
pub(super) fn staged(name: &str, root: &Path) -> PathBuf {
    let target = root.join(name.replace('/', "_"));
    fs::create_dir_all(&target).unwrap();
    for entry in fs::read_dir(goldens().join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    if !["tokenizer.json", "vocab.json"].iter().any(|file| target.join(file).is_file()) {
        let words = "[PAD] [UNK] [CLS] [SEP] [MASK] a b c the red dog";
        fs::write(target.join("vocab.txt"), words.replace(' ', "\n")).unwrap();
        fs::write(target.join("tokenizer_config.json"), r#"{"tokenizer_class": "BertTokenizer"}"#).unwrap();
    }
    target
}

pub(super) fn opened(dir: &Path, messages: &mut Messages) -> LoadedModel {
    let compute = Compute { threads: 1, ..Compute::select("cpu", None).unwrap() };
    LoadedModel::from_dir(dir, &compute, messages).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// Features of the fixture's images and captions.
pub(super) fn features(loaded: &LoadedModel, fixture: &str) -> [Vec<f32>; 2] {
    let (pixels, tokens) = inputs(loaded, fixture);
    let model = loaded.model.valid();
    let image = model.image_features(pixels, &Dropout::off());
    let text = model.text_features(&tokens, &Dropout::off()).unwrap();
    [image, text].map(|features| parameters::host(features).unwrap().values)
}

/// The fixture's images and captions.
pub(super) fn inputs(loaded: &LoadedModel, fixture: &str) -> (Tensor<4>, TokenSequences) {
    let path = goldens().join(fixture).join("expected.safetensors");
    let pixels = read_safetensors(&path).unwrap().remove("pixel_values").unwrap();
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels.values, pixels.shape), &loaded.model.device());
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| -> Vec<Vec<u32>> {
        let view = file.tensor(name).unwrap();
        let values: Vec<u32> =
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect();
        values.chunks(view.shape()[1]).map(<[u32]>::to_vec).collect()
    };
    let (ids, mask) = (rows("input_ids"), rows("attention_mask"));
    let zeros = vec![vec![0; ids[0].len()]; ids.len()];
    let counted = loaded.model.text_tower.config().position_count();
    (pixels, TokenSequences::from_padded(&ids, &zeros, &mask, counted))
}

const EXPORTED: [&str; 23] = [
    "dual/deit_roberta",
    "dual/dinov2_bert",
    "dual/vit_bert",
    "dual/vit_bert_v4",
    "image_families/dual_beit",
    "image_families/dual_clip",
    "image_families/dual_clip_v4",
    "image_families/dual_convnext",
    "image_families/dual_convnextv2",
    "image_families/dual_data2vec",
    "image_families/dual_dinov2_registers",
    "image_families/dual_dinov2_swiglu",
    "image_families/dual_dinov3",
    "image_families/dual_siglip",
    "image_families/dual_swin",
    "text_families/pair_albert",
    "text_families/pair_clip_text",
    "text_families/pair_clip_text_v4",
    "text_families/pair_mpnet",
    "whole/clip",
    "whole/clip_early",
    "whole/doubled",
    "whole/open_clip",
];

#[test]
fn stopped_export_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/train/init");
    let loaded = opened(&dir, &mut Messages::default());
    let stop = StopFlag::default();
    stop.request(15);
    let error =
        export(&loaded, &ExportRequest::new(&root.path().join("out")), &stop, &mut Messages::default()).unwrap_err();
    assert!(matches!(error, TrainError::Stopped { signal: 15 }), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn exported_models_keep_their_features() {
    let root = tempfile::tempdir().unwrap();
    for name in EXPORTED {
        let original = opened(&staged(name, root.path()), &mut Messages::default());
        let target = root.path().join("out").join(name);
        let mut messages = Messages::default();
        export(&original, &ExportRequest::new(&target), &StopFlag::default(), &mut messages)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let back = opened(&target, &mut messages);
        // open_clip crops like torchvision.
        messages.0.retain(|text| name != "whole/open_clip" || !text.contains("crop one pixel off"));
        assert_eq!(messages.0, Vec::<String>::new(), "{name}");
        for (before, after) in features(&original, name).iter().zip(&features(&back, name)) {
            let worst = before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(before.len() == after.len() && worst <= 1e-6, "{name}: features differ by {worst}");
        }
        if name != "whole/open_clip" {
            assert_eq!(back.processor.fingerprint(), original.processor.fingerprint(), "{name}");
        }
        let text = "A dog, the red one";
        assert_eq!(back.tokenizer.encode(text).unwrap(), original.tokenizer.encode(text).unwrap(), "{name}");
    }
}

#[test]
fn refuses_what_the_reference_cannot_compute() {
    let root = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("image_families/dual_resnet", "cannot project a `resnet` image tower"),
        ("text_families/pair_deberta", "cannot run a `deberta-v2` text tower, which has no pooler"),
        ("text_families/pair_distilbert", "cannot run a `distilbert` text tower"),
        ("text_families/pair_electra", "cannot run a `electra` text tower"),
        ("text_families/pair_modernbert", "cannot run a `modernbert` text tower"),
        ("text_families/pair_siglip_text", "does not know the text tower `siglip_text_model` by itself"),
        ("whole/siglip", "does not know the text tower `siglip_text_model` by itself"),
        (
            "whole/chinese_clip",
            "always takes the text tower's pooler; export with `--format sentence-transformers`, or train with \
             `text_pool = \"pooler\"`",
        ),
    ] {
        let original = opened(&staged(name, root.path()), &mut Messages::default());
        let target = root.path().join("out").join(name);
        let text = export(&original, &ExportRequest::new(&target), &StopFlag::default(), &mut Messages::default())
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected) && text.contains("train with"), "{name}: {text}");
        assert!(!target.exists(), "{name}");
    }
}

#[test]
fn siglip_pads_captions_to_full_length() {
    let root = tempfile::tempdir().unwrap();
    let siglip = opened(&staged("whole/siglip", root.path()), &mut Messages::default());
    let bytes = fs::read(goldens().join("whole/siglip/expected.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let captions: Vec<String> = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["captions"]).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = file.tensor("input_ids").unwrap();
    let ids: Vec<i64> =
        captions.iter().flat_map(|caption| siglip.tokenizer.encode(caption).unwrap().ids).map(i64::from).collect();
    let expected: Vec<i64> =
        expected.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(ids, expected);
}

/// Replaces values of a JSON file.
fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value = Value::Object(read_object(path).unwrap());
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn reports_logit_bias_and_image_processing() {
    let root = tempfile::tempdir().unwrap();
    let dir = staged("dual/vit_bert", root.path());
    fs::remove_file(dir.join("processor_config.json")).unwrap();
    edit(&dir.join("config.json"), |config| {
        config["pretrained_cfg"] = json!({ "input_size": [3, 24, 24], "crop_pct": 0.9, "crop_mode": "center" });
    });
    let mut loaded = opened(&dir, &mut Messages::default());
    loaded.model.logit_bias = Some(parameters::scalar(-7.5, &loaded.model.device()));
    let mut messages = Messages::default();
    export(&loaded, &ExportRequest::new(&root.path().join("out")), &StopFlag::default(), &mut messages).unwrap();
    assert!(messages.0.iter().any(|text| text.contains("has no `logit_bias`: -7.5 is left out")), "{:?}", messages.0);
    assert!(messages.0.iter().any(|text| text.contains("process images a little differently")), "{:?}", messages.0);
}

#[test]
fn adds_missing_tokenizer_class() {
    let class = |config: Value| tokenizer_class(&config).to_owned();
    assert_eq!(class(json!({ "model_type": "clip_text_model" })), "CLIPTokenizer");
    assert_eq!(class(json!({ "model_type": "mpnet" })), "MPNetTokenizer");
    assert_eq!(class(json!({ "model_type": "bert", "tokenizer_class": "XLMRobertaTokenizer" })), "XLMRobertaTokenizer");
    let root = tempfile::tempdir().unwrap();
    let dir = staged("dual/vit_bert", root.path());
    edit(&dir.join("tokenizer_config.json"), |config| {
        *config = json!({ "do_lower_case": true, "pad_token": "[PAD]" });
    });
    let loaded = opened(&dir, &mut Messages::default());
    let target = root.path().join("out");
    export(&loaded, &ExportRequest::new(&target), &StopFlag::default(), &mut Messages::default()).unwrap();
    let written = read_object(&target.join("tokenizer_config.json")).unwrap();
    let expected: BTreeMap<&str, Value> = BTreeMap::from([
        ("do_lower_case", json!(true)),
        ("model_max_length", json!(loaded.tokenizer.max_tokens())),
        ("pad_token", json!("[PAD]")),
        ("tokenizer_class", json!("BertTokenizer")),
    ]);
    assert_eq!(Value::Object(written), json!(expected));
}

#[test]
fn limit_of_texts_is_exported() {
    let root = tempfile::tempdir().unwrap();
    let text = "the red dog ".repeat(100);
    // The first has a `tokenizer.json`, another one a `vocab.txt`.
    for name in ["dual/vit_bert", "text_families/pair_albert", "whole/clip"] {
        let dir = staged(name, root.path());
        let path = dir.join("tokenizer_config.json");
        let of_tower = opened(&dir, &mut Messages::default());
        edit(&path, |config| config["model_max_length"] = json!(5));
        let original = opened(&dir, &mut Messages::default());
        let found = original.tokenizer.encode(&text).unwrap();
        assert_eq!((found.ids.len(), original.tokenizer.max_tokens()), (5, 5), "{name}");
        for (format, within) in
            [(ExportFormat::Transformers, ""), (ExportFormat::SentenceTransformers, "text_0_Transformer")]
        {
            let target = root.path().join(format!("{format:?}")).join(name);
            let request = ExportRequest { format, ..ExportRequest::new(&target) };
            export(&original, &request, &StopFlag::default(), &mut Messages::default()).unwrap();
            let written = read_object(&target.join(within).join("tokenizer_config.json")).unwrap();
            assert_eq!(written["model_max_length"], 5, "{name}");
        }
        let back = opened(&root.path().join("Transformers").join(name), &mut Messages::default());
        assert_eq!(back.tokenizer.encode(&text).unwrap(), found, "{name}");
        assert!(of_tower.tokenizer.max_tokens() > 5, "{name}");
    }
}

#[test]
fn limits_that_say_nothing_are_those_of_the_tower() {
    let root = tempfile::tempdir().unwrap();
    let dir = staged("dual/vit_bert", root.path());
    let limit = || opened(&dir, &mut Messages::default());
    let positions = limit().model.text_tower.config().max_tokens();
    for value in [json!(null), json!(0), json!(1e30), json!(100_000), json!("512")] {
        edit(&dir.join("tokenizer_config.json"), |config| config["model_max_length"] = value.clone());
        assert_eq!(limit().tokenizer.max_tokens(), positions, "{value}");
    }
}

#[test]
fn removes_dtype_from_configs() {
    let root = tempfile::tempdir().unwrap();
    let dir = staged("dual/vit_bert", root.path());
    edit(&dir.join("config.json"), |config| {
        config["text_config"]["dtype"] = json!("float16");
        config["vision_config"]["torch_dtype"] = json!("bfloat16");
    });
    export(
        &opened(&dir, &mut Messages::default()),
        &ExportRequest::new(&root.path().join("out")),
        &StopFlag::default(),
        &mut Messages::default(),
    )
    .unwrap();
    let written = read_object(&root.path().join("out/config.json")).unwrap();
    assert_eq!(written["dtype"], "float32");
    assert_eq!(
        (&written["text_config"]["dtype"], &written["vision_config"]["torch_dtype"]),
        (&Value::Null, &Value::Null)
    );
}
